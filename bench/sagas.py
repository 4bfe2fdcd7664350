"""Measure sagas: a backlog of orders on NATS, and the cost of sagas that wait.

`make bench-sagas`, or `make bench-sagas ARGS="--workers 3 --sagas 600"`. The orders are the orders of tests/service/chaos, with steps
that take no time: reserve stock, request payment from another service, wait for its answer, confirm. All orders are stored
before the workers start, and the time counts from the first effect to the last saga's end. Then `--waiting` sagas wait for an
answer for days: the output shows the size of the table, each statement of the sweep, and the start of a worker.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import psutil
from chassis.database import Database, migrate
from chassis.dev.embedded import temporary_postgres
from chassis.messaging.outbox import Outbox
from chassis.sagas import rows
from chassis.sagas.sweep import BATCH, Sweep
from chassis.telemetry.setup import Telemetry
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from pydantic import SecretStr

from tests.service.chaos.bank import main as bank
from tests.service.chaos.shop import main as shop
from tests.service.chaos.system import Part, create
from tests.support import brokers
from tests.support.leftovers import clean_up_after_this_process

LIMIT_SECONDS = 300
IDLE, KEEP = timedelta(minutes=1), timedelta(days=30)
TELEMETRY = Telemetry(Resource({}), sampler=ALWAYS_OFF, span_processors=[], metric_readers=[])
FIRST_PAID = bank.KINDS
ENDED = "SELECT count(*) FROM chassis.sagas WHERE ended_at IS NOT NULL"
FILL = """
    INSERT INTO chassis.sagas (id, name, key, version, state, position, turn, params, steps, deadline, due_at, ended_at)
    SELECT gen_random_uuid(), 'place-order', $3 || n, 1, $2, 'CardChargedV1 | CardRefusedV1', 2, json_build_object('number', n), $4,
        now() + interval '3 days', CASE WHEN $2 = 'waiting' THEN now() + interval '3 days' END,
        CASE WHEN $2 = 'completed' THEN now() END
    FROM generate_series(1, $1) AS n
"""
FILL_OUTBOX = """
    INSERT INTO chassis.outbox (id, kind, aggregatetype, aggregateid, type, payload, not_before)
    SELECT gen_random_uuid(), 'job', 'advance-saga', id::text, 'shop.advance-saga.v1',
        json_build_object('saga_id', id, 'turn', turn), deadline FROM chassis.sagas WHERE state = 'waiting'
