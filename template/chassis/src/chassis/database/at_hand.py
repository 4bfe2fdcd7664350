"""Connections at hand: unused connections that stay outside of asyncpg's pool, where the next task finds them at once.

To give a connection back to the pool, and to take it out again, takes as long as a statement.
"""

import asyncio
from collections import deque

from asyncpg.pool import PoolConnectionProxy

IDLE_SECONDS = 300
"""An unused connection is closed after this time, whether it is at hand or in the pool."""


class AtHand:
    """The connections at hand, each with the time of its return. The newest is used first, so that the others can be closed."""

    def __init__(self) -> None:
        self._connections: deque[tuple[float, PoolConnectionProxy]] = deque()
        self._closing: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._connections)

    def keep(self, connection: PoolConnectionProxy) -> None:
        """Keep a connection until it is taken, or for IDLE_SECONDS."""
        loop = asyncio.get_running_loop()
        self._connections.append((loop.time(), connection))
        if self._closing is None:
            self._closing = loop.call_later(IDLE_SECONDS, self._close_idle)

    def take(self) -> PoolConnectionProxy | None:
        """Take the connection that was returned last; None without a connection."""
        return self._connections.pop()[1] if self._connections else None

    def stop(self) -> None:
        """Close no connection from now on."""
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None

    def _close_idle(self) -> None:
        self._closing = None
        loop = asyncio.get_running_loop()
        while self._connections and self._connections[0][0] <= loop.time() - IDLE_SECONDS:
            self._connections.popleft()[1].terminate()
        if self._connections:
            self._closing = loop.call_at(self._connections[0][0] + IDLE_SECONDS, self._close_idle)
