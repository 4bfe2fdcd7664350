"""Consume from JetStream, so that events arrive in the order of their stream whatever was lost on the way.

JetStream redelivers a message that was not acknowledged in time, and by then later messages of its key may have been
processed. So a subscription that begins, or that may have missed events, first rewinds to the first unacknowledged event.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import structlog
from nats import errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as Inbox
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy
from nats.js.errors import NotFoundError

from chassis.brokers import Delivery, Kind, Message, Topology
from chassis.brokers.nats.connection import FAILURES, Connection, quietly
from chassis.brokers.nats.streams import by_owner, stream_name

log = structlog.get_logger()

PULL_SECONDS = 5
"""How long a request for messages is open."""
LOOK_SECONDS = 0.2
"""The pause between two looks at the connection while a fetch waits."""

NOBODY = "503"
NEVER = -1
UNLIMITED = -1
"""The limit of unacknowledged jobs of all replicas together: none, because jobs that wait for another attempt count."""

OURS = ("id", "key", "type", "Nats-Msg-Id")
"""Headers for which a Message has attributes."""


class NatsSubscription:
    """Consumes from the streams of all owners at the same time, and never more than was requested."""

    def __init__(self, connection: Connection, topology: Topology, kind: Kind, jobs_of: str) -> None:
        self.connection = connection
        self.kind = kind
        self.service = topology.service
        self.arrived: deque[Delivery] = deque()
        self.wake = asyncio.Event()
        self._sources = [_Source(self, *one) for one in by_owner(topology.taken(kind, jobs_of))]

    async def fetch(self, limit: int, *, wait_seconds: float) -> list[Delivery]:
        deadline = time.monotonic() + wait_seconds
        while True:
            self.wake.clear()
            jetstream = await self.connection.ready()
            try:
                for source in self._sources:
                    await source.begin(jetstream)
                if (room := limit - len(self.arrived)) > 0:
                    for source in self._sources:
                        await source.ask(max(room // len(self._sources), 1))
            except FAILURES as error:
                raise self.connection.as_unavailable(error) from error
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
        # Stop first, or this subscription would receive the returned messages again.
        await asyncio.gather(*(source.stop() for source in self._sources))
        back = [*deliveries, *self.arrived]
        self.arrived.clear()
        back.sort(key=lambda delivery: delivery.receipt.metadata.sequence.stream)
        await self._answer(back, Msg.Ack.Nak)

    async def touch(self, deliveries: Sequence[Delivery]) -> None:
        await self._answer([*deliveries, *self.arrived], Msg.Ack.Progress)

    async def close(self) -> None:
        await self.release([])
        await quietly(self.connection.client.flush())

    async def _answer(self, deliveries: Sequence[Delivery], answer: bytes) -> None:
        with suppress(errors.Error, OSError):  # the server redelivers a message whose answer is lost
            for delivery in deliveries:
                await self.connection.client.publish(delivery.receipt.reply, answer)


class _Source:
    """The part of a subscription that concerns one stream."""

    def __init__(self, subscription: NatsSubscription, owner: str, names: frozenset[str]) -> None:
        self._subscription = subscription
        self._connection = subscription.connection
        self._stream = stream_name(subscription.kind, owner)
        self._names = names
        self._inbox: Inbox | None = None
        self._breaks = NEVER
        """The number of lost connections when this source began."""
        self._openings = 0
        self._asked, self._asked_until = 0, 0.0
        self._next = 0
        """The number of the delivery that must arrive next."""

    async def begin(self, jetstream: JetStreamContext) -> None:
        """Open the source if it is not open, and rewind it first if events may be missing. Raises the errors of nats-py."""
        if self._breaks != self._connection.breaks:
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
        self._breaks = self._connection.breaks
        if self._subscription.kind is Kind.EVENT:  # forget the events that have arrived: all are redelivered, in order
            others = [one for one in self._subscription.arrived if one.receipt.metadata.stream != self._stream]
            self._subscription.arrived = deque(others)

    async def _rewind(self, jetstream: JetStreamContext, info: ConsumerInfo) -> None:
        """Go back to the first unacknowledged event. Later acknowledged events are redelivered too; the inbox knows them."""
        version = self._connection.client.connected_server_version
        if (version.major, version.minor) >= (2, 14):
            await jetstream.reset_consumer(self._stream, self._subscription.service)
        else:
            # A consumer is deleted and created. After a crash in between, the next consumer begins with the whole stream:
            # slow, but nothing is lost.
            assert info.ack_floor is not None
            await jetstream.delete_consumer(self._stream, self._subscription.service)
            start: dict[str, Any] = {
                "deliver_policy": DeliverPolicy.BY_START_SEQUENCE,
                "opt_start_seq": info.ack_floor.stream_seq + 1,
            }
            await jetstream.add_consumer(self._stream, info.config, **start)
        self._next = 1

    async def _durable(self, jetstream: JetStreamContext) -> ConsumerInfo:
        service, options = self._subscription.service, self._connection.options
        names = set(self._names)
        try:
            config = (await jetstream.consumer_info(self._stream, service)).config
        except NotFoundError:
            config = ConsumerConfig(service, service, ack_policy=AckPolicy.EXPLICIT, max_deliver=-1)
        # Other versions of this service may run, or return: they would lose the messages that this consumer skips.
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
        client = self._connection.client
        self._inbox = await client.subscribe(client.new_inbox(), cb=take)

    async def ask(self, limit: int) -> None:
        """Keep one request for messages open. Raises the errors of nats-py."""
        now = time.monotonic()
        if self._inbox is None or (self._asked > 0 and now < self._asked_until):
            return
        self._asked, self._asked_until = limit, now + PULL_SECONDS + 1
        request = b'{"batch":%d,"expires":%d}' % (limit, PULL_SECONDS * 1_000_000_000)
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._subscription.service}"
        await self._connection.client.publish(subject, request, reply=self._inbox.subject)

    def _take(self, message: Msg) -> None:
        self._subscription.wake.set()
        if not message.reply:  # a status of the server: the request has ended
            self._asked = 0
            if (message.headers or {}).get("Status") == NOBODY:
                self._breaks = NEVER
            return
        if self._subscription.kind is Kind.EVENT:
            if message.metadata.sequence.consumer != self._next:
                # Events were lost on the way, or went to a former subscription whose request is still open. The server
                # would redeliver these events after later events.
                self._breaks = NEVER
            if self._breaks != self._connection.breaks:
                return
            self._next += 1
        self._asked -= 1
        self._subscription.arrived.append(Delivery(_message(message, self._subscription.kind), message))

    async def stop(self) -> None:
        """Ask for no more messages, and receive the messages that are already on their way."""
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            await quietly(inbox.drain() if self._connection.connected else inbox.unsubscribe())


def _message(message: Msg, kind: Kind) -> Message:
    headers = message.headers or {}
    identity = headers.get("id")
    if not identity:
        at = message.metadata
        # The id includes the time, because a stream that was deleted and created again counts from one.
        identity = f"{at.stream}:{at.sequence.stream}:{at.timestamp.timestamp():.6f}"
    return Message(
        kind=kind,
        name=message.subject,
        id=identity,
        key=headers.get("key", identity),
        body=message.data,
        headers={name: value for name, value in headers.items() if name not in OURS},
    )