"""
SIZE = "SELECT pg_total_relation_size('chassis.sagas') / 1e6, pg_total_relation_size('chassis.outbox') / 1e6"


def main() -> None:
    clean_up_after_this_process()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sagas", type=int, default=600, help="the backlog (default %(default)s)")
    parser.add_argument("--workers", type=int, default=3, help="workers that run sagas (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    parser.add_argument("--waiting", type=int, default=100_000, help="sagas that wait (default %(default)s)")
    options = parser.parse_args()
    with temporary_postgres() as server, brokers.BROKERS["nats"]() as broker, tempfile.TemporaryDirectory() as folder:
        urls = {name: urlsplit(server)._replace(path=f"/{name}").geturl() for name in ("shop", "bank")}
        asyncio.run(create(server, list(urls)))
        for service in (shop.SERVICE, bank.SERVICE):
            migrate.upgrade(service, urls[service.name])
        found = [backlog(urls, broker.url, Path(folder), options.workers, options.sagas) for _ in range(options.rounds)]
        rate, cpu = (median(values) for values in zip(*found, strict=True))
        print(
            f"{options.sagas} sagas, {options.workers} workers: {rate:,.0f} a minute, {cpu:.1f} ms of CPU of the workers for each"
        )
        print(f"start of a worker, no saga waits: {started(urls, broker.url, Path(folder)):.2f} s")
        asyncio.run(wait(urls["shop"], options.waiting))
        print(f"start of a worker, {options.waiting:,} sagas wait: {started(urls, broker.url, Path(folder)):.2f} s")


def worker(name: str) -> int:
    """Run a worker whose steps take no time, or a bank that charges each card at once."""
    from chassis.commands import main as command_line

    shop.LONGEST_STEP_SECONDS = shop.FAILING_SHARE = 0
    bank.KINDS = sys.maxsize
    sys.argv[1:] = ["work"]
    return command_line({"shop": shop.SERVICE, "bank": bank.SERVICE}[name])


@contextmanager
def workers(urls: dict[str, str], broker_url: str, folder: Path, names: list[str]) -> Generator[list[Part]]:
    parts = []
    for name in names:
        settings = {"DATABASE_URL": urls[name], "BROKER_URL": broker_url, "HTTP_PORT": str(brokers.free_port())}
        program = [sys.executable, "-m", "bench.sagas", "--work", name]
        parts.append(Part(program, folder / f"{len(parts)}.log", **settings, LOG_LEVEL="info", DRAIN_SECONDS="0"))
    try:
        for part in parts:
            (folder / f"{parts.index(part)}.log").unlink(missing_ok=True)
            part.start()
        yield parts
    finally:
        for part in parts:
            part.stop()


def backlog(urls: dict[str, str], broker_url: str, folder: Path, count: int, sagas: int) -> tuple[float, float]:
    """Return the sagas in a minute, and the milliseconds of CPU of all workers for each."""
    asyncio.run(fill(urls["shop"], sagas))
    with workers(urls, broker_url, folder, ["bank", *["shop"] * count]) as parts:
        seconds, cpu = asyncio.run(finish(urls["shop"], sagas, parts))
    return sagas / seconds * 60, cpu / sagas * 1000


@asynccontextmanager
async def database(url: str) -> AsyncGenerator[Database]:
    outbox = Outbox(shop.messages_of(1))
    async with Database(
        SecretStr(url), pool_size=2, name="bench", command_timeout_seconds=120, outbox=outbox
    ) as opened:
        yield opened


async def fill(url: str, sagas: int) -> None:
    async with database(url) as opened:
        await opened.execute("TRUNCATE chassis.sagas, chassis.outbox, chassis.inbox, shop.done")
        for first in range(0, sagas, 100):
            async with opened.unit_of_work() as uow:
                for number in range(first + FIRST_PAID, min(first + 100, sagas) + FIRST_PAID):
                    await uow.start("place-order", shop.PlaceOrder(number), key=str(number))


async def finish(url: str, sagas: int, parts: list[Part]) -> tuple[float, float]:
    async with database(url) as opened:
        await _until(opened, "SELECT EXISTS (TABLE shop.done)")
        began, cpu = time.perf_counter(), sum(map(_cpu, parts))
        await _until(opened, f"SELECT ({ENDED}) >= {sagas}")
        return time.perf_counter() - began, sum(map(_cpu, parts)) - cpu


def _cpu(part: Part) -> float:
    processes = [psutil.Process(part.pid), *psutil.Process(part.pid).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


async def _until(opened: Database, question: str) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not (await opened.fetchrow(question))[0]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def wait(url: str, waiting: int) -> None:
    """Let sagas wait, and show their cost."""
    steps = json.dumps(
        [{"name": name, "at": "2026-11-30T12:00:00+00:00", "result": None} for name in ("reserve", "request")]
    )
    async with database(url) as opened:
        await opened.execute("TRUNCATE chassis.sagas, chassis.outbox, chassis.inbox")
        await opened.execute(FILL, waiting, "waiting", "waiting ", steps)
        await opened.execute(FILL_OUTBOX)
        await opened.execute("ANALYZE chassis.sagas, chassis.outbox")
        sagas, outbox = await opened.fetchrow(SIZE)
        print(f"{waiting:,} waiting sagas: table {sagas:.0f} MB, their delayed jobs in the outbox {outbox:.0f} MB")
        await _show_sweep(opened)
        ended = waiting * 4
        await opened.execute(FILL, ended, "completed", "completed ", steps)
        await opened.execute("ANALYZE chassis.sagas")
        print(f"with {ended:,} ended sagas, which are kept for 30 days:")
        await _show_sweep(opened)
        await opened.execute("UPDATE chassis.sagas SET due_at = now() WHERE ended_at IS NULL")
        began = time.perf_counter()
        swept = await Sweep(opened, shop.messages_of(1).sagas, TELEMETRY).sweep()
        seconds = time.perf_counter() - began
        print(
            f"  all are idle at once: {swept:,} jobs in {seconds:.1f} s, {seconds / swept * BATCH * 1000:.0f} ms a batch"
        )
        await opened.execute("DELETE FROM chassis.outbox WHERE not_before IS NULL")


async def _show_sweep(opened: Database) -> None:
    for name, statement, arguments in (
        ("find idle sagas", rows.SWEEP, (IDLE, BATCH, datetime.now(UTC))),
        ("measure", rows.MEASURE, ()),
        ("forget", rows.FORGET, (KEEP,)),
    ):
        times = []
        for _ in range(5):
            began = time.perf_counter()
            await opened.fetch(statement, *arguments)
            times.append((time.perf_counter() - began) * 1000)
        print(f"  {name}: {median(times):.1f} ms")


def started(urls: dict[str, str], broker_url: str, folder: Path) -> float:
    """Return the seconds until a worker of shop consumes."""
    began = time.perf_counter()
    with workers(urls, broker_url, folder, ["shop"]):
        while "consumer_started" not in (folder / "0.log").read_text():
            if time.perf_counter() - began > LIMIT_SECONDS:
                raise TimeoutError((folder / "0.log").read_text())
            time.sleep(0.02)
        return time.perf_counter() - began


if __name__ == "__main__":
    if "--work" in sys.argv:
        raise SystemExit(worker(sys.argv[-1]))
    main()
