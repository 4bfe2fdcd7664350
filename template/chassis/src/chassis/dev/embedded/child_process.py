"""Start servers as children that do not outlive this process, each alone in its folder."""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STOP_TIMEOUT_SECONDS = 10

# The watchdog reads its standard input until the end of file, which the end of the parent causes in any case.
WATCHDOG = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
group, first = int(sys.argv[1]), int(sys.argv[2])
sys.stdin.buffer.read()
try:
    os.killpg(group, first)
    for _ in range(100):
        time.sleep(0.05)
        os.killpg(group, 0)
    os.killpg(group, signal.SIGKILL)
except OSError:
    pass
"""


class EmbeddedServerError(Exception):
    """The server is missing or does not start. The message has the reason and a remedy."""


@dataclass
class Process:
    """A child in a process group of its own, with a watchdog that ends the group after the end of this process."""

    child: subprocess.Popen[Any]
    watchdog: subprocess.Popen[Any]
    stop_signal: signal.Signals

    def stop(self, *, patience_seconds: float = STOP_TIMEOUT_SECONDS) -> None:
        """Send the group its stop signal, and kill it if it has not stopped in time."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, self.stop_signal)
        try:
            self.child.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()
        assert self.watchdog.stdin
        self.watchdog.stdin.close()
        self.watchdog.wait(STOP_TIMEOUT_SECONDS)


@dataclass(frozen=True)
class Server:
    """A server that answers at its URL. `process` shows whether it still runs, and stops it."""

    url: str
    process: Process


def spawn(arguments: list[str], *, stop_signal: signal.Signals, **options: Any) -> Process:
    """Start a child that does not outlive this process. `options` go to subprocess.Popen. The default stdin is empty.

    The child has a session of its own, so that Ctrl-C in the terminal reaches only this process, which stops its
    children in order.
    """
    options.setdefault("stdin", subprocess.DEVNULL)
    child: subprocess.Popen[Any] = subprocess.Popen(arguments, start_new_session=True, **options)
    watchdog = subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", WATCHDOG, str(child.pid), str(int(stop_signal))],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return Process(child, watchdog, stop_signal)


def free_port() -> int:
    """Find a TCP port of the loopback interface on which no process listens at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def lock(file: int, folder: Path, product: str) -> None:
    # NATS does not notice that another server uses its store, and initdb does not notice that another initdb fills its
    # folder. Wait, because a server whose parent was killed ends only after a moment.
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"another {product} server uses {folder}: stop that server first, for example a second `make dev`"
                ) from None
            time.sleep(0.05)


def usual_port(file: Path) -> int:
    """Return the port in the file, so that saved connections survive a restart, or a free port if that one is taken."""
    with contextlib.suppress(FileNotFoundError, ValueError, OSError):
        port = int(file.read_text())
        socket.create_server(("127.0.0.1", port)).close()
        return port
    port = free_port()
    file.write_text(str(port))
    return port
