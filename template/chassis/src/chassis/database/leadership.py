"""Leadership: let only one replica of a service do work that must not run twice at the same time.

The leader holds an advisory lock for as long as its database session lives. The server may end that session, and give
the lock to another replica, without the leader noticing: during a network partition, for example. Two rules keep such a
leader from working at the same time as its successor:

- The leader asks its session for an answer every PROOF_SECONDS. It stops working LEASE_SECONDS after the last question
  that was answered.
- A leader that stops in good order deletes its row in `chassis.leaders`. A successor that finds a row waits
  HANDOVER_SECONDS before it starts to work. It waits longer than the lease, because stopping takes a moment.

Each rule measures a duration on one replica, so the clocks of the replicas need not agree.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import structlog

from chassis.database import Connection, DatabaseUnavailable
from chassis.database.connection import dedicated_connection

log = structlog.get_logger()

STANDBY_SECONDS = 1
"""The pause between two attempts of a standby replica to get the lock."""
PROOF_SECONDS = 1
LEASE_SECONDS = 5
HANDOVER_SECONDS = 7

_TRY_LOCK = "SELECT pg_try_advisory_lock($1)"
_ABANDONED = "SELECT EXISTS (SELECT FROM chassis.leaders WHERE lock = $1)"
_START = "INSERT INTO chassis.leaders (lock) VALUES ($1) ON CONFLICT (lock) DO UPDATE SET started_at = now()"
_RESIGN = "DELETE FROM chassis.leaders WHERE lock = $1"


class Lead:
    """The right to work as the only replica."""

    def __init__(self, connection: Connection, *, proven_at: float) -> None:
        self._connection = connection
        self._until = proven_at + LEASE_SECONDS

    @property
    def held(self) -> bool:
        """Return whether certainly no other replica works at this moment."""
        return time.monotonic() < self._until and not self._connection.is_closed()

    def check(self) -> None:
        """Raise DatabaseUnavailable if the lead is lost. Call this before each step that only the leader may take."""
        if not self.held:
            raise DatabaseUnavailable("the session that holds the leader's lock does not answer")

    async def prove(self) -> None:
        """Prove again and again that the session answers, by a statement. Raises the error of the statement."""
        while True:
            await asyncio.sleep(PROOF_SECONDS)
            asked_at = time.monotonic()
            await self._connection.execute("SELECT 1", timeout=LEASE_SECONDS)
            self._until = asked_at + LEASE_SECONDS


@asynccontextmanager
async def only_replica(url: str, *, name: str, lock: int, stop: asyncio.Event) -> AsyncGenerator[Lead | None]:
    """Wait until this replica is the leader, and yield its lead; yield None if `stop` is set first.

    Raises DatabaseUnavailable.
    """
    async with dedicated_connection(url, name=name) as connection:
        while not await connection.fetchval(_TRY_LOCK, lock):
            if await _stopped(stop, within_seconds=STANDBY_SECONDS):
                yield None
                return
        if await connection.fetchval(_ABANDONED, lock):
            log.info("leader_awaited", name=name, seconds=HANDOVER_SECONDS)
            if await _stopped(stop, within_seconds=HANDOVER_SECONDS):
                yield None
                return
        asked_at = time.monotonic()
        await connection.execute(_START, lock)
        lead = Lead(connection, proven_at=asked_at)
        proving = asyncio.create_task(lead.prove())
        try:
            yield lead
        finally:
            held = lead.held
            proving.cancel()
            await asyncio.gather(proving, return_exceptions=True)
            if held:
                await connection.execute(_RESIGN, lock, timeout=LEASE_SECONDS)


async def _stopped(stop: asyncio.Event, *, within_seconds: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), within_seconds)
    return stop.is_set()
