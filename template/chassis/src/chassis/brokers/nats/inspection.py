"""The streams of JetStream that a service uses, and the position of the service in each."""

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from chassis.brokers import Kind, Options, Topology
from chassis.brokers.inspection import StreamState
from chassis.brokers.nats.connection import FAILURES, Connection
from chassis.brokers.nats.streams import Stream, stream_name, streams_of


async def inspect(options: Options, topology: Topology) -> list[StreamState]:
    connection = Connection(options)
    try:
        jetstream = await connection.ready()
        return [await _state(jetstream, stream, topology) for stream in streams_of(topology)]
    except FAILURES as error:
        raise connection.as_unavailable(error) from error
    finally:
        await connection.close()


async def _state(jetstream: JetStreamContext, stream: Stream, topology: Topology) -> StreamState:
    name = stream_name(stream.kind, stream.owner)
    try:
        messages = (await jetstream.stream_info(name)).state.messages
    except NotFoundError:
        return StreamState(name, exists=False)
    consumed = topology.awaited_events if stream.kind is Kind.EVENT else topology.accepted_jobs
    if not stream.names & consumed:
        return StreamState(name, messages=messages)
    try:
        consumer = await jetstream.consumer_info(name, topology.service)
    except NotFoundError:  # the service has not consumed yet, and will begin with the oldest message
        return StreamState(name, messages=messages, waiting=messages, unacknowledged=0)
    return StreamState(name, messages=messages, waiting=consumer.num_pending, unacknowledged=consumer.num_ack_pending)
