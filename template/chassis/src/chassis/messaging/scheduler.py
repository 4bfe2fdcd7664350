"""The scheduler: enqueues each job with a schedule when it is due, once for all workers.

The next due time of a job is a row of `chassis.schedules`, one for each rule: during a release that changes a schedule, the
workers of both versions keep their own rows. The worker that locks a due row first moves it to the next due time
and enqueues the job, in one commit; another worker waits for the lock, and then finds nothing due. So a crash before the commit
leaves the row due, and a crash afterwards leaves the job in the outbox. Only the clock of the database counts.

Due times that passed while no worker ran are one job, for the last of them.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import structlog
from opentelemetry import context

from chassis.database import Connection, Database
from chassis.messages import Messages, OnJob
from chassis.telemetry.setup import Telemetry

log = structlog.get_logger()

LOOK_SECONDS = 60
"""The longest pause between two queries: another replica may have changed a row, or the clock may have been set."""
FORGET_AFTER = timedelta(days=1)
"""How long a row that no schedule of this version names may be overdue. A replica of another version may still use the row."""

_LOOK = """
    SELECT name, next_at, clock_timestamp() AS now
    FROM unnest($1::text[], $2::text[]) AS ours (name, rule) LEFT JOIN chassis.schedules USING (name, rule)
"""
_LOCK = """
    INSERT INTO chassis.schedules (name, rule, next_at) VALUES ($1, $2, $3)
    ON CONFLICT (name, rule) DO UPDATE SET name = excluded.name
    RETURNING next_at, clock_timestamp() AS now
"""
_MOVE = "UPDATE chassis.schedules SET next_at = $3 WHERE name = $1 AND rule = $2"
_TAKE_OVER = """
    WITH taken AS (DELETE FROM chassis.schedules WHERE name = $1 AND rule <> $2 AND next_at <= $3 RETURNING next_at)
    SELECT max(next_at) FROM taken
"""
_FORGET = """
    DELETE FROM chassis.schedules
    WHERE (name, rule) NOT IN (SELECT * FROM unnest($1::text[], $2::text[])) AND next_at < now() - $3::interval
"""
_OVERDUE = """
    SELECT coalesce(extract(epoch FROM now() - min(next_at)), 0)::float8
    FROM chassis.schedules JOIN unnest($1::text[], $2::text[]) AS ours (name, rule) USING (name, rule)
    WHERE next_at < now()
"""


async def overdue_seconds(connection: Connection, lines: Mapping[str, OnJob]) -> float:
    """Return the seconds since the earliest due time whose job is not enqueued yet; 0 if no job is overdue."""
    return await connection.fetchval(_OVERDUE, *_rows_of(lines))


def _rows_of(lines: Mapping[str, OnJob]) -> tuple[list[str], list[str]]:
    """Return the names and the rules of these lines: the keys of their rows."""
    return list(lines), [line.schedule.rule for line in lines.values() if line.schedule is not None]


class Scheduler:
    """Enqueues the scheduled jobs of one service. Each process may run a scheduler."""

    def __init__(self, database: Database, messages: Messages, telemetry: Telemetry) -> None:
        self._database = database
        self._lines = messages.schedules
        self._tracer = telemetry.tracer

    async def run(self, stop: asyncio.Event) -> None:
        """Enqueue what is due until `stop`. Raises DatabaseUnavailable."""
        while not stop.is_set():
            pause = await self.look()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)

    async def look(self) -> float:
        """Enqueue the jobs that are due. Returns the seconds until the next look."""
        rows = _rows_of(self._lines)
        await self._database.execute(_FORGET, *rows, FORGET_AFTER)
        pause = float(LOOK_SECONDS)
        for row in await self._database.fetch(_LOOK, *rows):
            next_at = row["next_at"]
            if next_at is None or next_at <= row["now"]:
                next_at = await self._move(row["name"], row["now"], new=next_at is None)
            pause = min(pause, (next_at - row["now"]).total_seconds())
        return max(pause, 0)

    async def _move(self, name: str, now: datetime, *, new: bool) -> datetime:
        """Move the row of a schedule that is due or new. Returns the next due time."""
        line = self._lines[name]
        schedule = line.schedule
        assert schedule is not None
        with self._tracer.start_as_current_span(f"schedule {name}", context=context.Context()):
            async with self._database.unit_of_work() as uow:
                row: Any = await uow.connection.fetchrow(_LOCK, name, schedule.rule, schedule.next_after(now))
                next_at, now = row["next_at"], row["now"]
                due_at = schedule.last_until(now) if next_at <= now else None
                if new and due_at is None:  # the schedule was changed: the former schedule may have a missed due time
                    due_at = await uow.connection.fetchval(_TAKE_OVER, name, schedule.rule, now)
                if due_at is not None:
                    await uow.enqueue(line.contract.model_validate({"due_at": due_at}))
                    late = (now - due_at).total_seconds()
                    log.info("job_scheduled", name=name, due_at=due_at.isoformat(), late_seconds=round(late, 1))
                if next_at <= now:
                    next_at = schedule.next_after(now)
                    await uow.connection.execute(_MOVE, name, schedule.rule, next_at)
        return next_at
