"""One replica leads, and a replica that was deposed without noticing stops before its successor starts."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import asyncpg
import pytest
from chassis.database import DatabaseUnavailable, leadership
from chassis.database.leadership import Lead, only_replica

from tests.support.link import Link

LOCK = 7
WAIT_SECONDS = 90
NEVER = 10 * WAIT_SECONDS


@pytest.fixture(autouse=True)
async def quick(connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[None]:
    monkeypatch.setattr(leadership, "PROOF_SECONDS", 0.1)
    monkeypatch.setattr(leadership, "LEASE_SECONDS", 2)
    monkeypatch.setattr(leadership, "HANDOVER_SECONDS", 3)
    monkeypatch.setattr(leadership, "STANDBY_SECONDS", 0.1)
    yield
    await connection.execute("DELETE FROM chassis.leaders")


@asynccontextmanager
async def leading(url: str, stop: asyncio.Event | None = None) -> AsyncGenerator[Lead | None]:
    async with (
        asyncio.timeout(WAIT_SECONDS),
        only_replica(url, name="tiny-test", lock=LOCK, stop=stop or asyncio.Event()) as lead,
    ):
        yield lead


async def end_session(connection: asyncpg.Connection) -> None:
    """End the session of the leader, as the server does when it considers the leader dead."""
    assert await connection.fetchval(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = $1",
        LOCK,
    )


async def lose(lead: Lead) -> float:
    """Wait until the lead is lost, and return the time."""
    while lead.held:  # noqa: ASYNC110 (the loss has no event)
        await asyncio.sleep(0.01)
    return time.monotonic()


@pytest.mark.slow
async def test_a_leader_that_does_not_see_its_session_end_stops_before_its_successor_starts(
    link: Link, database_url: str, connection: asyncpg.Connection
) -> None:
    async with leading(link.url) as deposed:
        assert deposed is not None
        link.freeze()
        await end_session(connection)
        stopping = asyncio.create_task(lose(deposed))
        async with leading(database_url) as successor:
            started_at = time.monotonic()
            assert successor is not None
            assert stopping.done()
            assert stopping.result() < started_at
            with pytest.raises(DatabaseUnavailable, match="does not answer"):
                deposed.check()


async def test_a_leader_keeps_the_lead_for_as_long_as_its_session_answers(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The lease is so long that a slow machine does not lose the lead.
    monkeypatch.setattr(leadership, "LEASE_SECONDS", WAIT_SECONDS)
    async with leading(database_url) as lead:
        assert lead is not None
        started_at = time.monotonic()
        while not lead_lasts_until(lead, started_at + leadership.LEASE_SECONDS + 1):  # noqa: ASYNC110 (a proof has no event)
            await asyncio.sleep(0.05)
        lead.check()


def lead_lasts_until(lead: Lead, moment: float) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leadership, "time", SimpleNamespace(monotonic=lambda: moment))
        return lead.held


async def test_a_leader_whose_connection_breaks_loses_the_lead_at_once(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "LEASE_SECONDS", NEVER)
    async with leading(link.url) as lead:
        assert lead is not None
        link.cut()
        await lose(lead)  # `leading` has a time limit


async def test_a_successor_starts_at_once_where_the_leader_resigned(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "HANDOVER_SECONDS", NEVER)
    for _ in range(2):
        async with leading(database_url) as lead:
            assert lead is not None


async def test_a_replica_that_is_stopped_while_waiting_does_not_lead(
    database_url: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "HANDOVER_SECONDS", NEVER)
    await connection.execute("INSERT INTO chassis.leaders (lock) VALUES ($1)", LOCK)
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.3, stop.set)
    async with leading(database_url, stop) as lead:
        assert lead is None
