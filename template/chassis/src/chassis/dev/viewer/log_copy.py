"""Copy the log lines of the service to the viewer of `make dev`, in the process that reloads."""

import contextlib
import os
import socket
import sys
import threading
from urllib.parse import urlsplit

from chassis.telemetry import logs

ADDRESS = "VIEWER_LOGS_URL"
"""The environment variable with the address that takes the lines."""

TIMEOUT_SECONDS = 1


class LogCopy:
    """Sends lines over one connection, which stays open. After a failure it sends no more, so that the service goes on.

    Each line is handed to the kernel at once, without a queue, so that the last lines before a crash arrive.
    """

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._failed = False

    def __call__(self, line: str) -> None:
        with self._lock:
            if self._failed:
                return
            try:
                self._socket = self._socket or self._connect()
                self._socket.sendall(line.encode() + b"\n")
            except OSError as error:
                self._failed = True
                with contextlib.suppress(OSError):
                    sys.stderr.write(f"The page with the traces gets no more log lines: {error}\n")

    def _connect(self) -> socket.socket:
        url = self._url
        connection = socket.create_connection((url.hostname, url.port), TIMEOUT_SECONDS)
        connection.sendall(f"POST {url.path}?{url.query} HTTP/1.0\r\nHost: {url.netloc}\r\n\r\n".encode())
        return connection


def start() -> None:
    """Copy the lines from now on, if `make dev` runs a viewer."""
    if (url := os.environ.get(ADDRESS)) and not logs.copies:
        logs.copies.append(LogCopy(url))
