"""A client of a broker that is replaced when its connection is lost, because a repair could keep a faulty state."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

import structlog

from chassis.brokers import BrokerUnavailable

log = structlog.get_logger()

LOOK_SECONDS = 2
"""The pause between two checks of the connection, and the longest pause between two attempts to connect."""
FIRST_PAUSE_SECONDS = 0.2
LEAVE_SECONDS = 5
CANCEL_SECONDS = 1

T = TypeVar("T")


class SupervisedClient(Generic[T]):
    """Keep one client: make it when a caller needs it, and check its connection even while the service sends nothing.

    `make` raises BrokerUnavailable. `holds` returns whether the connection of a client still works. `leave` closes a client, and may take long.
    """

    def __init__(
        self,
        system: str,
        *,
        make: Callable[[], Awaitable[T]],
        holds: Callable[[T], Awaitable[bool]],
        leave: Callable[[T], Coroutine[Any, Any, None]],
    ) -> None:
        self.client: T | None = None
        self.lost_at: float | None = None
        """When the connection was lost, on the event loop's clock."""
        self._system = system
        self._make, self._holds, self._leave = make, holds, leave
        self._making = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        self._restoring: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Connect, and check the connection from now on. Raises BrokerUnavailable."""
        await self.ready()
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    async def ready(self) -> T:
        """Return the client, or make one. Raises BrokerUnavailable."""
        async with self._making:
            if self.client is None:
                self.client = await self._make()
                if self.lost_at is not None:
                    self.lost_at = None
                    log.info("broker_connection_restored", system=self._system)
            return self.client

    def drop(self, client: T) -> None:
        """Close a client that has failed. The next caller gets a new client."""
        if self.client is client:
            self.client = None
            self.finish(self._leave(client))

    def finish(self, leaving: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Close in the background: to close the connection to an unreachable broker takes time."""
        task = asyncio.create_task(_quietly(leaving))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return task

    async def restore(self, declare: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Declare the topology again, once for all messages that need this. Does not raise BrokerUnavailable."""
        if self._restoring is None or self._restoring.done():
            self._restoring = asyncio.create_task(declare())
        with suppress(BrokerUnavailable):
            await asyncio.shield(self._restoring)

    async def close(self) -> None:
        while self._watching is not None and not self._watching.done():
            self._watching.cancel()  # cancel until the task ends, because a client library may swallow a cancellation
            await asyncio.wait([self._watching], timeout=CANCEL_SECONDS)
        self._watching = None
        if self.client is not None:
            self.drop(self.client)
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=LEAVE_SECONDS)

    async def _watch(self) -> None:
        pause: float = LOOK_SECONDS
        while True:
            await asyncio.sleep(pause)
            with suppress(BrokerUnavailable):
                client = await self.ready()
                if await self._holds(client):
                    pause = LOOK_SECONDS
                    continue
                self.drop(client)
            if self.lost_at is None:
                self.lost_at, pause = asyncio.get_running_loop().time(), FIRST_PAUSE_SECONDS
                log.warning("broker_connection_lost", system=self._system)
            else:
                pause = min(2 * pause, LOOK_SECONDS)


async def _quietly(leaving: Coroutine[Any, Any, None]) -> None:
    with suppress(Exception):
        await leaving
