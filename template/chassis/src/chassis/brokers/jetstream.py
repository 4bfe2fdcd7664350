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
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo
from nats.js.errors import NotFoundError

from chassis.brokers import Delivery, Kind, Message, Topology

if TYPE_CHECKING:
    from chassis.brokers.nats import NatsBroker

log = structlog.get_logger()

PULL_SECONDS = 5
"""How long a request for messages stands: so long may a dead predecessor's still take some."""
LOOK_SECONDS = 0.2
"""Between looks at what may have changed while a fetch waits."""
MARGIN_SECONDS = 2
"""JetStream keeps times of delivery by the second."""
FAR_BEHIND = 10_000
"""Rather wait for the redelivery than have so many messages again that are done already."""
CLOSE_SECONDS = 2

NOBODY = "503"
NEVER = -1

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
                for source in self._sources:
                    await source.ask(max((limit - len(self.arrived)) // len(self._sources), 1))
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
        self._breaks = 0
        """Of the connection, when we began on it."""
        self._openings = 0
        self._asked, self._asked_until = 0, 0.0
        self._next: int | None = None
        self._others_until = self._quiet_until = 0.0

    async def begin(self, jetstream: JetStreamContext) -> None:
        """Open, unless it is open; or do what must be done first. Raises what nats-py raises."""
        now = time.monotonic()
        if self._breaks != self._broker.breaks:
            await self._start_over()
        if self._inbox is not None or now < self._quiet_until:
            return
        info = await self._durable(jetstream)
        if self._subscription.kind is Kind.JOB or await self._in_order(jetstream, info, now):
            await self._open()

    async def _start_over(self) -> None:
        await self.stop()
        self._breaks = self._broker.breaks
        self._others_until = self._quiet_until = 0.0
        if self._subscription.kind is Kind.EVENT:  # ours come again, in order
            others = [one for one in self._subscription.arrived if one.receipt.metadata.stream != self._stream]
            self._subscription.arrived = deque(others)

    async def _in_order(self, jetstream: JetStreamContext, info: ConsumerInfo, now: float) -> bool:
        """Whether what was handed out and not acknowledged comes first, if we begin now."""
        if info.num_waiting:  # requests of a predecessor: what they take, we would miss
            self._others_until = self._others_until or now + PULL_SECONDS + 1
            if now < self._others_until:
                return False
        if not info.num_ack_pending or self._quiet_until:
            return True
        assert info.delivered
        assert info.ack_floor
        behind = info.delivered.stream_seq - info.ack_floor.stream_seq
        version = self._broker.client.connected_server_version
        if (version.major, version.minor) >= (2, 14) and behind <= FAR_BEHIND:
            # Back to the first that is not acknowledged. Some that are come again too; the inbox knows them.
            await jetstream.reset_consumer(self._stream, self._subscription.service)
            return True
        wait_seconds = self._broker.options.redelivery_seconds + MARGIN_SECONDS
        self._quiet_until = now + wait_seconds
        log.info("redelivery_awaited", stream=self._stream, messages=info.num_ack_pending, seconds=wait_seconds)
        return False

    async def _durable(self, jetstream: JetStreamContext) -> ConsumerInfo:
        service, options = self._subscription.service, self._broker.options
        names = set(self._names)
        with suppress(NotFoundError):
            found = (await jetstream.consumer_info(self._stream, service)).config
            # Other versions of this service may run, and come back: what the consumer passes over is lost to them.
            before = {*(found.filter_subjects or ()), *filter(None, [found.filter_subject])}
            if before - names:
                log.info("consumer_takes_more", stream=self._stream, consumer=service, names=sorted(before - names))
            names |= before
        return await jetstream.add_consumer(
            self._stream,
            ConsumerConfig(
                name=service,
                durable_name=service,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=options.redelivery_seconds,
                max_deliver=-1,
                max_ack_pending=options.max_in_flight,
                filter_subjects=sorted(names),
            ),
        )

    async def _open(self) -> None:
        self._openings += 1
        this = self._openings

        async def take(message: Msg) -> None:
            if this == self._openings:
                self._take(message)

        self._asked, self._next = 0, None
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
            position = message.metadata.sequence.consumer
            if position != (self._next or position):
                # Some were lost on the way to us: start over, or they would come behind their successors.
                self._breaks = NEVER
            if self._breaks != self._broker.breaks:
                return
            self._next = position + 1
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
