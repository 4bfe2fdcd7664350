"""The consumer: consume the messages of other services, handle each message once, and park what cannot be handled.

The consumer fetches a message, and adds the message to the lane of its key. A lane takes a batch of messages, and processes
the whole batch in one transaction: it claims each id in the inbox, and calls each handler. After the commit the lane
acknowledges the batch. If the transaction fails, the lane processes the messages of the batch one by one. The message that
fails gets further attempts after growing pauses, while messages of its key wait behind it and all other keys go on. After
`max_attempts` it is parked, and its key goes on. A message that can never succeed (unknown, malformed) is parked at once. A
crash of the process counts as a failed attempt of each message that the process was handling.

A failure of the infrastructure (no database, no broker) is no attempt of a message: all messages wait until it has ended.
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
        """`queue` is the queue of the jobs, of which `jobs_at_once` are processed at the same time: 4 by default."""
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
        """Consume until `stop`. Then finish and acknowledge the fetched messages while time is left, and give back the others.

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
        """Wait until only this replica consumes, if several replicas that consume would break the order within a key."""
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
                touching.cancel()  # otherwise a cancelled consumer would hold its messages, and no other consumer would get them
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
