"""Depth and age of the outbox, and the number of parked messages, as metrics."""

import asyncio
from collections.abc import Callable

from opentelemetry.metrics import CallbackOptions, Observation

from chassis.database import Connection, Database
from chassis.messages import Messages
from chassis.messaging import parking, relay_queries
from chassis.messaging.worker import pause
from chassis.settings import Settings
from chassis.telemetry.setup import Telemetry

GAUGE_SECONDS = 5

_GAUGES = f"""
    SELECT
        (SELECT count(*) FROM (
            SELECT 1 FROM chassis.outbox WHERE waits_for IS NULL AND not_before IS NULL
            UNION ALL SELECT 1 FROM chassis.outbox WHERE waits_for IS NULL AND not_before <= now()
            UNION ALL SELECT 1 FROM chassis.outbox WHERE waits_for IS NOT NULL LIMIT 100000
        ) AS waiting),
        coalesce(extract(epoch FROM now() - least(
            (SELECT created_at FROM chassis.outbox WHERE waits_for IS NULL AND not_before IS NULL ORDER BY seq LIMIT 1),
            (SELECT not_before FROM chassis.outbox WHERE waits_for IS NULL AND not_before <= now()
            ORDER BY not_before LIMIT 1),
            (SELECT min(since) FROM ({relay_queries.QUEUES}) AS queue)
        ))::float8, 0)
"""  # noqa: S608 (every part is a constant)


_MEASURED = (
    (
        "waiting",
        "messaging.outbox.messages",
        "{message}",
        "Messages in the outbox that are to be sent now (at most 100000 are counted).",
    ),
    (
        "oldest_seconds",
        "messaging.outbox.oldest.age",
        "s",
        "How long the first of them, or an overdue schedule, has waited.",
    ),
    ("parked", "messaging.parked.messages", "{message}", "Messages that wait for a person."),
    ("parked_bytes", "messaging.parked.size", "By", "The size of bodies, headers and reasons of parked messages."),
    (
        "parked_share",
        "messaging.parked.utilization",
        "1",
        "The share of PARKED_MAX_MESSAGES or PARKED_MAX_BYTES that incoming or outgoing messages take, whichever is largest.",
    ),
)
"""Attributes of Gauges, and the name, unit and description of their metrics."""


class Gauges:
    """Measure the outbox and the parked messages every few seconds, for metrics and for the details of /readyz."""

    def __init__(self, messages: Messages, database: Database, telemetry: Telemetry, settings: Settings) -> None:
        self._database = database
        self._schedules = messages.schedules
        self._limits = settings.parked_max_messages, settings.parked_max_bytes
        self.waiting, self.oldest_seconds = 0, 0.0
        self.parked, self.parked_bytes, self.parked_share = 0, 0, 0.0
        for attribute, name, unit, description in _MEASURED:
            telemetry.meter.create_observable_gauge(
                name, callbacks=[self._observer(attribute)], unit=unit, description=description
            )

    def _observer(self, name: str) -> Callable[[CallbackOptions], list[Observation]]:
        return lambda _: [Observation(getattr(self, name))]

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            async with self._database.connection() as connection, connection.transaction():
                await relay_queries.read_by_index(connection, scope="LOCAL")
                ((self.waiting, oldest_seconds),) = await connection.fetch(_GAUGES)
                overdue = await self._overdue(connection)
            self.oldest_seconds = max(oldest_seconds, overdue)
            parked = [await parking.size(self._database, direction) for direction in ("incoming", "outgoing")]
            self.parked, self.parked_bytes = map(sum, zip(*parked, strict=True))
            self.parked_share = max(
                used / limit for size in parked for used, limit in zip(size, self._limits, strict=True)
            )
            await pause(stop, GAUGE_SECONDS)

    async def _overdue(self, connection: Connection) -> float:
        if not self._schedules:
            return 0
        from chassis.messaging.scheduler import overdue_seconds  # an optional part

        return await overdue_seconds(connection, self._schedules)
