"""The consumer: consume the messages of other services, handle each message once, and park what cannot be handled.

A message goes through: fetched → its key's lane → in one transaction with its neighbours in the lane: id claimed in the
inbox, handler called, commit → acknowledged. If that fails, the neighbours are processed one by one. The message that fails
gets further attempts after growing pauses, while messages of its key wait behind it and all other keys go on. After
`max_attempts` it is parked, and its key goes on. A message that can never succeed (unknown, malformed) is parked at once. A
crash of the process counts as a failed attempt of what it was processing.

Failures of the infrastructure (no database, no broker) are no message's attempts: everything waits until they are over.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import structlog

from chassis.brokers import Broker, Kind, Subscription
from chassis.database import Database, DatabaseUnavailable
from chassis.database.leadership import Lead, only_replica
from chassis.database.outages import OutageLog
from chassis.messages import Messages, queue_owner
from chassis.messaging.lanes import Lanes
from chassis.messaging.parking import ParkingLimits
from chassis.messaging.processing import Processor
from chassis.messaging.retry_policy import RetryPolicy
from chassis.telemetry.setup import Telemetry

log = structlog.get_logger()

LOCK = 0x636F6E73756D65  # "consume"
FETCH_SECONDS = 1
"""How long one fetch waits for a first delivery. The consumer notices a stop only after that wait."""
TOUCH_SECONDS = 3
PROGRESS_SECONDS = 0.1
"""How long the consumer takes to notice a stop while every lane is busy."""


class Consumer:
    """Consumes the events of one service, or the jobs of one of its queues."""

    def __init__(
        self,
        kind: Kind,
        broker: Broker,
        database: Database,
        messages: Messages,
        telemetry: Telemetry,
        *,
        database_url: str,
        retry_policy: RetryPolicy,
        parking_limits: ParkingLimits | None = None,
        log_messages: bool = False,
        queue: str = "",
        jobs_at_once: int | None = None,
    ) -> None:
        """`queue` is the queue of the jobs, and `jobs_at_once` how many of them are processed at the same time, if not 4."""
        self.kind = kind
        self.queue = queue
        self._owner = queue_owner(messages.service, queue)
        self._jobs_at_once = jobs_at_once
        self._broker = broker
        self._name = messages.service
        self._url = database_url
        self._outages = OutageLog()
        self._processor = Processor(
            broker.system,
            database,
            messages,
            telemetry,
            retry_policy=retry_policy,
            parking_limits=parking_limits or ParkingLimits(database),
            log_messages=log_messages,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop`. Then finish and acknowledge the fetched messages, as far as time allows; give back the others.

        Raises BrokerUnavailable, and DatabaseUnavailable if this replica is no longer the leader.
        """
        async with self._alone(stop) as lead:
            if stop.is_set():
                return
            self._processor.lead = lead
            await self._processor.count_crashes()
            subscription = await self._broker.subscribe(self.kind, self._owner)
            try:
                async with self._running_lanes(subscription, lead) as lanes:
                    await self._feed(subscription, lanes, lead, stop)
            finally:
                await subscription.close()

    @asynccontextmanager
    async def _alone(self, stop: asyncio.Event) -> AsyncGenerator[Lead | None]:
        """Be the only consuming replica, or wait to become it, if replicas would break a key's order."""
        if self.kind is Kind.JOB or self._broker.shares_in_order:
            yield None
            return
        name = f"{self._name}-consumer"
        async with only_replica(self._url, name=name, lock=LOCK, stop=stop) as lead:
            yield lead

    @asynccontextmanager
    async def _running_lanes(self, subscription: Subscription, lead: Lead | None) -> AsyncGenerator[Lanes]:
        lanes = Lanes(self.kind, self._processor, subscription, self._outages, jobs_at_once=self._jobs_at_once)
        running = asyncio.create_task(lanes.run())
        touching = asyncio.create_task(_touch(subscription, lanes))
        try:
            yield lanes
        finally:
            deposed = lead is not None and not lead.held
            if deposed:  # messages that arrive from now on belong to the new leader
                with suppress(Exception):
                    await subscription.close()
            lanes.stop(at_once=deposed)
            try:
                await running
            finally:
                touching.cancel()  # otherwise a cancelled consumer would keep its messages from all other consumers
            with suppress(Exception):
                await subscription.release(lanes.held())
            with suppress(DatabaseUnavailable):
                await lanes.forget()

    async def _feed(self, subscription: Subscription, lanes: Lanes, lead: Lead | None, stop: asyncio.Event) -> None:
        log.info("consumer_started", kind=self.kind, **({"queue": self.queue} if self.queue else {}))
        while not stop.is_set():
            if lead is not None:
                lead.check()
            lanes.wake_if_crowded()
            if (room := lanes.room) > 0:
                for delivery in await subscription.fetch(room, wait_seconds=FETCH_SECONDS):
                    lanes.add(delivery)
            else:
                lanes.progress.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(lanes.progress.wait(), PROGRESS_SECONDS)


async def _touch(subscription: Subscription, lanes: Lanes) -> None:
    while True:
        await asyncio.sleep(TOUCH_SECONDS)
        with suppress(Exception):  # after a failure, the broker may send copies, which the inbox recognises
            await subscription.touch(lanes.held())
