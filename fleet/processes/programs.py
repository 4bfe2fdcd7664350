"""Run programs that end together with the run of fleet, even if the run is killed."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from fleet.errors import FleetError
from fleet.processes import watchdog
from fleet.processes.watchdog import STOP_SECONDS

PROGRAM_SECONDS = 60 * 60
"""The time that a program has. A service whose tests never end would otherwise keep the run from its end."""

TIMED_OUT = 124
"""The exit status of a program that was stopped after PROGRAM_SECONDS, as that of the command `timeout`."""

# A shell that starts the program once a line arrives: once the watchdog knows the process group. A run that is killed before that
# starts no program.
GATE = ("/bin/sh", "-c", 'read -r _ && exec "$@" </dev/null', "sh")


def wait_for_programs(lock: int) -> bool:
    """Take the lock that the programs of a killed run keep until they have ended. Return False if they do not end in time."""
    deadline = time.monotonic() + 2 * STOP_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        else:
            return True


class Guard:
    """A watchdog that stops the process groups that are left when this process ends, even if it is killed.

    `lock` is an open file that is locked: the file stays locked until the last group has ended.
    """

    def __init__(self, lock: int) -> None:
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", watchdog.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(lock,),
            start_new_session=True,
        )

    def add(self, group: int) -> None:
        _write(self._watchdog, f"+{group}")

    def discard(self, group: int) -> None:
        _write(self._watchdog, f"-{group}")

    def close(self) -> None:
        """Stop the groups that are left, and wait for their end."""
        _close(self._watchdog)
        self._watchdog.wait()


class Programs:
    """Run programs from many threads. Leaving the context stops the programs that still run.

    `lock` is an open file that is locked: the file stays locked until the last program of a killed run has ended.
    """

    def __init__(self, lock: int) -> None:
        self._guard = Guard(lock)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._is_stopping = False

    def run(self, command: Sequence[str], *, log: BinaryIO, cwd: Path, environment: Mapping[str, str]) -> int:
        """Run a program, append its output to the log, and return its exit status, which is TIMED_OUT after PROGRAM_SECONDS.

        Raises FleetError after `stop`.
        """
        with self._lock:
            self._refuse_stopped()
            # The program gets a process group of its own, which is stopped as a whole, and which Ctrl-C does not reach.
            program = subprocess.Popen(
                [*GATE, *command],
                cwd=cwd,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running.add(program)
            self._guard.add(program.pid)
            _write(program, "go")
            _close(program)
        try:
            status = program.wait(PROGRAM_SECONDS)
        except subprocess.TimeoutExpired:
            log.write(f"fleet has stopped `{command[0]}` after {PROGRAM_SECONDS / 60:.0f} minutes\n".encode())
            _stop([program])
            status = TIMED_OUT
        finally:
            with self._lock:
                self._running.discard(program)
                self._guard.discard(program.pid)
        # The status of a program that `stop` ended is not a result.
        self._refuse_stopped()
        return status

    def _refuse_stopped(self) -> None:
        if self._is_stopping:
            raise FleetError("the run was stopped")

    def stop(self) -> None:
        with self._lock:
            self._is_stopping = True
            running = list(self._running)
        _stop(running)

    def __enter__(self) -> "Programs":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._guard.close()


def _stop(programs: Sequence[subprocess.Popen[bytes]]) -> None:
    """Stop the process groups of the programs: SIGTERM, then SIGKILL after STOP_SECONDS."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for program in programs:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, number)
        for program in programs:
            with suppress(subprocess.TimeoutExpired):
                program.wait(STOP_SECONDS)


def _write(program: subprocess.Popen[bytes], line: str) -> None:
    assert program.stdin is not None
    with suppress(BrokenPipeError):  # the program has ended
        program.stdin.write(f"{line}\n".encode())
        program.stdin.flush()


def _close(program: subprocess.Popen[bytes]) -> None:
    assert program.stdin is not None
    with suppress(BrokenPipeError):
        program.stdin.close()
