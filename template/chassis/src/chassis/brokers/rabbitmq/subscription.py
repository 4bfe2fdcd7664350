"""Consume from the queue of a service, and confirm deliveries in as few frames as possible."""

import asyncio
import hashlib
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import structlog
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelClosed

from chassis.brokers import BrokerUnavailable, Delivery, Kind, Message, Topology
from chassis.brokers.bounded_call import bounded_call
from chassis.brokers.rabbitmq import decoding
from chassis.brokers.rabbitmq.connection import (
    CALL_SECONDS,
    FAILURES,
    SYSTEM,
    Connections,
    close,
    open_channel,
    queue_name,
)

log = structlog.get_logger()

JOBS_AT_HAND = 16
"""How many jobs a replica holds at most. No other replica can process these jobs."""

_OURS = ("id", "key", "type")
_OF_THE_COPY = ("x-delivery-count", "x-acquired-count", decoding.UNREADABLE)
"""Headers that belong to a copy, not to the message: RabbitMQ or our decoding adds them."""


class RabbitSubscription:
    def __init__(self, kind: Kind, topology: Topology, connections: Connections, owner: str) -> None:
        self._kind = kind
        self._queue = queue_name(kind, owner)
        self._is_apart = owner != topology.service
        self._connections = connections
        self._channel: Channel | None = None
        self._held: dict[int, Delivery] = {}
        """The deliveries of this channel that are not acknowledged, by delivery tag, in the order of the tags."""
        self._done: list[int] = []
        """Tags of deliveries that are done and not yet confirmed, because older deliveries are still open."""
        self._waiting: deque[Delivery] = deque()
        self._consumer: tuple[str, int] = "", 0
        """The tag of the consumer at the broker, and the last delivery tag before the first delivery to this consumer."""
        self._arrived = asyncio.Event()
        self._confirming = asyncio.Lock()

    async def open(self) -> Channel:
        """Return the channel, or open a new channel after a loss. Raises BrokerUnavailable."""
        if self._channel is not None and not self._channel.is_closed:
            return self._channel
        self._forget()
        connection = await self._connections.open()
        try:
            async with bounded_call(CALL_SECONDS, *FAILURES):
                channel = await open_channel(connection, publisher_confirms=False)
                await channel.basic_qos(prefetch_count=self._at_hand)
                await self._consume(channel)
        except BrokerUnavailable:
            self._connections.finish(close(connection))
            raise
        channel.closing.add_done_callback(self._closed)
        # Somebody has deleted the queue: the next fetch creates the queue again.
        channel.on_consumer_cancel_callbacks.add(lambda _: self._connections.finish(_leave(channel)))
        self._channel = channel
        return channel

    @property
    def _at_hand(self) -> int:
        """How many deliveries the broker sends to one consumer ahead of their acknowledgements."""
        options = self._connections.options
        most = options.max_in_flight
        if self._kind is Kind.EVENT:
            return most
        # The jobs of a further queue may take long, so a replica holds no job that another replica could begin.
        return min(options.jobs_at_once if self._is_apart else JOBS_AT_HAND, most)

    async def _consume(self, channel: Channel) -> None:
        last_tag = next(reversed(self._held), 0)
        started = await channel.basic_consume(self._queue, self._take)
        self._consumer = started.consumer_tag or "", last_tag

    async def _make_room(self, channel: Channel) -> None:
        """Replace a consumer whose limit of unacknowledged jobs is half used, so that waiting jobs do not block others.

        The deliveries of the former consumer stay with this subscription. (RabbitMQ cannot change the limit of a consumer.)
        """
        name, last_tag = self._consumer
        if 2 * sum(tag > last_tag for tag in self._held) >= self._at_hand:
            async with bounded_call(CALL_SECONDS, *FAILURES):
                await channel.basic_cancel(name)
                await self._consume(channel)

    async def fetch(self, limit: int, *, wait_seconds: float) -> list[Delivery]:
        channel = await self.open()
        if not self._waiting:
            if self._kind is Kind.JOB:
                await self._make_room(channel)
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._arrived.wait()
        return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Confirm with one frame all deliveries before the oldest unfinished delivery. Confirm other deliveries later."""
        self._done += self._settle(deliveries)
        # Confirm a job at once: the broker sends few jobs ahead, and the next job only after a confirmation.
        most = 0 if self._kind is Kind.JOB else self._at_hand // 4
        await self._confirm(one_by_one=len(self._done) > most)

    async def _confirm(self, *, one_by_one: bool) -> None:
        # One caller at a time: "all up to this tag" would include tags that another caller has taken from `_done` and is
        # about to confirm, and RabbitMQ closes a channel that confirms a tag twice.
        async with self._confirming:
            channel = self._channel  # the channel of these tags: on the next channel, the same tags are other messages
            tags, self._done = sorted(self._done), []
            oldest = next(iter(self._held), float("inf"))
            together = [tag for tag in tags if tag < oldest]
            alone = tags[len(together) :]
            if not one_by_one:
                self._done += alone
                alone = []
            if channel is None:
                return
            with suppress(BrokerUnavailable):  # RabbitMQ redelivers a message whose confirmation is lost
                async with bounded_call(CALL_SECONDS, *FAILURES):
                    if together:
                        await channel.basic_ack(together[-1], multiple=True, wait=False)
                    for tag in alone:
                        await channel.basic_ack(tag, wait=False)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Do nothing: closing returns all unacknowledged messages at once and in order.

        If they were returned one by one, RabbitMQ could redeliver some to this subscription in between, out of order.
        """

    async def touch(self, deliveries: Sequence[Delivery]) -> None:
        """Confirm what waits for older messages. RabbitMQ takes nothing back while the channel is open."""
        await self._confirm(one_by_one=True)

    async def close(self) -> None:
        await self._confirm(one_by_one=True)
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await asyncio.wait([self._connections.finish(_leave(channel))], timeout=CALL_SECONDS)

    def _settle(self, deliveries: Sequence[Delivery]) -> list[int]:
        """Return the tags that belong to this channel. The broker no longer knows the tags of an earlier channel."""
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
        self._arrived.set()

    def _closed(self, closing: asyncio.Future[Any]) -> None:
        self._forget()
        reason = None if closing.cancelled() else closing.exception()
        # Log an error of the broker, but not the loss of the connection, and not the answer to our own close, which is empty.
        if isinstance(reason, ChannelClosed) and any(reason.args):
            log.warning("broker_channel_closed", system=SYSTEM, reason=str(reason))

    def _forget(self) -> None:
        for delivery in self._held.values():
            delivery.lost = True
        self._held.clear()
        self._done.clear()
        self._waiting.clear()
        self._arrived.set()


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
    """Return an id that is the same in each copy of a message without an id. Two equal messages count as one."""
    properties = arrived.header.properties
    parts = [arrived.exchange, arrived.routing_key, properties.correlation_id, properties.timestamp]
    return hashlib.sha256(repr([*parts, sorted(_headers(arrived).items())]).encode() + arrived.body).hexdigest()


def _headers(arrived: DeliveredMessage) -> dict[str, str]:
    found = arrived.header.properties.headers or {}
    return {name: str(value) for name, value in found.items() if name not in _OF_THE_COPY}


async def _leave(channel: Channel) -> None:
    # Closing a connection drops what is not written yet, such as the last acknowledgements. Closing a channel does not.
    with suppress(BrokerUnavailable):
        async with bounded_call(CALL_SECONDS, *FAILURES):
            await channel.close(ConnectionError("closed"))
    await close(channel.connection)
