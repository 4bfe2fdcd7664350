"""The limits that all connections of one server share, and the turns of connections with many chunks."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

MAX_HELD_BYTES = 24 * 1024 * 1024
"""The most bytes that all connections of a process hold: incomplete heads, requests sent ahead, body bytes that the
application has not read yet, and unread answers."""


class Interruptible(Protocol):
    """A connection whose parsing was interrupted."""

    loop: asyncio.AbstractEventLoop

    def continue_parsing(self) -> None: ...


@dataclass
class SharedLimits:
    """The limits that all connections of one server share.

    When a limit is exceeded, the server cuts the connection that has waited longest for a complete request: a healthy
    client is quick, and the newest connection may be a probe.
    """

    max_connections: int
    max_held_bytes: int = MAX_HELD_BYTES
    held_bytes: int = 0
    interrupted: deque[Interruptible] = field(default_factory=deque)
    """The connections whose many chunks are parsed in turns: one connection in each iteration of the event loop."""

    def interrupt(self, connection: Interruptible) -> None:
        if not self.interrupted:
            connection.loop.call_soon(self._continue)
        self.interrupted.append(connection)

    def _continue(self) -> None:
        first = self.interrupted[0]
        try:
            first.continue_parsing()
        finally:
            self.interrupted.popleft()
            if self.interrupted:
                first.loop.call_soon(self._continue)
