"""A client that is replaced when it is lost, rather than repaired: whatever state it got into is gone with it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

import structlog

from chassis.brokers import BrokerUnavailable

log = structlog.get_logger()

LOOK_SECONDS = 2
"""Between looks whether the broker is there, and the longest pause between tries to reach it."""
FIRST_PAUSE_SECONDS = 0.2
LEAVE_SECONDS = 5
CANCEL_SECONDS = 1

T = TypeVar("T")


class SupervisedClient(Generic[T]):
    """Has a client, or makes one when somebody needs it; and looks after it, for a service that happens to send nothing.

    `make` raises BrokerUnavailable; `holds` asks the broker, or the client; `leave` may take its time.
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
        """On the event loop's clock."""
        self._system = system
        self._make, self._holds, self._leave = make, holds, leave
        self._making = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        self._restoring: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Raises BrokerUnavailable if it cannot be had now."""
        await self.ready()
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    async def ready(self) -> T:
        """Raises BrokerUnavailable."""
        async with self._making:
            if self.client is None:
                self.client = await self._make()
                if self.lost_at is not None:
                    self.lost_at = None
                    log.info("broker_connection_restored", system=self._system)
            return self.client

    def drop(self, client: T) -> None:
        """It failed: the next who needs one gets another."""
        if self.client is client:
            self.client = None
            self.finish(self._leave(client))

    def finish(self, leaving: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """See to it in the background: to leave a broker that is gone takes time, and no half of a client may stay."""
        task = asyncio.create_task(_quietly(leaving))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return task

    async def restore(self, declare: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Declare what is missing, once for all messages that miss something. A broker that is away is no error here."""
        if self._restoring is None or self._restoring.done():
            self._restoring = asyncio.create_task(declare())
        with suppress(BrokerUnavailable):
            await asyncio.shield(self._restoring)

    async def close(self) -> None:
        while self._watching is not None and not self._watching.done():
            self._watching.cancel()  # again and again, because a client library may swallow a cancellation
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
