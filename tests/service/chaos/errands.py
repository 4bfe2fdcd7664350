"""The clerk's work: errands and gauges that a program hands in, and the count of all records afterwards."""

import asyncio
import contextlib
import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from uuid import UUID

import asyncpg
from chassis.database import Database, DatabaseUnavailable
from chassis.messaging.outbox import Outbox
from pydantic import SecretStr

from tests.service.chaos.clerk.main import BEAT_SECONDS, SERVICE, Errand, GaugeMoved
from tests.support.waiting import until

GAUGES = 30
PAUSE_SECONDS = 0.1
ERRAND_EVERY = 20
"""One of this many changes of a gauge also hands in an errand."""
LONG_SECONDS = 13
"""The time of long work: longer than a broker waits for an acknowledgement (`redelivery_seconds`)."""

MOVE = """
    INSERT INTO clerk.gauges (id, version) VALUES ($1, 1)
    ON CONFLICT (id) DO UPDATE SET version = gauges.version + 1 RETURNING version
"""
FIRST_MINUTE = "SELECT next_at FROM chassis.schedules WHERE name = 'clerk.minute.v1'"
MINUTES = """
    SELECT due_at FROM generate_series($1::timestamptz, $2::timestamptz, interval '1 minute') AS due (due_at)
    WHERE NOT EXISTS (SELECT FROM clerk.runs WHERE name = 'minute' AND runs.due_at = due.due_at)
"""
UNDONE = "SELECT number FROM clerk.errands WHERE number NOT IN (SELECT number FROM clerk.results)"
UNHEARD = """
    SELECT id FROM clerk.gauges
    WHERE NOT EXISTS (SELECT FROM clerk.arrivals WHERE gauge_id = id AND arrivals.version = gauges.version)
"""
WAITING = "SELECT id FROM chassis.outbox"
REPEATED = """
    SELECT name || due_at FROM clerk.runs GROUP BY name, due_at HAVING count(*) > 1
    UNION ALL SELECT number::text FROM clerk.results GROUP BY number HAVING count(*) > 1
    UNION ALL SELECT gauge_id || ' ' || version FROM clerk.arrivals WHERE NOT again
        GROUP BY gauge_id, version HAVING count(*) > 1
"""
DISORDERED = """
    SELECT seq FROM (
        SELECT seq, version < lag(version) OVER (PARTITION BY gauge_id ORDER BY seq) AS back FROM clerk.arrivals
    ) AS ordered WHERE back
"""


@dataclass
class Records:
    """The result of the clerk's work. The last three numbers have to be 0."""

    minutes: int
    beats: int
    beats_left_out: int
    """Due times without a run, because no worker ran then: the next run was for the last of these due times."""
    errands: int
    published_again: int
    lost: int
    """Minutes, errands and states of gauges that had no effect."""
    twice: int
    disordered: int

    @property
    def good(self) -> bool:
        return self.beats > 0 and self.lost + self.twice + self.disordered == 0


async def hand_in(database_url: str, stop: asyncio.Event, longest_seconds: float) -> None:
    """Move gauges and hand in errands, in transactions that may fail, until `stop`."""
    async with Database(
        SecretStr(database_url),
        pool_size=2,
        name="hand-in",
        command_timeout_seconds=30,
        outbox=Outbox(SERVICE.messages),
    ) as database:
        for number in count():
            if stop.is_set():
                return
            with contextlib.suppress(DatabaseUnavailable, asyncpg.PostgresError, OSError):
                async with database.unit_of_work() as uow:
                    gauge = UUID(int=number % GAUGES + 1)
                    await uow.publish(GaugeMoved(gauge, await uow.connection.fetchval(MOVE, gauge)))
                    if number % ERRAND_EVERY == 0:
                        await uow.connection.execute("INSERT INTO clerk.errands VALUES ($1)", number)
                        await uow.enqueue(Errand(number, random.choice([0.1, longest_seconds])))
            await asyncio.sleep(PAUSE_SECONDS)


async def first_minute(connection: asyncpg.Connection) -> datetime:
    """Wait until a worker knows the schedules, and return the first minute that it has to run."""
    first: list[datetime] = []

    async def known() -> bool:
        first.extend(row["next_at"] for row in await connection.fetch(FIRST_MINUTE))
        return bool(first)

    await until(known, lambda: "the clerk's worker does not know its schedules")
    return first[0]


async def count_records(connection: asyncpg.Connection, first: datetime, *, timeout_seconds: float) -> Records:
    """Wait until all work is done, or the time is over; then compare."""
    last = await connection.fetchval("SELECT now()")
    questions = ((MINUTES, first, last), (UNDONE,), (UNHEARD,), (WAITING,))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_seconds):
            while any([await connection.fetch(*question) for question in questions]):  # noqa: ASYNC110
                await asyncio.sleep(0.3)
    await asyncio.sleep(1)  # wait for second effects, which would come later
    lost = [row for question in questions[:3] for row in await connection.fetch(*question)]
    minutes, beats, since, until = await connection.fetchrow(
        "SELECT count(*) FILTER (WHERE name = 'minute'), count(DISTINCT due_at) FILTER (WHERE name = 'beat'),"
        " min(due_at) FILTER (WHERE name = 'beat'), max(due_at) FILTER (WHERE name = 'beat') FROM clerk.runs"
    )
    due = (until - since) // timedelta(seconds=BEAT_SECONDS) + 1 if beats else 0
    return Records(
        minutes,
        beats,
        due - beats,
        await connection.fetchval("SELECT count(*) FROM clerk.errands"),
        await connection.fetchval("SELECT count(*) FROM clerk.arrivals WHERE again"),
        len(lost),
        len(await connection.fetch(REPEATED)),
        len(await connection.fetch(DISORDERED)),
    )
