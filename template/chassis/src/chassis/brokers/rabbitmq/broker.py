"""RabbitMQ, by aiormq: the protocol itself, without the objects that aio-pika puts around each message.

A durable topic exchange per owner; the quorum queues `<service>.events`, of which one replica at a time is the consumer,
and `<service>.jobs`, for which replicas compete. Whoever sends jobs makes the queue too: jobs wait for a worker that has
never run. An event that nobody has bound a queue for is gone: RabbitMQ keeps nothing for listeners yet to come.

A queue or an exchange that exists is used as it is. Nothing limits how often a message may come again: RabbitMQ would
discard it, where we park.
"""

import asyncio
import hashlib
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiormq
import structlog
from aiormq import Channel
from aiormq.abc import AbstractConnection, DeliveredMessage
from aiormq.exceptions import AMQPError, ChannelClosed, ChannelPreconditionFailed

from chassis.brokers import (
    BrokerUnavailable,
    Delivery,
    DestinationUnavailable,
    Kind,
    Message,
    MessageRefused,
    Options,
    Topology,
)
from chassis.brokers.rabbitmq import decoding
from chassis.brokers.rabbitmq.publisher import DestinationMissing, Publisher, Refused, bounded, open_channel, verdict
from chassis.brokers.supervised_client import SupervisedClient

log = structlog.get_logger()
logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # it tells of each try to connect; we say it once
# Of each message that was on its way when the connection broke. Who sent it is told.
logging.getLogger("asyncio").addFilter(lambda record: record.msg != "socket.send() raised exception.")

CALL_SECONDS = 10
HEARTBEAT_SECONDS = 10
UNAVAILABLE_SECONDS = 1
"""How long no message is sent to a destination that has closed a channel."""
JOBS_AT_HAND = 16
"""Of jobs: what one replica has at hand, another one cannot do."""

_OURS = ("id", "key", "type")
_OF_THE_COPY = ("x-delivery-count", "x-acquired-count", decoding.UNREADABLE)
"""Headers that belong to a copy, not to the message: RabbitMQ or our decoding adds them."""

decoding.install()


