"""Taking from JetStream, so that events come in the order of their stream whatever was lost on the way.

A consumer hands out a message again that was not acknowledged in time, and by then its key may have got ahead. So
whoever begins to take events, or may have missed some, first makes sure that the old ones come first.
"""

import asyncio
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog
from nats import errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as Inbox
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy
from nats.js.errors import NotFoundError

from chassis.brokers import Delivery, Kind, Message, Topology

if TYPE_CHECKING:
    from chassis.brokers.nats.broker import NatsBroker

log = structlog.get_logger()

PULL_SECONDS = 5
"""How long a request for messages stands."""
LOOK_SECONDS = 0.2
"""Between looks at what may have changed while a fetch waits."""
CLOSE_SECONDS = 2

NOBODY = "503"
NEVER = -1
UNLIMITED = -1
"""Unacknowledged jobs of all replicas together. Jobs that wait for another attempt count."""

FAILURES = (errors.Error, OSError, TimeoutError)
"""What nats-py raises."""

OURS = ("id", "key", "type", "Nats-Msg-Id")
"""Headers that say what a Message says elsewhere."""


class NatsSubscription:
    """Takes from the streams of all owners at the same time, as much as was asked for and no more."""

    def __init__(self, broker: "NatsBroker", topology: Topology, kind: Kind) -> None:
        self.broker = broker
        self.kind = kind
        self.service = topology.service
        self.arrived: deque[Delivery] = deque()
        self.wake = asyncio.Event()
        names = topology.awaited_events if kind is Kind.EVENT else topology.accepted_jobs
        self._sources = [_Source(self, owner, of_owner) for owner, of_owner in by_owner(names)]

    async def fetch(self, limit: int, *, wait_seconds: float) -> list[Delivery]:
        deadline = time.monotonic() + wait_seconds
        while True:
            self.wake.clear()
            jetstream = await self.broker.ready()
            try:
                for source in self._sources:
                    await source.begin(jetstream)
                if (room := limit - len(self.arrived)) > 0:
                    for source in self._sources:
                        await source.ask(max(room // len(self._sources), 1))
            except FAILURES as error:
                raise self.broker.meaning_of(error) from error
            if self.arrived:
                return [self.arrived.popleft() for _ in range(min(limit, len(self.arrived)))]
            left = deadline - time.monotonic()
            if left <= 0:
                return []
            with suppress(TimeoutError):
                await asyncio.wait_for(self.wake.wait(), min(left, LOOK_SECONDS))

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        await self._answer(deliveries, Msg.Ack.Ack)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        # Nothing is to arrive meanwhile: what is given back would come to us again.
        await asyncio.gather(*(source.stop() for source in self._sources))
        back = [*deliveries, *self.arrived]
        self.arrived.clear()
        back.sort(key=lambda delivery: delivery.receipt.metadata.sequence.stream)
        await self._answer(back, Msg.Ack.Nak)

    async def touch(self, deliveries: Sequence[Delivery]) -> None:
        await self._answer([*deliveries, *self.arrived], Msg.Ack.Progress)

    async def close(self) -> None:
        await self.release([])
        await quietly(self.broker.client.flush())

    async def _answer(self, deliveries: Sequence[Delivery], answer: bytes) -> None:
        with suppress(errors.Error, OSError):  # then they come again
            for delivery in deliveries:
                await self.broker.client.publish(delivery.receipt.reply, answer)


class _Source:
    """One stream's part in a subscription."""

    def __init__(self, subscription: NatsSubscription, owner: str, names: frozenset[str]) -> None:
        self._subscription = subscription
        self._broker = subscription.broker
        self._stream = stream_name(subscription.kind, owner)
        self._names = names
        self._inbox: Inbox | None = None
        self._breaks = NEVER
        """Of the connection, when we began on it."""
        self._openings = 0
        self._asked, self._asked_until = 0, 0.0
        self._next = 0
        """Which of the consumer's deliveries has to come next."""

    async def begin(self, jetstream: JetStreamContext) -> None:
        """Open, unless it is open; or do what must be done first. Raises what nats-py raises."""
        if self._breaks != self._broker.breaks:
            await self._start_over()
        if self._inbox is not None:
            return
        info = await self._durable(jetstream)
        if self._subscription.kind is Kind.EVENT:
            assert info.delivered is not None
            self._next = info.delivered.consumer_seq + 1
            if info.num_ack_pending:
                await self._rewind(jetstream, info)
        await self._open()

    async def _start_over(self) -> None:
        await self.stop()
        self._breaks = self._broker.breaks
        if self._subscription.kind is Kind.EVENT:  # ours come again, in order
            others = [one for one in self._subscription.arrived if one.receipt.metadata.stream != self._stream]
            self._subscription.arrived = deque(others)

    async def _rewind(self, jetstream: JetStreamContext, info: ConsumerInfo) -> None:
        """Back to the first event that is not acknowledged. Some that are come again too; the inbox knows them."""
        version = self._broker.client.connected_server_version
        if (version.major, version.minor) >= (2, 14):
            await jetstream.reset_consumer(self._stream, self._subscription.service)
        else:
            # Should we die in between, the next one begins with all that the stream has: much, but nothing is lost.
            assert info.ack_floor is not None
            await jetstream.delete_consumer(self._stream, self._subscription.service)
            start: dict[str, Any] = {
                "deliver_policy": DeliverPolicy.BY_START_SEQUENCE,
                "opt_start_seq": info.ack_floor.stream_seq + 1,
            }
            await jetstream.add_consumer(self._stream, info.config, **start)
        self._next = 1

    async def _durable(self, jetstream: JetStreamContext) -> ConsumerInfo:
        service, options = self._subscription.service, self._broker.options
        names = set(self._names)
        try:
            config = (await jetstream.consumer_info(self._stream, service)).config
        except NotFoundError:
            config = ConsumerConfig(service, service, ack_policy=AckPolicy.EXPLICIT, max_deliver=-1)
        # Other versions of this service may run, and come back: what the consumer passes over is lost to them.
        before = {*(config.filter_subjects or ()), *filter(None, [config.filter_subject])}
        if before - names:
            log.info("consumer_takes_more", stream=self._stream, consumer=service, names=sorted(before - names))
        return await jetstream.add_consumer(
            self._stream,
            config,
            filter_subject=None,
            filter_subjects=sorted(names | before),
            ack_wait=options.redelivery_seconds,
            max_ack_pending=options.max_in_flight if self._subscription.kind is Kind.EVENT else UNLIMITED,
        )

    async def _open(self) -> None:
        self._openings += 1
        this = self._openings

        async def take(message: Msg) -> None:
            if this == self._openings:
                self._take(message)

        self._asked = 0
        client = self._broker.client
        self._inbox = await client.subscribe(client.new_inbox(), cb=take)

    async def ask(self, limit: int) -> None:
        """Have one request for messages stand. Raises what nats-py raises."""
        now = time.monotonic()
        if self._inbox is None or (self._asked > 0 and now < self._asked_until):
            return
        self._asked, self._asked_until = limit, now + PULL_SECONDS + 1
        request = b'{"batch":%d,"expires":%d}' % (limit, PULL_SECONDS * 1_000_000_000)
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._subscription.service}"
        await self._broker.client.publish(subject, request, reply=self._inbox.subject)

    def _take(self, message: Msg) -> None:
        self._subscription.wake.set()
        if not message.reply:  # of the server itself: the request has ended
            self._asked = 0
            if (message.headers or {}).get("Status") == NOBODY:
                self._breaks = NEVER
            return
        if self._subscription.kind is Kind.EVENT:
            if message.metadata.sequence.consumer != self._next:
                # Some were lost on the way to us, or went to a predecessor that is gone and whose request still stands.
                # They would come behind their successors.
                self._breaks = NEVER
            if self._breaks != self._broker.breaks:
                return
            self._next += 1
        self._asked -= 1
        self._subscription.arrived.append(Delivery(_message(message, self._subscription.kind), message))

    async def stop(self) -> None:
        """Take no more than what is on its way to us."""
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            await quietly(inbox.drain() if self._broker.connected else inbox.unsubscribe())


def stream_name(kind: Kind, owner: str) -> str:
    return f"{owner}-{kind}s"


def by_owner(names: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
    owners = sorted({name.partition(".")[0] for name in names})
    return [(owner, frozenset(name for name in names if name.partition(".")[0] == owner)) for owner in owners]


async def quietly(farewell: Coroutine[Any, Any, None]) -> None:
    """Do it if it can be done soon. (gather, because nats-py lets the cancellation of its own tasks escape.)"""
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await asyncio.gather(farewell, return_exceptions=True)


def _message(message: Msg, kind: Kind) -> Message:
    headers = message.headers or {}
    identity = headers.get("id")
    if not identity:
        at = message.metadata
        # With the time: a stream that was made anew counts from one again.
        identity = f"{at.stream}:{at.sequence.stream}:{at.timestamp.timestamp():.6f}"
    return Message(
        kind=kind,
        name=message.subject,
        id=identity,
        key=headers.get("key", identity),
        body=message.data,
        headers={name: value for name, value in headers.items() if name not in OURS},
    )
