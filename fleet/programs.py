"""Programs that other threads wait for, and that can all be stopped with what they have started."""

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

# For cleaning up after themselves.
STOP_SECONDS = 20


class Programs:
    """`run` may be called by many threads. Leaving the context stops what still runs."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._is_stopping = False

    def run(self, command: Sequence[str], *, log: BinaryIO, cwd: Path, environment: Mapping[str, str]) -> int:
        """Its exit status, once it has ended. What it says goes into the log."""
        with self._lock:
            if self._is_stopping:
                return -signal.SIGTERM
            # A group of its own, which is stopped as a whole; Ctrl-C does not reach it.
            program = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running.add(program)
        try:
            return program.wait()
        finally:
            with self._lock:
                self._running.discard(program)

    def stop(self) -> None:
        with self._lock:
            self._is_stopping = True
            running = list(self._running)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for program in running:
                with suppress(ProcessLookupError):
                    os.killpg(program.pid, number)
            for program in running:
                with suppress(subprocess.TimeoutExpired):
                    program.wait(STOP_SECONDS)

    def __enter__(self) -> "Programs":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
