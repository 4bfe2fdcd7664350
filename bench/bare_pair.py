"""Two applications without a chassis, for comparison: one takes a POST and publishes an event, the other consumes it.

They make the same commits as two generated services: the row and its outbox row, the deletion of sent outbox rows, the
claim of the message with the effect. They use each library as its documentation shows, and have no telemetry, attempts,
time limits, versions or order by key. One process is the sender and its relay. `ROLE` is `send` or `consume`.
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import aiormq
import asyncpg
import nats
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from fastapi import FastAPI
from nats.js.api import StreamConfig
from pydantic import BaseModel
from uuid_utils.compat import uuid7

NAME = "bare.invoice-saved.v1"
BATCH = 100

INSERT = """
    INSERT INTO {schema}.invoices
        (id, number, total_amount, total_currency, status, version, created_at, updated_at)
    VALUES ($1, $2, $3, $4, 'draft', 1, $5, $5)
"""
STORE = """
    INSERT INTO chassis.outbox (id, kind, aggregatetype, aggregateid, type, payload)
    VALUES ($1, 'event', 'invoice', $2, $3, $4)
"""
FORGET = "DELETE FROM chassis.outbox WHERE id = ANY($1::uuid[])"
CLAIM = """
    INSERT INTO chassis.inbox (message_id, name) SELECT id, $2 FROM unnest($1::text[]) AS id
    ON CONFLICT DO NOTHING RETURNING message_id
"""

Publish = Callable[[str, bytes], Awaitable[object]]
Handle = Callable[[list[tuple[str, bytes]]], Awaitable[None]]


class Money(BaseModel):
    amount: int
    currency: str


class Invoice(BaseModel):
    number: str
    total: Money


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    broker = BROKERS[urlsplit(os.environ["BROKER_URL"]).scheme]
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=4, max_size=10))
        app.state.pool, app.state.stored = pool, asyncio.Queue()
        publish, consume = await stack.enter_async_context(broker(os.environ["BROKER_URL"]))
        if os.environ["ROLE"] == "send":
            work = relay(app.state.stored, pool, publish)
        else:
            work = consume(lambda messages: commit_effects(pool, messages))
        task = asyncio.create_task(work)
        yield
        task.cancel()


app = FastAPI(lifespan=lifespan)


@app.get("/livez")
async def livez() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/v1/invoices", status_code=201)
async def create_invoice(body: Invoice) -> dict[str, Any]:
    identity, now = uuid7(), datetime.now(UTC)
    saved = {"invoice_id": str(identity), **body.model_dump(), "created_at": now.isoformat()}
    payload = json.dumps(saved)
    async with app.state.pool.acquire() as connection, connection.transaction():
        total = body.total
        await connection.execute(
            INSERT.format(schema="billing"), identity, body.number, total.amount, total.currency, now
        )
        await connection.execute(STORE, identity, str(identity), NAME, payload)
    app.state.stored.put_nowait((identity, payload.encode()))
    return {"id": str(identity), **body.model_dump(), "status": "draft", "version": 1}


async def relay(stored: asyncio.Queue[tuple[UUID, bytes]], pool: asyncpg.Pool, publish: Publish) -> None:
    while True:
        batch = await _waiting(stored)
        await asyncio.gather(*(publish(str(identity), body) for identity, body in batch))
        await pool.execute(FORGET, [identity for identity, _ in batch])


async def commit_effects(pool: asyncpg.Pool, messages: list[tuple[str, bytes]]) -> None:
    bodies = dict(messages)
    async with pool.acquire() as connection, connection.transaction():
        for (identity,) in await connection.fetch(CLAIM, list(bodies), NAME):
            saved = json.loads(bodies[identity])
            total, created_at = saved["total"], datetime.fromisoformat(saved["created_at"])
            values = (UUID(saved["invoice_id"]), saved["number"], total["amount"], total["currency"], created_at)
            await connection.execute(INSERT.format(schema="ledger"), *values)


async def _waiting(queue: asyncio.Queue[Any]) -> list[Any]:
    """Wait for an entry of the queue, and take all entries that are present, up to a batch."""
    found = [await queue.get()]
    while len(found) < BATCH and not queue.empty():
        found.append(queue.get_nowait())
    return found


Parts = tuple[Publish, Callable[[Handle], Awaitable[None]]]


@asynccontextmanager
async def _nats(url: str) -> AsyncGenerator[Parts]:
    client = await nats.connect(url)
    stream = client.jetstream()
    await stream.add_stream(StreamConfig(name="bare", subjects=[NAME]))

    async def consume(handle: Handle) -> None:
        arrived: asyncio.Queue[Any] = asyncio.Queue()
        await stream.subscribe(NAME, durable="bench", cb=arrived.put, manual_ack=True)
        while True:
            messages = await _waiting(arrived)
            await handle([(message.headers["id"], message.data) for message in messages])
            for message in messages:
                await message.ack()

    yield lambda identity, body: stream.publish(NAME, body, headers={"id": identity}), consume
    await client.close()


@asynccontextmanager
async def _kafka(url: str) -> AsyncGenerator[Parts]:
    address = urlsplit(url).netloc
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    await admin.create_topics([NewTopic(NAME, num_partitions=12, replication_factor=1)])
    await admin.close()
    options = {"group_id": "bench", "enable_auto_commit": False, "auto_offset_reset": "earliest"}

    async def consume(handle: Handle) -> None:
        async with AIOKafkaConsumer(NAME, bootstrap_servers=address, **options) as consumer:
            while True:
                found = await consumer.getmany(timeout_ms=1000, max_records=BATCH)
                records = [record for some in found.values() for record in some]
                await handle([(record.key.decode(), record.value) for record in records])
                await consumer.commit()

    async with AIOKafkaProducer(bootstrap_servers=address, acks="all", enable_idempotence=True) as producer:
        yield lambda identity, body: producer.send_and_wait(NAME, body, key=identity.encode()), consume


@asynccontextmanager
async def _rabbitmq(url: str) -> AsyncGenerator[Parts]:
    connection = await aiormq.connect(url)
    channel = await connection.channel(publisher_confirms=True)
    await channel.basic_qos(prefetch_count=1000)
    await channel.queue_declare(NAME, durable=True, arguments={"x-queue-type": "quorum"})

    def publish(identity: str, body: bytes) -> Awaitable[object]:
        properties = aiormq.spec.Basic.Properties(delivery_mode=2, message_id=identity)
        return channel.basic_publish(body, routing_key=NAME, properties=properties)

    async def consume(handle: Handle) -> None:
        arrived: asyncio.Queue[Any] = asyncio.Queue()
        await channel.basic_consume(NAME, arrived.put)
        while True:
            messages: Sequence[Any] = await _waiting(arrived)
            await handle([(one.header.properties.message_id, one.body) for one in messages])
            await channel.basic_ack(messages[-1].delivery.delivery_tag, multiple=True, wait=False)

    yield publish, consume
    await connection.close()


BROKERS: dict[str, Callable[[str], AbstractAsyncContextManager[Parts]]] = {
    "nats": _nats,
    "kafka": _kafka,
    "amqp": _rabbitmq,
}
