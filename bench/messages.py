"""Measure relay and consumer against each broker's own client, in one run.

`make bench-messages`, or `.venv/bin/python -m bench.messages nats --events 20000`. The same bodies are published by the
bare client (with confirmation, 500 at a time) and by the relay, from the outbox. The relay's events are then consumed by
the bare client and by our consumer, with the same statements for inbox and effect in transactions of the same size.
Rounds alternate, medians are shown; read the ratios. CPU is that of our process alone. Latency is from
the commit in one service to the row that another service wrote, at 100 events a second, with NOTIFY and by polling alone.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from statistics import median, quantiles
from typing import NamedTuple
from unittest import mock
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import uvloop
from chassis.brokers import Broker, Kind, Options, broker_for
from chassis.database import Database, migrate
from chassis.dev.embedded import temporary_postgres
from chassis.messaging import relay
from chassis.messaging.consumer import Consumer
from chassis.messaging.outbox import Outbox
from chassis.messaging.relay import Relay
from chassis.messaging.retry_policy import RetryPolicy
from chassis.messaging.topology import topology_of
from chassis.telemetry.setup import Telemetry
from chassis.web.server import spare_collector
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from pydantic import SecretStr

from bench.bare_clients import BARE, LANES
from tests.service.chaos.counter.main import SERVICE as COUNTER
from tests.service.chaos.journal.main import SERVICE as JOURNAL
from tests.support import brokers
from tests.support.leftovers import clean_up_after_this_process

NAME = "counter.stepped.v1"
KEYS = 1000
RATE_PER_SECOND = 100
LATENCY_SECONDS = 10
# Whether the relay has connected and waits for rows. The bare client is connected before its time starts, too.
RELAY_WAITS = """
    SELECT EXISTS (
        SELECT FROM pg_stat_activity WHERE application_name = 'counter-relay' AND query LIKE '%chassis.outbox%'
    )
"""
# The query looks for the last row: on its way to the first row, the server would pass over all deleted rows.
OUTBOX_IS_EMPTY = "SELECT (SELECT seq FROM chassis.outbox ORDER BY seq DESC LIMIT 1) IS NULL"
PROMISES = {
    "nats": "relay 5000/s and half of the bare client; consumer 0.6, and 3000/s; p50 25 ms",
    "kafka": "relay 0.7 of the bare client; consumer 0.6, and 3000/s; p50 25 ms",
    "rabbitmq": "relay half of the bare client; consumer 0.6, and 3000/s; p50 25 ms",
}
TELEMETRY = Telemetry(Resource({}), sampler=ALWAYS_OFF, span_processors=[], metric_readers=[])


def main() -> None:
    clean_up_after_this_process()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("brokers", nargs="*", default=list(brokers.BROKERS), help="default: %(default)s")
    parser.add_argument("--events", type=int, default=10_000, help="per round (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    options = parser.parse_args()
    with temporary_postgres() as server:
        urls = {}
        for service in (COUNTER, JOURNAL):
            urls[service.name] = urlsplit(server)._replace(path=f"/{service.name}").geturl()
            asyncio.run(_create(server, service.name))
            migrate.upgrade(service, urls[service.name])
        for name in options.brokers:
            with brokers.BROKERS[name]() as broker:
                uvloop.run(measure(name, broker.url, urls, options.events, options.rounds))


async def _create(server: str, name: str) -> None:
    connection = await asyncpg.connect(server)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()


async def measure(name: str, broker_url: str, urls: dict[str, str], events: int, rounds: int) -> None:
    print(f"\n{name} ({PROMISES[name]})")
    sender = await _connected(broker_url, "counter")
    # The queues must exist before the first message: RabbitMQ keeps nothing for a queue that is declared later.
    await (await _connected(broker_url, "journal")).close()
    rates: dict[str, list[Rate]] = {"bare publish": [], "relay": [], "bare consume": [], "consumer": []}
    async with (
        BARE[name](broker_url) as bare,
        _database(urls["counter"]) as counter,
        _database(urls["journal"]) as journal,
        asyncpg.create_pool(urls["journal"], min_size=LANES, max_size=LANES) as pool,
    ):
        for _ in range(rounds):
            bodies = [
                json.dumps({"name": f"k{number % KEYS}", "step": number, "ballast": ""}).encode()
                for number in range(events)
            ]
            rates["bare publish"].append(await _rate(events, bare.publish(bodies)))
            async with _running(Relay(urls["counter"], sender, TELEMETRY, name="counter").run):
                await _until(counter, RELAY_WAITS)
                await _fill_outbox(counter, events)
                rates["relay"].append(await _rate(events, _until(counter, OUTBOX_IS_EMPTY, every=0.01)))
            await _empty(journal)
            rates["bare consume"].append(await _rate(events, bare.consume(events, pool)))
            await _empty(journal)
            receiver = await _connected(broker_url, "journal")
            async with _running(_consumer(receiver, journal, urls["journal"]).run):
                rates["consumer"].append(await _rate_of_consumer(journal, events))
            await receiver.close()
        for ours, theirs in (("relay", "bare publish"), ("consumer", "bare consume")):
            _show(ours, rates[ours], rates[theirs])
        receiver = await _connected(broker_url, "journal")
        async with _running(_consumer(receiver, journal, urls["journal"]).run):
            for how, poll, channel in (
                ("NOTIFY", 1.0, relay.CHANNEL),
                ("poll 0.1 s", 0.1, "deaf"),
                ("poll 1 s", 1.0, "deaf"),
            ):
                with mock.patch.multiple(relay, POLL_SECONDS=poll, CHANNEL=channel):
                    async with _running(Relay(urls["counter"], sender, TELEMETRY, name="counter").run):
                        latencies = await _latencies(counter, journal)
                p99 = quantiles(latencies, n=100)[98]
                print(
                    f"  commit to effect at {RATE_PER_SECOND}/s, {how:10}  p50 {median(latencies):6.1f} ms   p99 {p99:6.1f} ms"
                )
        await receiver.close()
    await sender.close()


async def _connected(url: str, service: str) -> Broker:
    broker = broker_for(Options(url=SecretStr(url), client_name=service))
    await broker.connect()
    # Both sides declare, as in production; the first makes what is missing.
    for each in (COUNTER, JOURNAL):
        if each.name == service:
            await broker.declare(topology_of(each.messages))
    return broker


@asynccontextmanager
async def _database(url: str) -> AsyncGenerator[Database]:
    async with Database(
        SecretStr(url), pool_size=10, name="bench", command_timeout_seconds=30, outbox=Outbox(COUNTER.messages)
    ) as database:
        yield database


def _consumer(broker: Broker, database: Database, url: str) -> Consumer:
    return Consumer(
        Kind.EVENT,
        broker,
        database,
        JOURNAL.messages,
        TELEMETRY,
        database_url=url,
        retry_policy=RetryPolicy(max_attempts=5, handler_timeout_seconds=30),
    )


@contextmanager
def _as_served() -> Generator[None]:
    """Set the garbage collector as in a service's process. The bare client keeps Python's settings, as documented."""
    before = gc.get_threshold()
    spare_collector()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@asynccontextmanager
async def _running(loop: Callable[[asyncio.Event], Awaitable[None]]) -> AsyncGenerator[None]:
    stop = asyncio.Event()
    with _as_served():
        task = asyncio.ensure_future(loop(stop))
        try:
            yield
        finally:
            stop.set()
            await task


class Rate(NamedTuple):
    """Events per second, and microseconds of this process's CPU for each."""

    speed: float
    cpu: float


