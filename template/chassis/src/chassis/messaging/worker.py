"""The worker: the relay, the consumers, the scheduler, and the deletion of old rows.

The worker runs in a process of its own (`python -m <service> work`), or in the HTTP process (RUN_WORKER, for development).
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from datetime import timedelta

import structlog

from chassis.brokers import BrokerUnavailable, Kind, Options, broker_for
from chassis.database import Database, DatabaseUnavailable
from chassis.messages import Messages
from chassis.messaging import attempts, inbox, parking
from chassis.messaging.consumer import Consumer
from chassis.messaging.relay import Relay
from chassis.messaging.retry_policy import RetryPolicy
from chassis.messaging.topology import topology_of
from chassis.settings import Settings
from chassis.telemetry.setup import Telemetry

log = structlog.get_logger()

Loop = Callable[[asyncio.Event], Awaitable[None]]
"""A part of the worker that runs until the event is set."""

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10
"""The longest pause between two attempts to continue after an outage of the database or the broker."""
WELL_SECONDS = 60
"""A loop that ran this long did work: a failing attempt ends sooner, even if the broker does not answer."""
FORGET_SECONDS = 3600
CANCEL_SECONDS = 1
"""How long a cancelled task may take to end. A query that gets no answer does not end before its connection does."""
CLOSE_SECONDS = 2
"""How long the connection to the broker may take to close."""


class Worker:
    """Run the relay, the consumers, the schedules and the housekeeping of one service, from `start` to `stop`."""

    def __init__(
        self,
        messages: Messages,
        settings: Settings,
        database: Database,
        telemetry: Telemetry,
        *,
        queues: Collection[str] = (),
    ) -> None:
        """Process the jobs of these queues, by default of all. Only a worker of the default queue, "", does all other work."""
        queues = queues or ["", *messages.queues]
        self._does_the_rest = "" in queues
        self.broker = broker_for(_options(messages.service, settings))
        self._messages = messages
        self._database = database
        self._telemetry = telemetry
        self._inbox_retention = timedelta(days=settings.inbox_retention_days)
        self._stop_seconds = settings.shutdown_timeout_seconds
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        url = settings.database_url.get_secret_value()
        retry_policy = RetryPolicy(
            max_attempts=settings.message_max_attempts, handler_timeout_seconds=settings.message_timeout_seconds
        )
        self._relay = Relay(
            url,
            self.broker,
            telemetry,
            name=messages.service,
            events=settings.event_relay,
            log_messages=settings.log_messages,
        )
        limits = parking.ParkingLimits(
            database, max_messages=settings.parked_max_messages, max_bytes=settings.parked_max_bytes
        )
        self._consumers = [
            Consumer(
                kind,
                self.broker,
                database,
                messages,
                telemetry,
                database_url=url,
                retry_policy=retry_policy,
                parking_limits=limits,
                log_messages=settings.log_messages,
                queue=queue,
                jobs_at_once=settings.jobs_at_once,
            )
            for kind in Kind
            for queue in queues
            if any((receiver.kind, receiver.queue) == (kind, queue) for receiver in messages.receivers.values())
        ]

    def start(self) -> None:
        """Start the tasks of the worker. An unreachable broker does not delay the start of the process."""
        loops: dict[str, Loop] = {}
        if self._does_the_rest:
            loops["inbox"] = self._forget
        if self._does_the_rest and self._messages.schedules:
            from chassis.messaging.scheduler import Scheduler  # an optional part

            loops["schedules"] = Scheduler(self._database, self._messages, self._telemetry).run
        if self._does_the_rest and self._messages.sagas is not None:
            from chassis.sagas.sweep import Sweep  # an optional part

            loops["sagas"] = Sweep(self._database, self._messages.sagas, self._telemetry).run
        self._tasks = [asyncio.create_task(self._work())]
        self._tasks += [asyncio.create_task(endure(part, loop, self._stop)) for part, loop in loops.items()]

    async def stop(self, finish_by: float | None = None) -> None:
        """Finish messages in process, give back the rest, and close the connection to the broker.

        `finish_by`, by the loop's clock, is when a handler that has not ended is cancelled: its transaction rolls back,
        and the broker redelivers its message. It defaults to SHUTDOWN_TIMEOUT_SECONDS from now.
        """
        self._stop.set()
        now = asyncio.get_running_loop().time()
        seconds = self._stop_seconds if finish_by is None else max(0, finish_by - now)
        _, late = await asyncio.wait(self._tasks, timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=CANCEL_SECONDS)
        with suppress(BrokerUnavailable, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.broker.close()

    @property
    def failed(self) -> bool:
        """Whether the worker has ended by itself, which only a bug causes: restart the process."""
        return not self._stop.is_set() and any(task.done() for task in self._tasks)

    async def _work(self) -> None:
        await endure("broker", self._reach_broker, self._stop)
        if not self._stop.is_set():
            loops: dict[str, Loop] = {f"{each.queue}-{each.kind}s".lstrip("-"): each.run for each in self._consumers}
            if self._does_the_rest:
                loops["relay"] = self._relay.run
            await asyncio.gather(*(endure(part, loop, self._stop) for part, loop in loops.items()))

    async def _reach_broker(self, _: asyncio.Event) -> None:
        await self.broker.connect()
        await self.broker.declare(topology_of(self._messages))
        log.info("broker_reached", system=self.broker.system)

    async def _forget(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if forgotten := await inbox.forget(self._database, older_than=self._inbox_retention):
                log.info("inbox_cleaned", forgotten=forgotten)
            await attempts.delete_old(self._database)
            await pause(stop, FORGET_SECONDS)


async def endure(part: str, loop: Loop, stop: asyncio.Event) -> None:
    """Run the loop. After an exception run it again, after a pause that grows up to a bound.

    An outage is logged when it begins and when it ends; each other error is logged.
    """
    failures = 0
    clock = asyncio.get_running_loop()
    while not stop.is_set():
        started = clock.time()
        try:
            await loop(stop)
            return
        except Exception as error:
            if clock.time() - started > WELL_SECONDS:
                failures = 0
            failures += 1
            if not isinstance(error, BrokerUnavailable | DatabaseUnavailable):
                log.error("worker_failed", exc_info=error)
            elif failures == 1:
                unavailable = "broker" if isinstance(error, BrokerUnavailable) else "database"
                log.warning("worker_interrupted", part=part, unavailable=unavailable, reason=str(error))
            await pause(stop, min(FIRST_PAUSE_SECONDS * 2 ** (failures - 1), LONGEST_PAUSE_SECONDS))


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, but not longer than until `stop`."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


def _options(service: str, settings: Settings) -> Options:
    assert settings.broker_url is not None, "chassis.messaging.part has checked it"
    return Options(
        url=settings.broker_url,
        client_name=service,
        replication=settings.broker_replication,
        retention_seconds=settings.event_retention_hours * 3600,
        partitions=settings.kafka_partitions,
        jobs_at_once=settings.jobs_at_once,
    )
