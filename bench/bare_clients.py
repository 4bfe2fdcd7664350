"""The brokers' own clients, used as their documentation shows: what relay and consumer are compared with."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiormq
import nats
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from nats.js.api import ConsumerConfig, StreamConfig

NAME = "bare.bench"
AT_A_TIME = 500


class Bare(Protocol):
    async def publish(self, bodies: Sequence[bytes]) -> None: ...
    async def consume(self, count: int) -> None: ...


async def _in_turns(publish: Callable[[bytes], Any], bodies: Sequence[bytes]) -> None:
    for start in range(0, len(bodies), AT_A_TIME):
        await asyncio.gather(*(publish(body) for body in bodies[start : start + AT_A_TIME]))


class _Nats:
    def __init__(self, stream: Any, subscription: Any) -> None:
        self._stream = stream
        self._subscription = subscription

    async def publish(self, bodies: Sequence[bytes]) -> None:
        await _in_turns(lambda body: self._stream.publish(NAME, body), bodies)

    async def consume(self, count: int) -> None:
        while count > 0:
            for message in await self._subscription.fetch(AT_A_TIME, timeout=10):
                await message.ack()
                count -= 1


@asynccontextmanager
async def _nats(url: str) -> AsyncGenerator[Bare]:
    client = await nats.connect(url)
    stream = client.jetstream()
    await stream.add_stream(StreamConfig(name="bare", subjects=[NAME]))
    subscription = await stream.pull_subscribe(NAME, "bench", config=ConsumerConfig(max_ack_pending=10_000))
    yield _Nats(stream, subscription)
    await client.close()


class _Kafka:
    def __init__(self, producer: Any, consumer: Any) -> None:
        self._producer = producer
        self._consumer = consumer

    async def publish(self, bodies: Sequence[bytes]) -> None:
        await _in_turns(lambda body: self._producer.send_and_wait(NAME, body), bodies)

    async def consume(self, count: int) -> None:
        while count > 0:
            found = await self._consumer.getmany(timeout_ms=1000, max_records=AT_A_TIME)
            count -= sum(map(len, found.values()))
            await self._consumer.commit()


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
            NAME,
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

    async def consume(self, count: int) -> None:
        done = asyncio.Event()
        seen = 0

        async def take(message: Any) -> None:
            nonlocal seen
            await self._channel.basic_ack(message.delivery.delivery_tag, wait=False)
            seen += 1
            if seen == count:
                done.set()

        started = await self._channel.basic_consume(NAME, take)
        await done.wait()
        await self._channel.basic_cancel(started.consumer_tag)


@asynccontextmanager
async def _rabbitmq(url: str) -> AsyncGenerator[Bare]:
    connection = await aiormq.connect(url)
    channel = await connection.channel(publisher_confirms=True)
    await channel.basic_qos(prefetch_count=AT_A_TIME)
    await channel.queue_declare(NAME, durable=True, arguments={"x-queue-type": "quorum"})
    yield _RabbitMq(channel)
    await connection.close()


BARE: dict[str, Callable[[str], AbstractAsyncContextManager[Bare]]] = {
    "nats": _nats,
    "kafka": _kafka,
    "rabbitmq": _rabbitmq,
}
