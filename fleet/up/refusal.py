"""Answer 503 at once to the callers of a service that does not run."""

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import suppress

REQUEST_SECONDS = 10
"""The time that a caller has for its request, which is long, because a busy laptop may take seconds to send it."""


class Refusal:
    """Accept connections on the service's socket between `open` and `close`, and close each connection after the answer."""

    def __init__(self, listener: socket.socket, why: Callable[[], str]) -> None:
        self._listener, self._why = listener, why
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._answer, sock=self._listener.dup())

    def close(self) -> None:
        """Accept no more connections: they wait in the socket's queue for the service."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
