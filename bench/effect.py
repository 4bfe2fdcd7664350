"""Measure the time from a POST in one generated service to its effect in another, and compare it with bare clients.

`make bench-effect`, or for one broker `make bench-effect ARGS="kafka --rounds 1"`. Billing stores an invoice and publishes
it; ledger consumes the event and stores its copy. Both export every trace to a local OTLP receiver. bare_pair.py makes the
same commits in the database, and has no telemetry.

- Latency: from the start of a request, at a steady rate, until the copy is committed. A trigger of the database tells the benchmark.
- Rate: wrk sends requests for some seconds, and the clock stops when the last copy is there.
- CPU: of all processes of the two services, divided by the number of requests.

The two pairs run in alternate rounds, and medians are shown.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from urllib.parse import urlsplit

import asyncpg
import httpx2
from chassis.dev.embedded import temporary_postgres

from bench.process import REPORT, App
from bench.sink import Sink, sink
from tests.support import brokers
from tests.support.leftovers import clean_up_after_this_process
from tests.support.pair import AGGREGATES, HANDLER

ROOT = Path(__file__).parents[1]
INVOICES = "/v1/invoices"
INVOICE = {"number": "2027-0001", "total": {"amount": 1250, "currency": "EUR"}}
RATE_PER_SECOND = 50
LIMIT_SECONDS = 120
NOTIFY = """
    CREATE FUNCTION ledger.notify_copied() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_notify('copied', NEW.id::text); RETURN NEW; END $$;
    CREATE TRIGGER copied AFTER INSERT ON ledger.invoices FOR EACH ROW EXECUTE FUNCTION ledger.notify_copied();
