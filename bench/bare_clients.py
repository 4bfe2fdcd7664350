"""Publish and consume with the brokers' own clients, as their documentation shows, for comparison with relay and consumer.

The consumer takes the events that the relay has sent, and does with them what our consumer does: the same statements, in
transactions of the same size, as many at a time, and the acknowledgement after the commit.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiormq
import asyncpg
import nats
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from nats.js.api import ConsumerConfig, StreamConfig

NAME = "bare.bench"
EVENTS = "counter.stepped.v1"
AT_A_TIME = 500
LANES, BATCH = 4, 100
CLAIM = """
    INSERT INTO chassis.inbox (message_id, name) SELECT * FROM unnest($1::text[], $2::text[])
    ON CONFLICT DO NOTHING RETURNING message_id
"""
EFFECT = "INSERT INTO journal.entries (name, step) VALUES ($1, $2)"


class Bare(Protocol):
    async def publish(self, bodies: Sequence[bytes]) -> None: ...
    async def consume(self, count: int, pool: asyncpg.Pool) -> None: ...


async def _in_turns(publish: Callable[[bytes], Any], bodies: Sequence[bytes]) -> None:
    for start in range(0, len(bodies), AT_A_TIME):
        await asyncio.gather(*(publish(body) for body in bodies[start : start + AT_A_TIME]))


async def handle(pool: asyncpg.Pool, messages: Iterable[tuple[str, str, bytes]]) -> None:
    """Process messages, given as id, key and body. All messages of a key are in one lane, and the lanes run concurrently."""
    lanes: list[list[tuple[str, bytes]]] = [[] for _ in range(LANES)]
    for identity, key, body in messages:
        lanes[hash(key) % LANES].append((identity, body))
    await asyncio.gather(*(_commit(pool, lane) for lane in lanes))


async def _commit(pool: asyncpg.Pool, messages: Sequence[tuple[str, bytes]]) -> None:
    for start in range(0, len(messages), BATCH):
        batch = dict(messages[start : start + BATCH])
        async with pool.acquire() as connection, connection.transaction():
            for (identity,) in await connection.fetch(CLAIM, sorted(batch), [EVENTS] * len(batch)):
                event = json.loads(batch[identity])
                await connection.execute(EFFECT, event["name"], event["step"])


class _Nats:
    def __init__(self, stream: Any, subscription: Any) -> None:
        self._stream = stream
        self._subscription = subscription

    async def publish(self, bodies: Sequence[bytes]) -> None:
        await _in_turns(lambda body: self._stream.publish(NAME, body), bodies)

    async def consume(self, count: int, pool: asyncpg.Pool) -> None:
        while count > 0:
            messages = await self._subscription.fetch(LANES * BATCH, timeout=10)
            await handle(pool, ((each.headers["id"], each.headers["key"], each.data) for each in messages))
            for message in messages:
                await message.ack()
            count -= len(messages)


@asynccontextmanager
async def _nats(url: str) -> AsyncGenerator[Bare]:
    client = await nats.connect(url)
    stream = client.jetstream()
    await stream.add_stream(StreamConfig(name="bare", subjects=[NAME]))
    subscription = await stream.pull_subscribe(EVENTS, "bench", config=ConsumerConfig(max_ack_pending=10_000))
    yield _Nats(stream, subscription)
    await client.close()


class _Kafka:
    def __init__(self, producer: Any, consumer: Any) -> None:
        self._producer = producer
        self._consumer = consumer

    async def publish(self, bodies: Sequence[bytes]) -> None:
        await _in_turns(lambda body: self._producer.send_and_wait(NAME, body), bodies)

    async def consume(self, count: int, pool: asyncpg.Pool) -> None:
        while count > 0:
            found = await self._consumer.getmany(timeout_ms=1000, max_records=LANES * BATCH)
            records = [record for some in found.values() for record in some]
            await handle(pool, ((dict(one.headers)["id"].decode(), one.key.decode(), one.value) for one in records))
            await self._consumer.commit()
            count -= len(records)


@asynccontextmanager
async def _kafka(url: str) -> AsyncGenerator[Bare]:
    address = urlsplit(url).netloc
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    await admin.create_topics([NewTopic(NAME, num_partitions=12, replication_factor=1)])
    await admin.close()
    async with (
        AIOKafkaProducer(bootstrap_servers=address, acks="all", enable_idempotence=True) as producer,
        AIOKafkaConsumer(
            EVENTS,
            bootstrap_servers=address,
            group_id="bench",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        ) as consumer,
    ):
        yield _Kafka(producer, consumer)


class _RabbitMq:
    def __init__(self, channel: aiormq.Channel) -> None:
        self._channel = channel

    async def publish(self, bodies: Sequence[bytes]) -> None:
        durable = aiormq.spec.Basic.Properties(delivery_mode=2)
        await _in_turns(lambda body: self._channel.basic_publish(body, routing_key=NAME, properties=durable), bodies)
        await self._channel.queue_purge(NAME)

    async def consume(self, count: int, pool: asyncpg.Pool) -> None:
        arrived: asyncio.Queue[Any] = asyncio.Queue()
        started = await self._channel.basic_consume(EVENTS, arrived.put)
        while count > 0:
            messages = [await arrived.get()]
            while len(messages) < LANES * BATCH and not arrived.empty():
                messages.append(arrived.get_nowait())
            await handle(pool, map(_parts, messages))
            await self._channel.basic_ack(messages[-1].delivery.delivery_tag, multiple=True, wait=False)
            count -= len(messages)
        await self._channel.basic_cancel(started.consumer_tag)


def _parts(message: Any) -> tuple[str, str, bytes]:
    headers = message.header.properties.headers
    return headers["id"], headers["key"], message.body


@asynccontextmanager
async def _rabbitmq(url: str) -> AsyncGenerator[Bare]:
    connection = await aiormq.connect(url)
    channel = await connection.channel(publisher_confirms=True)
    await channel.basic_qos(prefetch_count=1000)
    for queue in (NAME, EVENTS):
        await channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    await channel.queue_bind(EVENTS, "counter", EVENTS)
    yield _RabbitMq(channel)
    await connection.close()


BARE: dict[str, Callable[[str], AbstractAsyncContextManager[Bare]]] = {
    "nats": _nats,
    "kafka": _kafka,
    "rabbitmq": _rabbitmq,
}
