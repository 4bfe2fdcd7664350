"""NATS with JetStream (server 2.10 or newer), by nats-py.

A service that consumes from a stream has one durable consumer there, named after the service. A new consumer begins with
the oldest event that the stream still has.
"""

import asyncio

from nats import errors
from nats.js.errors import APIError, NoStreamResponseError

from chassis.brokers import DestinationUnavailable, Kind, Message, MessageRefused, Options, Topology
from chassis.brokers.nats.connection import FAILURES, SYSTEM, Connection
from chassis.brokers.nats.subscription import NatsSubscription

REFUSALS = {10054, 10060, 10070, 10071, 10097, 10111, 10164, 10165, 10166}
"""JetStream's errors that concern the message: it is too large, or has a header that the stream does not accept or a
condition that does not hold. All other errors concern the stream or the account, and may be temporary."""


class NatsBroker:
    system = SYSTEM
    shares_in_order = False

    def __init__(self, options: Options) -> None:
        self.connection = Connection(options)

    @property
    def connected(self) -> bool:
        return self.connection.connected

    async def connect(self) -> None:
        await self.connection.ready()

    async def declare(self, topology: Topology) -> None:
        await self.connection.declare(topology)

    async def publish(self, message: Message) -> None:
        connection = self.connection
        headers = _headers(message)
        if not connection.connected:
            await connection.ready()
        size = len(message.body) + _size(headers)
        if size > connection.client.max_payload:  # the server would close the connection
            raise MessageRefused(f"{size} bytes with its headers: the server takes {connection.client.max_payload}")
        try:
            async with asyncio.timeout(connection.options.publish_timeout_seconds):
                await connection.publisher.publish(message.name, message.body, headers)
        except APIError as error:
            verdict = MessageRefused if error.err_code in REFUSALS else DestinationUnavailable
            raise verdict(str(error.description)) from error
        except NoStreamResponseError as error:
            await connection.restore(message.kind, message.owner)
            raise DestinationUnavailable(f"no stream takes {message.name}") from error
        except (errors.MaxPayloadError, errors.BadHeaderError, errors.BadSubjectError) as error:
            raise MessageRefused(str(error)) from error
        except FAILURES as error:
            raise connection.as_unavailable(error) from error

    async def subscribe(self, kind: Kind, owner: str = "") -> NatsSubscription:
        topology = self.connection.topology
        assert topology is not None, "declare first"
        await self.connection.ready()
        return NatsSubscription(self.connection, topology, kind, owner or topology.service)

    async def close(self) -> None:
        await self.connection.close()


def _headers(message: Message) -> dict[str, str]:
    """Make the headers of a message. Raises MessageRefused for a header that would arrive changed."""
    ours = {"id": message.id, "key": message.key, "type": message.name, "Nats-Msg-Id": message.id}
    headers = {**message.headers, **ours}
    for name, value in headers.items():
        if value != value.strip() or "\n" in value or "\r" in value:
            raise MessageRefused(f"NATS changes line breaks and outer white space in headers, and {name} has some")
    return headers


def _size(headers: dict[str, str]) -> int:
    """Return the size of the headers in bytes. Raises MessageRefused."""
    try:
        return len("NATS/1.0\r\n\r\n") + sum(len(f"{name}: {value}\r\n".encode()) for name, value in headers.items())
    except UnicodeEncodeError as error:
        raise MessageRefused(f"a header is not valid Unicode: {error}") from error
