"""Messaging as a part of the application. chassis.application imports this only for a service with messages."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

from chassis.brokers import Kind, broker_class
from chassis.database import Database
from chassis.messages import Messages
from chassis.messaging.gauges import Gauges
from chassis.messaging.lanes import SHAPES
from chassis.messaging.outbox import Outbox
from chassis.messaging.worker import Worker, endure
from chassis.settings import Settings, SettingsError
from chassis.telemetry.setup import Telemetry

__all__ = ["Messaging", "Outbox", "check", "connections"]


def check(settings: Settings) -> None:
    """Raise SettingsError if a worker cannot work with these settings."""
    if settings.broker_url is None:
        raise SettingsError(
            "  BROKER_URL: is not set\nSet it in the environment; docs/messages.md lists the settings of messages."
        )
    try:
        broker_class(settings.broker_url)
    except ModuleNotFoundError as missing:
        raise SettingsError(
            f"  BROKER_URL: names a broker that this service has no client for ({missing})\nName a broker of the kind in "
            ".copier-answers.yml, or change that answer: fleet update -d broker=…"
        ) from None
    if settings.database_transaction_pooler:
        raise SettingsError(
            "  DATABASE_TRANSACTION_POOLER: is true, but the worker needs sessions of its own\nGive the worker a "
            "DATABASE_URL that leads to PostgreSQL itself, or to a pooler in session mode."
        )


def connections(messages: Messages, settings: Settings, queues: Collection[str]) -> int:
    """Return how many connections a worker of these queues uses at once: one for each lane, and two for all other work."""
    consumed = {(receiver.kind, receiver.queue) for receiver in messages.receivers.values() if receiver.queue in queues}
    lanes = [SHAPES[Kind.EVENT].lanes if kind == Kind.EVENT else settings.jobs_at_once for kind, _ in consumed]
    return sum(lanes) + 2


class Messaging:
    """The gauges of the messages and, in a process that sends and takes messages, the worker."""

    def __init__(
        self,
        messages: Messages,
        settings: Settings,
        database: Database,
        telemetry: Telemetry,
        *,
        work: bool,
        queues: Collection[str] = (),
    ) -> None:
        """`queues` are the queues that the worker takes; by default all of them."""
        self.gauges = Gauges(messages, database, telemetry, settings)
        self.worker = Worker(messages, settings, database, telemetry, queues=queues) if work else None

    @property
    def failed(self) -> bool:
        return self.worker is not None and self.worker.failed

    @property
    def details(self) -> dict[str, Any]:
        """Return details for /readyz. They do not decide readiness, because the outbox holds messages that cannot be sent."""
        waiting = {"waiting": self.gauges.waiting, "oldest_seconds": round(self.gauges.oldest_seconds, 1)}
        found = {"outbox": waiting, "parked": self.gauges.parked}
        if self.worker is not None:
            found["broker"] = "ok" if self.worker.broker.connected else "unreachable"
        return found

    @asynccontextmanager
    async def run(self, finish_by: Callable[[], float | None]) -> AsyncGenerator[None]:
        """Run the gauges and the worker. `finish_by()` is as for `Worker.stop`."""
        stop = asyncio.Event()
        measuring = asyncio.create_task(endure("gauges", self.gauges.run, stop))
        if self.worker is not None:
            self.worker.start()
        try:
            yield
        finally:
            stop.set()
            if self.worker is not None:
                await self.worker.stop(finish_by())
            # Do not wait for the task: a query without an answer ends when the database closes its connections.
            measuring.cancel()