"""


@dataclass(frozen=True)
class Pair:
    """Two applications that do the same work: the process that takes requests, and the others."""

    name: str
    server: App
    others: list[App]
    copies: str
    """The URL of the database with the effects."""

    def cpu_seconds(self) -> float:
        return sum(app.cpu_seconds() for app in (self.server, *self.others))


def main() -> None:
    clean_up_after_this_process()
    parser = argparse.ArgumentParser(prog="bench.effect", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("brokers", nargs="*", default=["nats"], help=f"some of {', '.join(brokers.BROKERS)}")
    parser.add_argument("--rounds", type=int, default=3, help="for each pair (default %(default)s)")
    parser.add_argument("--seconds", type=int, default=3, help="of each load (default %(default)s)")
    options = parser.parse_args()
    if unknown := set(options.brokers) - set(brokers.BROKERS):
        parser.error(f"no such broker: {', '.join(sorted(unknown))}; choose from {', '.join(brokers.BROKERS)}")
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: install it (Debian: apt install wrk)")
    for name in options.brokers:
        with ExitStack() as stack:
            server, receiver = stack.enter_context(temporary_postgres()), stack.enter_context(sink())
            broker = stack.enter_context(brokers.BROKERS[name]())
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            pairs = prepare(folder, name, server, broker.url, receiver)
            for pair in pairs:  # the consumers first: RabbitMQ keeps no message for a queue that has never existed
                for app in (*pair.others, pair.server):
                    stack.enter_context(app.running())
            rounds = asyncio.run(measure(pairs, receiver, folder, options.rounds, options.seconds))
            print(f"\n{name}\n{table(rounds)}")


def prepare(folder: Path, broker: str, server: str, broker_url: str, receiver: Sink) -> list[Pair]:
    """Make two services from this checkout, and a database with their tables for each application."""
    common = {"BROKER_URL": broker_url, "DRAIN_SECONDS": "0"}
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, **common}
    urls = {name: asyncio.run(_created(server, name)) for name in ("billing", "ledger", "bare_billing", "bare_ledger")}
    service = {}
    for name in AGGREGATES:
        answers = {"service_name": name, "aggregates": AGGREGATES[name], "messaging_style": "events", "broker": broker}
        given = [part for key, value in {**answers, "auth": "none"}.items() for part in ("-d", f"{key}={value}")]
        copier = [sys.executable, "-m", "copier", "copy", "--quiet", "--defaults", "--vcs-ref", "HEAD"]
        subprocess.run([*copier, *given, str(ROOT), str(folder / name)], check=True)
        if name == "ledger":
            (folder / "ledger/src/ledger/messaging/billing.py").write_text(HANDLER)
        service[name] = {"PYTHONPATH": str(folder / name / "src"), "DATABASE_URL": urls[name], **traced}
        for database in (name, f"bare_{name}"):
            environment = os.environ | service[name] | {"DATABASE_URL": urls[database]}
            migrate = [sys.executable, "-m", name, "migrate"]
            subprocess.run(migrate, env=environment, stdout=subprocess.DEVNULL, check=True)
    for database in ("ledger", "bare_ledger"):
        asyncio.run(_execute(urls[database], NOTIFY))

    uvicorn = [sys.executable, "-m", "uvicorn", "bench.bare_pair:app", "--app-dir", str(ROOT), "--port", "PORT"]
    flags = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]

    def bare(role: str, database: str) -> App:
        return App(role, [*uvicorn, *flags], {**common, "ROLE": role, "DATABASE_URL": urls[database]})

    def ours(name: str, command: str) -> App:
        return App(f"{name} {command}", [sys.executable, "-m", name, command], service[name])

    services = Pair(
        "services", ours("billing", "serve"), [ours("ledger", "work"), ours("billing", "work")], urls["ledger"]
    )
    clients = Pair("bare", bare("send", "bare_billing"), [bare("consume", "bare_ledger")], urls["bare_ledger"])
    return [services, clients]


async def _created(server: str, name: str) -> str:
    await _execute(server, f"CREATE DATABASE {name}")
    return urlsplit(server)._replace(path=f"/{name}").geturl()


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


Rounds = dict[str, dict[str, list[float]]]
"""The measured values of all rounds, by the name of the pair and then by the name of the figure."""


async def measure(pairs: list[Pair], receiver: Sink, folder: Path, rounds: int, seconds: int) -> Rounds:
    """Measure all rounds, after a round of each pair that does not count."""
    script = folder / "post.lua"
    script.write_text(
        'wrk.headers["Content-Type"] = "application/json"\n'
        f'request = function() return wrk.format("POST", "{INVOICES}", nil, [[{json.dumps(INVOICE)}]]) end{REPORT}'
    )
    found: Rounds = {pair.name: {} for pair in pairs}
    for number in range(rounds + 1):
        for pair in pairs:
            spans = receiver.spans
            figures = await latency(pair, seconds) | await under_load(pair, script, seconds)
            if (receiver.spans > spans) != (pair is pairs[0]):
                raise SystemExit("each round of the services, and no other round, has to export spans")
            for figure, value in figures.items():
                if number:
                    found[pair.name].setdefault(figure, []).append(value)
    return found


async def latency(pair: Pair, seconds: int) -> dict[str, float]:
    """Send requests at a steady rate, and return the milliseconds until their effects."""
    began: dict[str, float] = {}
    copied: dict[str, float] = {}
    watching = await asyncpg.connect(pair.copies)
    await watching.add_listener("copied", lambda *noticed: copied.setdefault(noticed[3], time.perf_counter()))
    async with httpx2.AsyncClient(base_url=pair.server.url) as client, asyncio.TaskGroup() as tasks:

        async def post() -> None:
            start = time.perf_counter()
            answer = await client.post(INVOICES, json=INVOICE)
            began[answer.raise_for_status().json()["id"]] = start

        for _ in range(RATE_PER_SECOND * seconds):
            tasks.create_task(post())
            await asyncio.sleep(1 / RATE_PER_SECOND)
    async with asyncio.timeout(LIMIT_SECONDS):
        while not began.keys() <= copied.keys():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await watching.close()
    took = [(copied[invoice] - start) * 1000 for invoice, start in began.items()]
    return {"latency p50, ms": median(took), "latency p99, ms": quantiles(took, n=100)[98]}


async def under_load(pair: Pair, script: Path, seconds: int) -> dict[str, float]:
    """Let wrk send requests, wait for all effects, and return the rate and the CPU of one request."""
    connection = await asyncpg.connect(pair.copies)
    count = "SELECT count(*) FROM ledger.invoices"
    before, cpu, began = await connection.fetchval(count), pair.cpu_seconds(), time.perf_counter()
    sent, *_ = await asyncio.to_thread(pair.server.wrk, script, seconds)
    async with asyncio.timeout(LIMIT_SECONDS):
        while (copied := await connection.fetchval(count) - before) < sent:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    took = time.perf_counter() - began
    await asyncio.sleep(1.5)  # the last spans leave within a second
    await connection.close()
    return {"requests and effects per second": copied / took, "CPU, µs": (pair.cpu_seconds() - cpu) / copied * 1e6}


def table(rounds: Rounds) -> str:
    """Format the medians, and the ratio of the services to the bare clients."""
    lines = [f"{'':34}{'services':>10}{'bare':>10}{'ratio':>8}"]
    for figure in rounds["services"]:
        ours, bare = (median(rounds[name][figure]) for name in ("services", "bare"))
        lines.append(f"{figure:34}{ours:10.4g}{bare:10.4g}{ours / bare:8.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