class RabbitBroker:
    system = "rabbitmq"
    shares_in_order = True

    def __init__(self, options: Options) -> None:
        self.options = options
        self.topology: Topology | None = None
        self.supervised = SupervisedClient(self.system, make=self._publisher, holds=_is_open, leave=_leave_publisher)
        self.subscriptions: set[RabbitSubscription] = set()
        self._alone = asyncio.Lock()
        self._lone: Publisher | None = None
        self._unavailable: dict[str, tuple[float, str]] = {}
        """By name of a message: until when and why its destination accepts no messages."""

    @property
    def connected(self) -> bool:
        publisher = self.supervised.client
        return publisher is not None and not publisher.is_closed and not publisher.blocked

    async def connect(self) -> None:
        await self.supervised.open()

    async def declare(self, topology: Topology) -> None:
        self.topology = topology
        publisher = self.supervised.client or await self.supervised.ready()
        try:
            await self._declare(topology, publisher.connection)
        except BrokerUnavailable:
            self.supervised.drop(publisher)
            raise

    async def publish(self, message: Message) -> None:
        publisher = self.supervised.client or await self.supervised.ready()
        alone = message.name in self._unavailable
        try:
            if alone:
                await self._publish_alone(message)
            else:
                await publisher.publish(message)
        except Refused:
            self.supervised.drop(publisher)
            await self._publish_alone(message)
        except DestinationMissing:
            if self.topology is not None:
                await self.supervised.restore(partial(self._declare, self.topology, publisher.connection))
            raise
        except DestinationUnavailable:
            raise
        except BrokerUnavailable:
            if (
                not alone and not publisher.blocked
            ):  # what was not confirmed in time may hang: begin with a new connection
                self.supervised.drop(publisher)
            raise

    async def _publish_alone(self, message: Message) -> None:
        """Send a message whose channel was closed, or whose destination was unavailable at the last attempt."""
        async with self._alone:
            until, reason = self._unavailable.get(message.name, (0.0, ""))
            now = asyncio.get_running_loop().time()
            if now < until:
                raise DestinationUnavailable(reason)
            self._unavailable.pop(message.name, None)
            if self._lone is None:
                async with bounded(CALL_SECONDS):
                    connection = await self._reach()
                self._lone = await Publisher.open(connection, timeout_seconds=self.options.publish_timeout_seconds)
            try:
                await self._lone.publish(message)
            except Refused as error:
                self._close_lone()
                found = verdict(error)
                if isinstance(found, DestinationUnavailable):
                    self._unavailable[message.name] = now + UNAVAILABLE_SECONDS, str(found)
                raise found from error
            except (MessageRefused, DestinationUnavailable):
                raise
            except BrokerUnavailable:
                self._close_lone()
                raise

    def _close_lone(self) -> None:
        if self._lone is not None:
            self.supervised.finish(_close(self._lone.connection))
            self._lone = None

    async def subscribe(self, kind: Kind) -> "RabbitSubscription":
        subscription = RabbitSubscription(self, kind)
        await subscription.open()
        self.subscriptions.add(subscription)
        return subscription

    async def close(self) -> None:
        await asyncio.gather(*(subscription.close() for subscription in self.subscriptions))
        self._close_lone()
        await self.supervised.close()

    async def connection(self) -> AbstractConnection:
        """A new one, with what we declared in place. Raises BrokerUnavailable."""
        async with bounded(CALL_SECONDS):
            connection = await self._reach()
        try:
            if self.topology is not None:
                await self._declare(self.topology, connection)  # the server may have come back empty
        except BrokerUnavailable:
            self.supervised.finish(_close(connection))
            raise
        return connection

    async def _reach(self) -> AbstractConnection:
        url = urlsplit(self.options.url.get_secret_value())
        user, at, hosts = url.netloc.rpartition("@")
        query = url.query or f"heartbeat={HEARTBEAT_SECONDS}"
        failure: Exception = ConnectionError("no host")
        for host in hosts.split(","):
            try:
                return await aiormq.connect(
                    url._replace(netloc=f"{user}{at}{host}", query=query).geturl(),
                    client_properties={"connection_name": self.options.client_name},
                )
            except (AMQPError, OSError) as error:
                failure = error
        raise failure

    async def _publisher(self) -> Publisher:
        connection = await self.connection()
        try:
            return await Publisher.open(connection, timeout_seconds=self.options.publish_timeout_seconds)
        except BrokerUnavailable:
            self.supervised.finish(_close(connection))
            raise

    async def _declare(self, topology: Topology, connection: AbstractConnection) -> None:
        events, jobs = (queue_name(kind, topology.service) for kind in (Kind.EVENT, Kind.JOB))
        queues = {name: queue_name(Kind.JOB, name.partition(".")[0]) for name in topology.sent_jobs}
        queues |= dict.fromkeys(topology.accepted_jobs, jobs) | dict.fromkeys(topology.awaited_events, events)
        for exchange in sorted({name.partition(".")[0] for name in topology.published_events | queues.keys()}):
            await _make(connection, lambda c, n=exchange: c.exchange_declare(n, exchange_type="topic", durable=True))
        for queue in sorted(set(queues.values())):
            arguments = self._queue_arguments(connection, alone=queue == events)
            await _make(connection, lambda c, n=queue, a=arguments: c.queue_declare(n, durable=True, arguments=a))
        async with bounded(CALL_SECONDS):
            channel = await open_channel(connection)
            for name, queue in queues.items():
                await channel.queue_bind(queue, name.partition(".")[0], name)
            await channel.close()

    def _queue_arguments(self, connection: AbstractConnection, *, alone: bool) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "x-queue-type": "quorum",
            "x-quorum-initial-group-size": self.options.replication,
        }
        if alone:
            arguments["x-single-active-consumer"] = True
        if _version(connection) >= 4:
            arguments["x-delivery-limit"] = -1  # else 20, and then it discards; older ones have none, and take -1 for 0
        return arguments