async def _rate(events: int, work: Awaitable[None]) -> Rate:
    started, cpu = time.perf_counter(), time.process_time()
    await work
    return Rate(events / (time.perf_counter() - started), (time.process_time() - cpu) / events * 1e6)


async def _rate_of_consumer(journal: Database, events: int) -> Rate:
    """Measure from the first effect on, so that the time for connecting does not count, as for the bare client."""
    await _until(journal, "SELECT EXISTS (TABLE journal.entries)")
    ((done,),) = await journal.fetch("SELECT count(*) FROM journal.entries")
    return await _rate(events - done, _until(journal, f"SELECT count(*) >= {events} FROM journal.entries"))


def _show(name: str, ours: list[Rate], theirs: list[Rate]) -> None:
    our, their = (Rate(*map(median, zip(*rates, strict=True))) for rates in (ours, theirs))
    print(
        f"  {name:8} {our.speed:7.0f}/s   bare client {their.speed:7.0f}/s   ratio {our.speed / their.speed:.2f}",
        end="",
    )
    print(f"   CPU {our.cpu:4.0f} and {their.cpu:4.0f} µs, ratio {their.cpu / our.cpu:.2f}")


async def _empty(journal: Database) -> None:
    await journal.execute("TRUNCATE journal.entries, chassis.inbox")


async def _fill_outbox(database: Database, events: int) -> None:
    await database.execute(
        "INSERT INTO chassis.outbox (id, kind, aggregatetype, aggregateid, type, payload, traceparent) "
        "SELECT gen_random_uuid(), 'event', 'counter', 'k' || n % $2, $3, "
        "json_build_object('name', 'k' || n % $2, 'step', n, 'ballast', ''), "
        "'00-' || md5(n::text) || '-' || left(md5(n::text), 16) || '-00' FROM generate_series(1, $1) AS n",
        events,
        KEYS,
        NAME,
    )


async def _until(database: Database, question: str, *, every: float = 0.05) -> None:
    async with asyncio.timeout(120):
        while not (await database.fetchrow(question))[0]:  # noqa: ASYNC110
            await asyncio.sleep(every)


async def _latencies(counter: Database, journal: Database) -> list[float]:
    """Milliseconds between the commit of an event and the row that its listener wrote."""
    await journal.execute("TRUNCATE journal.entries")
    committed: dict[int, float] = {}
    total = RATE_PER_SECOND * LATENCY_SECONDS
    insert = (
        "INSERT INTO chassis.outbox (id, kind, aggregatetype, aggregateid, type, payload) "
        "VALUES ($1, 'event', 'counter', $2, $3, $4)"
    )
    began = time.perf_counter()
    for number in range(total):
        name = f"k{number % KEYS}"
        await counter.execute(insert, uuid4(), name, NAME, json.dumps({"name": name, "step": number, "ballast": ""}))
        committed[number] = time.time()
        await asyncio.sleep(max(0, began + (number + 1) / RATE_PER_SECOND - time.perf_counter()))
    await _until(journal, f"SELECT count(*) >= {total} FROM journal.entries")
    rows = await journal.fetch("SELECT step, extract(epoch FROM written_at)::float8 FROM journal.entries")
    return [(written - committed[step]) * 1000 for step, written in rows]


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
