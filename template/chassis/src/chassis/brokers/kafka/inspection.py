"""The topics of Kafka that a service uses, and the position of the service's group in each."""

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError

from chassis.brokers import Kind, Options, Topology, owner_of
from chassis.brokers.bounded_call import bounded_call
from chassis.brokers.inspection import StreamState
from chassis.brokers.kafka.broker import client_settings
from chassis.brokers.kafka.subscription import CALL_SECONDS, group_name

Offsets = dict[TopicPartition, int]


async def inspect(options: Options, topology: Topology) -> list[StreamState]:
    async with bounded_call(CALL_SECONDS, KafkaError):
        consumer = AIOKafkaConsumer(**client_settings(options), enable_auto_commit=False)
        admin = AIOKafkaAdminClient(**client_settings(options))
        try:
            await consumer.start()
            await admin.start()
            return await _states(consumer, admin, topology)
        finally:
            await admin.close()
            await consumer.stop()


async def _states(consumer: AIOKafkaConsumer, admin: AIOKafkaAdminClient, topology: Topology) -> list[StreamState]:
    groups = dict.fromkeys(topology.awaited_events, group_name(Kind.EVENT, topology.service))
    groups |= {name: group_name(Kind.JOB, owner_of(name)) for name in topology.accepted_jobs}
    committed = {group: await _committed(admin, group) for group in set(groups.values())}
    # All topics, because Kafka may create a topic that is asked for by its name.
    existing = {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics()}
    states = []
    for name in sorted({*groups, *topology.published_events, *topology.sent_jobs}):
        if name not in existing:
            states.append(StreamState(name, exists=False))
            continue
        places = [TopicPartition(name, each["partition"]) for each in existing[name]]
        first, end = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
        messages = sum(end[place] - first[place] for place in places)
        group = committed[groups[name]] if name in groups else None
        waiting = (
            None if group is None else sum(end[place] - max(group.get(place, 0), first[place]) for place in places)
        )
        states.append(StreamState(name, messages=messages, waiting=waiting))
    return states


async def _committed(admin: AIOKafkaAdminClient, group: str) -> Offsets:
    while True:  # the caller limits the time
        try:
            found = await admin.list_consumer_group_offsets(group)
            return {place: position.offset for place, position in found.items()}
        except GroupCoordinatorNotAvailableError:  # a new cluster first creates its topic for groups
            await asyncio.sleep(0.1)