class RabbitSubscription:
    def __init__(self, broker: RabbitBroker, kind: Kind) -> None:
        self._broker = broker
        self._kind = kind
        self._channel: Channel | None = None
        self._held: dict[int, Delivery] = {}
        """By delivery tag, in its order: what this channel gave us and has not heard of since."""
        self._done: list[int] = []
        """Tags of deliveries that are done and not yet confirmed, because older deliveries are still open."""
        self._waiting: deque[Delivery] = deque()
        self._consumer: tuple[str, int] = "", 0
        """Our consumer at the broker, and the last delivery tag before the first one of this consumer."""
        self._news = asyncio.Event()
        self._telling = asyncio.Lock()

    async def open(self) -> Channel:
        """The channel, or a new one after a loss. Raises BrokerUnavailable."""
        if self._channel is not None and not self._channel.is_closed:
            return self._channel
        self._forget()
        connection = await self._broker.connection()
        try:
            async with bounded(CALL_SECONDS):
                channel = await open_channel(connection, publisher_confirms=False)
                await channel.basic_qos(prefetch_count=self._at_hand)
                await self._consume(channel)
        except BrokerUnavailable:
            self._broker.supervised.finish(_close(connection))
            raise
        channel.closing.add_done_callback(self._closed)
        # Somebody has deleted the queue: the next fetch makes it again.
        channel.on_consumer_cancel_callbacks.add(lambda _: self._broker.supervised.finish(_leave(channel)))
        self._channel = channel
        return channel

    @property
    def _at_hand(self) -> int:
        """How many deliveries the broker sends to one consumer ahead of their acknowledgements."""
        most = self._broker.options.max_in_flight
        return most if self._kind is Kind.EVENT else min(JOBS_AT_HAND, most)

    async def _consume(self, channel: Channel) -> None:
        topology = self._broker.topology
        assert topology is not None, "declare first"
        last_tag = next(reversed(self._held), 0)
        started = await channel.basic_consume(queue_name(self._kind, topology.service), self._take)
        self._consumer = started.consumer_tag or "", last_tag

    async def _make_room(self, channel: Channel) -> None:
        """Replace a consumer whose limit of unacknowledged jobs is half used, so that waiting jobs do not block others.

        The deliveries of the former consumer stay ours. (RabbitMQ cannot change the limit of a consumer.)
        """
        name, last_tag = self._consumer
        if 2 * sum(tag > last_tag for tag in self._held) >= self._at_hand:
            async with bounded(CALL_SECONDS):
                await channel.basic_cancel(name)
                await self._consume(channel)

    async def fetch(self, limit: int, *, wait_seconds: float) -> list[Delivery]:
        channel = await self.open()
        if not self._waiting:
            if self._kind is Kind.JOB:
                await self._make_room(channel)
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._news.wait()
        return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Confirm with one frame all deliveries that have nothing open before them. The others are confirmed later."""
        self._done += self._settle(deliveries)
        # A job may take long, and few are at hand: the broker sends the next job when one is confirmed.
        most = 0 if self._kind is Kind.JOB else self._at_hand // 4
        await self._confirm(one_by_one=len(self._done) > most)

    async def _confirm(self, *, one_by_one: bool) -> None:
        # One caller at a time: "all up to this tag" would include tags that another caller has taken from `_done` and is
        # about to confirm, and RabbitMQ closes a channel that confirms a tag twice.
        async with self._telling:
            channel = self._channel  # of theirs: on the next one, the same tags are other messages
            tags, self._done = sorted(self._done), []
            oldest = next(iter(self._held), float("inf"))
            together = [tag for tag in tags if tag < oldest]
            alone = tags[len(together) :]
            if not one_by_one:
                self._done += alone
                alone = []
            if channel is None:
                return
            with suppress(BrokerUnavailable):  # then they come again
                async with bounded(CALL_SECONDS):
                    if together:
                        await channel.basic_ack(together[-1], multiple=True, wait=False)
                    for tag in alone:
                        await channel.basic_ack(tag, wait=False)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Closing gives back all that is not acknowledged, at once and in its order.

        Given back one by one, some would come here again in between, and lose their place.
        """

    async def touch(self, deliveries: Sequence[Delivery]) -> None:
        """RabbitMQ takes nothing back while the channel stands. A good time to confirm what waits for older messages."""
        await self._confirm(one_by_one=True)

    async def close(self) -> None:
        self._broker.subscriptions.discard(self)
        await self._confirm(one_by_one=True)
        if self._channel is not None:
            await asyncio.wait([self._broker.supervised.finish(_leave(self._channel))], timeout=CALL_SECONDS)

    def _settle(self, deliveries: Sequence[Delivery]) -> list[int]:
        """The tags of those that are this channel's: of an earlier one's the broker knows nothing any more."""
        tags = []
        for delivery in deliveries:
            tag = delivery.receipt
            if self._held.get(tag) is delivery:
                del self._held[tag]
                tags.append(tag)
        return tags

    async def _take(self, arrived: DeliveredMessage) -> None:
        assert arrived.delivery_tag is not None
        reason = (arrived.header.properties.headers or {}).get(decoding.UNREADABLE)
        message = _message(arrived, self._kind)
        delivery = Delivery(message, receipt=arrived.delivery_tag, unreadable=None if reason is None else str(reason))
        self._held[arrived.delivery_tag] = delivery
        self._waiting.append(delivery)
        self._news.set()

    def _closed(self, closing: asyncio.Future[Any]) -> None:
        self._forget()
        reason = None if closing.cancelled() else closing.exception()
        # What the broker objects to: not the loss of the connection, and not the answer to our own close, which is empty.
        if isinstance(reason, ChannelClosed) and any(reason.args):
            log.warning("broker_channel_closed", system=RabbitBroker.system, reason=str(reason))

    def _forget(self) -> None:
        for delivery in self._held.values():
            delivery.lost = True
        self._held.clear()
        self._done.clear()
        self._waiting.clear()
        self._news.set()


