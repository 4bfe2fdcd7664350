"""Answer 503 at once to the callers of a service that does not run."""

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import suppress

REQUEST_SECONDS = 10
"""The time that a caller has for its request, which is long, because a busy laptop may take seconds to send it."""


class Refusal:
    """Accept connections on the service's socket between `open` and `close`, and close each connection after the answer.

    `asyncio.start_server` would lose a connection that it accepts just before its end, and the caller would wait for long.
    """

    def __init__(self, listener: socket.socket, why: Callable[[], str]) -> None:
        self._listener, self._why = listener, why
        self._accepting: socket.socket | None = None
        self._answers: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        if self._accepting is None:
            self._accepting = self._listener.dup()
            self._accepting.setblocking(False)
            asyncio.get_running_loop().add_reader(self._accepting, self._accept, self._accepting)

    def close(self) -> None:
        """Accept no more connections: they wait in the socket's queue for the service."""
        if self._accepting is not None:
            asyncio.get_running_loop().remove_reader(self._accepting)
            self._accepting.close()
            self._accepting = None

    def _accept(self, accepting: socket.socket) -> None:
        try:
            connection, _ = accepting.accept()
        except OSError:  # the caller has gone, or this process has no more files for now: the loop calls again
            return
        answer = asyncio.create_task(self._answer(connection))
        self._answers.add(answer)
        answer.add_done_callback(self._answers.discard)

    async def _answer(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=connection)
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(REQUEST_SECONDS):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(self._response())
                writer.write_eof()
                while await reader.read(2**16):  # a body that nobody reads would reset the connection before the answer
                    pass
        writer.close()

    def _response(self) -> bytes:
        problem = {"type": "about:blank", "title": "Service Unavailable", "status": 503, "code": "not_running"}
        body = json.dumps(problem | {"detail": self._why()}).encode()
        head = (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n"
            f"Cache-Control: no-store\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + body
