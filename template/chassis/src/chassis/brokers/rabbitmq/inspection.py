"""The queues of RabbitMQ that a service uses. An exchange keeps no message, so published events have no line here."""

import asyncio

from aiormq.abc import AbstractConnection
from aiormq.exceptions import ChannelNotFoundEntity

from chassis.brokers import Kind, Options, Topology, owner_of
from chassis.brokers.bounded_call import bounded_call
from chassis.brokers.inspection import StreamState
from chassis.brokers.rabbitmq.connection import CALL_SECONDS, FAILURES, Connections, close, open_channel, queue_name


async def inspect(options: Options, topology: Topology) -> list[StreamState]:
    ours = {queue_name(Kind.JOB, owner_of(name)) for name in topology.accepted_jobs}
    if topology.awaited_events:
        ours.add(queue_name(Kind.EVENT, topology.service))
    others = {queue_name(Kind.JOB, owner_of(name)) for name in topology.sent_jobs}
    async with bounded_call(CALL_SECONDS, *FAILURES):
        connection = await Connections(options, finish=asyncio.create_task).reach()
        try:
            return [await _state(connection, name, ours=name in ours) for name in sorted({*ours, *others})]
        finally:
            await close(connection)


async def _state(connection: AbstractConnection, name: str, *, ours: bool) -> StreamState:
    # Each queue is read on a channel of its own, because RabbitMQ closes the channel if the queue does not exist.
    channel = await open_channel(connection)
    try:
        found = await channel.queue_declare(name, passive=True)
    except ChannelNotFoundEntity:
        return StreamState(name, exists=False)
    await channel.close()
    # RabbitMQ counts the messages that are ready. It does not count a message that a consumer has received.
    return StreamState(name, messages=found.message_count, waiting=found.message_count if ours else None)
