"""The sweep: only a message advances a saga, so a saga that has not advanced for too long gets another message."""

import asyncio
from contextlib import suppress
from typing import Any

import structlog
from opentelemetry import context
from opentelemetry.metrics import Observation

from chassis.database import Database
from chassis.sagas import rows
from chassis.sagas.declared import AdvanceSagaV1
from chassis.sagas.registry import Sagas
from chassis.telemetry import trace_context
from chassis.telemetry.setup import Telemetry

log = structlog.get_logger()

SWEEP_SECONDS = 15
BATCH = 500
FORGOTTEN = 1000
"""The ended sagas that one statement deletes."""


class Sweep:
    """Finds idle sagas, measures all sagas, and deletes old ones. Each process may run a sweep."""

    def __init__(self, database: Database, sagas: Sagas, telemetry: Telemetry) -> None:
        self._database, self._sagas = database, sagas
        self._measured: list[Any] = []
        for name, column, unit, description in (
            (
                "saga.active",
                "sagas",
                "{saga}",
                "Sagas that have not ended, by state and step; `parked` waits for a person.",
            ),
            ("saga.idle", "idle", "{saga}", "Sagas among them that were swept three times and have not moved."),
            ("saga.oldest.age", "oldest_seconds", "s", "The time since the start of the oldest of them."),
        ):
            telemetry.meter.create_observable_gauge(
                name, callbacks=[lambda _, column=column: self._observe(column)], unit=unit, description=description
            )

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep until `stop`. Raises DatabaseUnavailable."""
        while not stop.is_set():
            await self.sweep()
            self._measured = await self._database.fetch(rows.MEASURE)
            while await self._database.execute(rows.FORGET, self._sagas.keep, FORGOTTEN) == f"DELETE {FORGOTTEN}":
                pass  # each statement deletes at most FORGOTTEN sagas, so that its transaction is short
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), SWEEP_SECONDS)

    async def sweep(self) -> int:
        """Enqueue a job for each saga that is idle for too long. Return how many there were."""
        found = 0
        # Sweep only sagas that were due when the sweep began: a swept saga may be due again before a long sweep ends.
        [[began]] = await self._database.fetch("SELECT clock_timestamp()")
        while True:
            async with self._database.unit_of_work() as uow:
                idle = await uow.connection.fetch(rows.SWEEP, self._sagas.idle, BATCH, began)
                for row in idle:
                    uow.subject, uow.saga = row["subject"], row["parent"]
                    token = context.attach(trace_context.extract({"traceparent": row["traceparent"] or ""}))
                    try:
                        await uow.enqueue(AdvanceSagaV1(saga_id=row["id"], turn=row["turn"]))
                    finally:
                        context.detach(token)
            if idle:
                log.warning("sagas_idle", sagas=len(idle), first=str(idle[0]["id"]))
            found += len(idle)
            if len(idle) < BATCH:
                return found

    def _observe(self, column: str) -> list[Observation]:
        return [
            Observation(row[column], {"saga": row["name"], "state": row["state"], "step": row["position"]})
            for row in self._measured
        ]
