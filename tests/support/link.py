"""A TCP link to the database that a test can cut, freeze and restore, always on the same port."""

import contextlib
import socket
import threading
from urllib.parse import urlsplit


class Link:
    """Forward a loopback port to the server of `url` while the `with` block runs."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._moving = threading.Event()
        self._moving.set()
        self.holding = threading.Event()
        """Set once data was sent while the link was frozen."""
        self._sockets: list[socket.socket] = []
        self._changing = threading.Lock()
        """Held while connections are added or cut, so that a cut misses no connection that is just being made."""
        self.url = self.through(url)

    def __enter__(self) -> "Link":
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._moving.set()

    def through(self, url: str) -> str:
        """Return the URL of the same server through this link."""
        parts = urlsplit(url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self.port}").geturl()

    def server_side(self) -> list[int]:
        """Return the ports by which the server knows the clients of this link."""
        return [there.getsockname()[1] for there in self._sockets[1::2] if there.fileno() != -1]

    def cut(self) -> None:
        """Reset every connection, and refuse new connections, as a crashed server does."""
        # shutdown wakes the thread that waits in accept, and close alone does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with self._changing:
            self._listener.close()
            while self._sockets:
                _reset(self._sockets.pop())

    def freeze(self) -> None:
        """Accept every connection and pass no data on, like a hung server or a lost network."""
        self._moving.clear()

    def restore(self) -> None:
        """Work again, on the same port."""
        self._moving.set()
        if self._listener.fileno() == -1:
            self._listener = self._listen(self.port)
            self.__enter__()

    def carry(self, data: bytes, sink: socket.socket) -> None:
        """Pass data on. A subclass may look at the data, or delay them."""
        sink.sendall(data)

    def _listen(self, port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(64)
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = listener.accept()
                try:
                    there = socket.create_connection(self._target)
                except OSError:  # the server is down: reset the client's connection
                    _reset(here)
                    continue
                with self._changing:
                    if listener.fileno() == -1:
                        _reset(here)
                        _reset(there)
                        return
                    self._sockets += [here, there]
                for source, sink in ((here, there), (there, here)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self._moving.is_set():
                    self.holding.set()
                self._moving.wait()
                self.carry(data, sink)
        with contextlib.suppress(OSError):
            self._moving.wait()
            sink.shutdown(socket.SHUT_WR)


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