async def _make(connection: AbstractConnection, declare: Callable[[Channel], Awaitable[Any]]) -> None:
    """Declare on a channel of its own: one that exists with other settings closes it."""
    async with bounded(CALL_SECONDS):
        channel = await open_channel(connection)
        try:
            await declare(channel)
        except ChannelPreconditionFailed as error:
            log.warning("broker_topology_differs", system=RabbitBroker.system, reason=str(error))
        else:
            await channel.close()


def queue_name(kind: Kind, service: str) -> str:
    return f"{service}.{kind}s"


def _message(arrived: DeliveredMessage, kind: Kind) -> Message:
    properties = arrived.header.properties
    headers = _headers(arrived)
    return Message(
        kind=kind,
        name=arrived.routing_key or "",
        id=headers.get("id") or properties.message_id or _digest(arrived),
        key=headers.get("key", ""),
        body=arrived.body,
        headers={name: value for name, value in headers.items() if name not in _OURS},
    )


def _digest(arrived: DeliveredMessage) -> str:
    """The same in each copy, for lack of an id: so two messages that are alike in everything count as one."""
    properties = arrived.header.properties
    said = [arrived.exchange, arrived.routing_key, properties.correlation_id, properties.timestamp]
    return hashlib.sha256(repr([*said, sorted(_headers(arrived).items())]).encode() + arrived.body).hexdigest()


def _headers(arrived: DeliveredMessage) -> dict[str, str]:
    found = arrived.header.properties.headers or {}
    return {name: str(value) for name, value in found.items() if name not in _OF_THE_COPY}


def _version(connection: AbstractConnection) -> int:
    return int(re.sub(r"\D.*", "", str(connection.server_properties.get("version", "3"))))


async def _is_open(publisher: Publisher) -> bool:
    return not publisher.is_closed


async def _leave_publisher(publisher: Publisher) -> None:
    await _close(publisher.connection)


async def _leave(channel: Channel) -> None:
    # A connection that is closed forgets what it has not written yet, the last acknowledgements; a channel does not.
    with suppress(BrokerUnavailable):
        async with bounded(CALL_SECONDS):
            await channel.close(ConnectionError("closed"))
    await _close(channel.connection)


async def _close(connection: AbstractConnection) -> None:
    # Named, because by default whoever waits for an answer would be cancelled.
    async with asyncio.timeout(CALL_SECONDS):
        await connection.close(ConnectionError("closed"))
