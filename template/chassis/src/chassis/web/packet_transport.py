"""Send the head and the body of an answer in one packet."""

import asyncio
from typing import Any

CLOSING_SECONDS = 5
"""The time limit for sending the bytes that were written before a connection was closed."""


class PacketTransport:
    """A transport that sends all data of one iteration of the event loop in one packet.

    Uvicorn writes the head and the body of an answer separately, and uvloop would send each at once, with two system
    calls and two packets. A head without its body is sent at the end of the iteration.
    """

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.writelines((held, data))
        elif data:
            self._held = data
            self._loop.call_soon(self._send_held)

    def close(self) -> None:
        """Close after all written data has been sent, or after CLOSING_SECONDS."""
        self._send_held()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._loop.call_later(CLOSING_SECONDS, self._transport.abort)

    def abort(self) -> None:
        self._held = b""
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def _send_held(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
