"""Connections to RabbitMQ, with the exchanges and queues of the topology in place.

Each owner has a durable topic exchange. Each service has the quorum queues `<service>.events`, of which one replica at a time
is the consumer, and `<service>.jobs`, for which replicas compete. A service that sends jobs creates their queue too: the jobs
wait for a worker that has never run. RabbitMQ keeps no event for which no queue is bound.

A queue or an exchange that exists is used as it is. Nothing limits how often a message may be redelivered: RabbitMQ would
discard a message that the chassis parks.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

import aiormq
import structlog
from aiormq import Channel
from aiormq.abc import AbstractConnection
from aiormq.exceptions import AMQPError, ChannelPreconditionFailed

from chassis.brokers import BrokerUnavailable, Kind, Options, Topology, owner_of
from chassis.brokers.bounded_call import bounded_call

log = structlog.get_logger()
logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # it logs each attempt to connect; SupervisedClient logs once
# asyncio logs this for each message that was in flight when the connection broke. The caller gets an error for each.
logging.getLogger("asyncio").addFilter(lambda record: record.msg != "socket.send() raised exception.")

SYSTEM = "rabbitmq"
CALL_SECONDS = 10
HEARTBEAT_SECONDS = 10
LONGEST_JOB_MILLISECONDS = 24 * 3600 * 1000
"""How long a job of a further queue may stay unacknowledged, with all its attempts. RabbitMQ's default is half an hour."""

FAILURES = (AMQPError, RuntimeError)
"""The errors of aiormq. RuntimeError: the channel or the connection was closed."""


class Connections:
    """Opens connections to the servers of the URL."""

    def __init__(self, options: Options, *, finish: Callable[[Coroutine[Any, Any, None]], Any]) -> None:
        """`finish` runs the end of a connection in the background."""
        self.options = options
        self.topology: Topology | None = None
        self.finish = finish

    async def open(self) -> AbstractConnection:
        """Open a connection, and declare the topology. Raises BrokerUnavailable."""
        connection = await self.reach()
        try:
            if self.topology is not None:
                await self.declare(self.topology, connection)  # the server may have lost its queues
        except BrokerUnavailable:
            self.finish(close(connection))
            raise
        return connection

    async def reach(self) -> AbstractConnection:
        """Open a connection, and declare nothing. Raises BrokerUnavailable."""
        async with bounded_call(CALL_SECONDS, *FAILURES):
            return await self._reach()

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
            except StopAsyncIteration:
                failure = ConnectionError("the server closed the connection")
        raise failure

    async def declare(self, topology: Topology, connection: AbstractConnection) -> None:
        """Declare all exchanges, queues and bindings. Raises BrokerUnavailable."""
        events, jobs = (queue_name(kind, topology.service) for kind in (Kind.EVENT, Kind.JOB))
        queues = {name: queue_name(Kind.JOB, owner_of(name)) for name in topology.sent_jobs | topology.accepted_jobs}
        queues |= dict.fromkeys(topology.awaited_events, events)
        apart = {queue_name(Kind.JOB, owner) for owner in topology.owners} - {jobs}
        for exchange in sorted({owner_of(name) for name in topology.published_events | queues.keys()}):
            await _declare(connection, lambda c, n=exchange: c.exchange_declare(n, exchange_type="topic", durable=True))
        for queue in sorted(set(queues.values())):
            arguments = queue_arguments(
                connection, replication=self.options.replication, alone=queue == events, apart=queue in apart
            )
            await _declare(connection, lambda c, n=queue, a=arguments: c.queue_declare(n, durable=True, arguments=a))
        async with bounded_call(CALL_SECONDS, *FAILURES):
            channel = await open_channel(connection)
            for name, queue in queues.items():
                await channel.queue_bind(queue, owner_of(name), name)
            await channel.close()


async def _declare(connection: AbstractConnection, declare: Callable[[Channel], Awaitable[Any]]) -> None:
    """Declare on a channel of its own: RabbitMQ closes the channel if the object exists with other settings."""
    async with bounded_call(CALL_SECONDS, *FAILURES):
        channel = await open_channel(connection)
        try:
            await declare(channel)
        except ChannelPreconditionFailed as error:
            log.warning("broker_topology_differs", system=SYSTEM, reason=str(error))
        else:
            await channel.close()


def queue_arguments(
    connection: AbstractConnection, *, replication: int, alone: bool, apart: bool = False
) -> dict[str, Any]:
    """Return a queue's arguments. `alone`: one replica at a time is the consumer. `apart`: the jobs may take long."""
    arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-quorum-initial-group-size": replication}
    if alone:
        arguments["x-single-active-consumer"] = True
    if apart:
        arguments["x-consumer-timeout"] = LONGEST_JOB_MILLISECONDS
    if _version(connection) >= 4:
        # By default RabbitMQ 4 discards a message after 20 deliveries. Older servers have no limit, and read -1 as 0.
        arguments["x-delivery-limit"] = -1
    return arguments


def queue_name(kind: Kind, owner: str) -> str:
    return f"{owner}.{kind}s"


async def open_channel(connection: AbstractConnection, **options: bool) -> Channel:
    channel = await connection.channel(**options)
    assert isinstance(channel, Channel)
    return channel


async def close(connection: AbstractConnection) -> None:
    # The tasks that wait for an answer get this error. Without an error, aiormq would cancel the tasks.
    async with asyncio.timeout(CALL_SECONDS):
        await connection.close(ConnectionError("closed"))


def _version(connection: AbstractConnection) -> int:
    return int(re.sub(r"\D.*", "", str(connection.server_properties.get("version", "3"))))
