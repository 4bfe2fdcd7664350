"""Publish to RabbitMQ, and find out which message caused a refusal.

RabbitMQ refuses most messages by closing their channel, so all other messages in flight on that channel fail too. Each
of them is then sent again, alone on a connection.
"""

import asyncio
import struct

from aiormq import Channel, spec
from aiormq.abc import AbstractConnection
from aiormq.exceptions import (
    ChannelClosed,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    PublishError,
)
from pamqp.header import ContentHeader

from chassis.brokers import BrokerUnavailable, DestinationUnavailable, Kind, Message, MessageRefused
from chassis.brokers.bounded_call import bounded_call
from chassis.brokers.rabbitmq.connection import FAILURES, open_channel

BLOCKED = "RabbitMQ has blocked all publishers, because it is low on memory or disk space"
OVERHEAD_BYTES = 1024
"""More bytes than a frame of properties has in addition to its headers and its key."""


class DestinationMissing(DestinationUnavailable):
    """The exchange or the queue has to be declared again."""


class Refused(BrokerUnavailable):
    """The broker has closed the channel because of this message, or because of another message on it."""


class Publisher:
    """A publisher of any number of messages at a time over one channel of its own connection."""

    def __init__(self, connection: AbstractConnection, channel: Channel, *, timeout_seconds: float) -> None:
        self.connection = connection
        self._channel = channel
        self._timeout_seconds = timeout_seconds
        self._unblocked: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, connection: AbstractConnection, *, timeout_seconds: float) -> "Publisher":
        """Raises BrokerUnavailable."""
        async with bounded_call(timeout_seconds, *FAILURES):
            channel = await open_channel(connection, publisher_confirms=True, on_return_raises=True)
        return cls(connection, channel, timeout_seconds=timeout_seconds)

    @property
    def blocked(self) -> bool:
        return self._unblocked is not None and not self._unblocked.done()

    @property
    def is_closed(self) -> bool:
        return self._channel.is_closed

    @property
    def _refused(self) -> bool:
        closing = self._channel.closing
        return closing.done() and not closing.cancelled() and isinstance(closing.exception(), ChannelClosed)

    async def publish(self, message: Message) -> None:
        """Return when the broker has confirmed the message.

        Raises BrokerUnavailable, DestinationUnavailable, MessageRefused, or Refused for all messages on the channel.
        """
        if self.blocked:
            raise BrokerUnavailable(BLOCKED)
        properties = self._properties(message)
        try:
            async with bounded_call(self._timeout_seconds, *FAILURES):
                await self._channel.basic_publish(
                    message.body,
                    exchange=message.owner,
                    routing_key=message.name,
                    properties=properties,
                    mandatory=message.kind is Kind.JOB,
                    wait=False,
                )
        except (ValueError, TypeError, struct.error) as error:  # UnicodeEncodeError is a ValueError
            raise MessageRefused(f"AMQP cannot carry the message: {error}") from error
        except BrokerUnavailable as error:
            match error.__cause__:
                case PublishError():
                    raise DestinationMissing(f"nobody has declared a queue for it: {error}") from error
                case DeliveryError():
                    raise DestinationUnavailable(
                        "RabbitMQ did not accept it: a queue is full or unavailable"
                    ) from error
                case TimeoutError() if await self._is_blocked():
                    raise BrokerUnavailable(BLOCKED) from error
                case ChannelClosed():
                    raise Refused(str(error)) from error.__cause__
            # aiormq may write to a channel that the broker has closed, and then the broker closes the connection, too.
            if self._refused:
                raise Refused(str(error)) from error
            raise

    async def _is_blocked(self) -> bool:
        """Return whether the broker has asked us to wait. aiormq reports only the end of the wait."""
        if self._unblocked is None or self._unblocked.done():
            self._unblocked = asyncio.create_task(self.connection.ready())
            await asyncio.sleep(0)
        return self.blocked

    def _properties(self, message: Message) -> spec.Basic.Properties:
        """Make the properties of a message. Raises MessageRefused if they need more than a frame: the broker would disconnect us."""
        properties = spec.Basic.Properties(
            content_type=message.headers.get("content-type"),
            headers={**message.headers, "id": message.id, "key": message.key, "type": message.name},
            delivery_mode=2,  # persistent
            message_id=message.id,
        )
        room = self.connection.connection_tune.frame_max - OVERHEAD_BYTES
        rough = len(message.id) + len(message.key) + sum(map(len, message.headers.values()))
        if 4 * rough > room and len(message.id) < 256 and len(ContentHeader(properties=properties).marshal()) > room:
            raise MessageRefused(f"the headers and the key are larger than a frame of {room + OVERHEAD_BYTES} bytes")
        return properties


def verdict(error: Refused) -> Exception:
    """Return the error for a message that was alone on its channel when the broker closed the channel."""
    match error.__cause__:
        case ChannelPreconditionFailed():
            return MessageRefused(str(error))
        case ChannelNotFoundEntity():
            return DestinationMissing(str(error))
        case ChannelClosed():
            return DestinationUnavailable(str(error))
    return error
