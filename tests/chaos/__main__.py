"""Kill -9 every part of two talking services, under load, in random order; then count.

    python -m tests.chaos nats --kills 30 --seed 7

Parts: the service, the relay, the consumer, the broker, PostgreSQL. Events lost, effects that happened twice and steps
out of order must all be 0. The exit status says whether they are. The run is bounded: kills, then a drain with a
deadline.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import httpx
from chassis import embedded

from tests import brokers

ROOT = Path(__file__).parents[2]
START_TIMEOUT_SECONDS = 120
DRAIN_TIMEOUT_SECONDS = 240
COUNTERS = 20
REQUESTS_PER_SECOND = 60


class Postgres:
    """A durable server that can be killed and comes back on its port with its data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = brokers.free_port()
        self._running = contextlib.ExitStack()
        self.url = ""

    def start(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            try:
                self.url = self._running.enter_context(embedded.postgres(self._folder, durable=True, port=self._port))
                return
            except embedded.EmbeddedServerError:  # children of the one that was killed are still leaving
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def kill(self) -> None:
        pid = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        self._running.close()

    def stop(self) -> None:
        self._running.close()


class Part:
    """One process of a service."""

    def __init__(self, service: str, command: str, log: Path, **settings: str) -> None:
        self._arguments = [sys.executable, "-m", f"tests.chaos.{service}", command]
        self._log = log
        self._settings = settings
        self._process: embedded.Process | None = None

    def start(self) -> None:
        ours = {name: it for name, it in os.environ.items() if not name.startswith(("OTEL_", "PYTEST_"))}
        with self._log.open("ab") as output:
            self._process = embedded.spawn(
                self._arguments,
                stop_signal=signal.SIGTERM,
                cwd=ROOT,
                env={**ours, "PYTHONPATH": str(ROOT), **self._settings},
                stdout=output,
                stderr=output,
            )

    def kill(self) -> None:
        assert self._process is not None
        os.kill(self._process.child.pid, signal.SIGKILL)
        self._process.stop()

    def stop(self) -> int:
        """Ask it to end, and wait until it has. Returns its exit status."""
        assert self._process is not None
        self._process.stop()
        return self._process.child.wait()


@dataclass
class System:
    """Everything that runs, by the name under which it is killed."""

    parts: dict[str, Part | Postgres | brokers.Broker]
    databases: dict[str, str]
    base: str
    folder: Path

    async def wait_until_up(self) -> None:
        """Until the service answers and the consumer listens: RabbitMQ keeps nothing for those who have never been there."""
        consumer = self.folder / "consumer.log"
        async with httpx.AsyncClient(base_url=self.base) as client:
            deadline = time.monotonic() + START_TIMEOUT_SECONDS
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.HTTPError):
                    ready = (await client.get("/readyz")).status_code == 200
                    if ready and "consumer_started" in consumer.read_text():
                        return
                await asyncio.sleep(0.05)
        raise RuntimeError(f"the service did not start:\n{self.logs()}")

    def logs(self) -> str:
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in sorted(self.folder.glob("*.log")))


@contextlib.contextmanager
def system(broker: str, **settings: str) -> Generator[System]:
    """All parts of the two services, started, on one PostgreSQL with a database each. Stopped on leaving.

    `settings` are those of every process.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True)))
        folder.chmod(0o755)
        running = stack.enter_context(brokers.BROKERS[broker]())
        postgres = Postgres(folder / "postgres")
        postgres.start()
        stack.callback(postgres.stop)
        databases = {name: urlsplit(postgres.url)._replace(path=f"/{name}").geturl() for name in ("counter", "journal")}
        asyncio.run(_create(postgres.url, list(databases)))
        port = str(brokers.free_port())

        def part(service: str, command: str, name: str, http_port: str) -> Part:
            return Part(
                service,
                command,
                folder / f"{name}.log",
                DATABASE_URL=databases[service],
                BROKER_URL=running.url,
                HTTP_PORT=http_port,
                DRAIN_SECONDS="0",
                **settings,
            )

        parts = {
            "service": part("counter", "serve", "service", port),
            "relay": part("counter", "work", "relay", str(brokers.free_port())),
            "consumer": part("journal", "work", "consumer", str(brokers.free_port())),
        }
        for service in databases:
            migration = part(service, "migrate", "migrate", port)
            migration.start()
            assert migration._process is not None
            if migration._process.child.wait(START_TIMEOUT_SECONDS) != 0:
                raise RuntimeError((folder / "migrate.log").read_text())
        for one in parts.values():
            one.start()
            stack.callback(one.stop)
        yield System({**parts, "broker": running, "postgres": postgres}, databases, f"http://127.0.0.1:{port}", folder)


async def _create(url: str, names: list[str]) -> None:
    connection = await asyncpg.connect(url)
    for name in names:
        await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()


@dataclass
class Count:
    """What came of a run. Only `committed` and `acknowledged` may be other than 0."""

    acknowledged: int = 0
    committed: int = 0
    forgotten: int = 0
    """Steps that were answered with 201 and are not in the database."""
    lost: int = 0
    """Committed steps without an effect."""
    twice: int = 0
    """Effects beyond the first of a step."""
    disordered: int = 0
    """Steps whose effect came after that of a later step of the same counter."""
    parked: int = 0
    kills: dict[str, int] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        wrong = self.forgotten + self.lost + self.twice + self.disordered + self.parked
        return self.committed > 0 and wrong == 0


async def load(base: str, stop: asyncio.Event, answered: dict[str, int]) -> None:
    """Take steps at a steady rate, on counters of its own, whatever happens to the answers."""
    mine = uuid4().hex[:8]
    limits = httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(base_url=base, timeout=10, limits=limits) as client, asyncio.TaskGroup() as tasks:

        async def step(name: str) -> None:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.post(f"/v1/counters/{name}/steps")).status_code == 201:
                    answered[name] = answered.get(name, 0) + 1

        number = 0
        while not stop.is_set():
            tasks.create_task(step(f"{mine}-{number % COUNTERS}"))
            number += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1 / REQUESTS_PER_SECOND)


async def torment(running: System, kills: int, dice: random.Random) -> dict[str, int]:
    """Kill a part, leave it dead for up to a second, start it again; `kills` times."""
    killed = dict.fromkeys(running.parts, 0)
    # Each part at least once where there are enough kills; the rest as the dice fall.
    victims = [*running.parts, *dice.choices(list(running.parts), k=max(0, kills - len(running.parts)))][:kills]
    dice.shuffle(victims)
    for victim in victims:
        await asyncio.sleep(dice.uniform(0.3, 1.5))
        killed[victim] += 1
        await asyncio.to_thread(running.parts[victim].kill)
        await asyncio.sleep(dice.uniform(0, 1))
        await asyncio.to_thread(running.parts[victim].start)
    return killed


async def count(running: System, answered: dict[str, int]) -> Count:
    """Wait until everything that was committed has had its effect, or the deadline; then compare."""
    counter = await _connect(running.databases["counter"])
    journal = await _connect(running.databases["journal"])
    deadline = time.monotonic() + DRAIN_TIMEOUT_SECONDS
    while True:
        waiting = await counter.fetchval("SELECT count(*) FROM chassis.outbox")
        steps = {row["name"]: row["steps"] for row in await counter.fetch("SELECT name, steps FROM counter.counters")}
        written = await journal.fetchval("SELECT count(DISTINCT (name, step)) FROM journal.entries")
        if (waiting == 0 and written >= sum(steps.values())) or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.3)
    await asyncio.sleep(1)  # for second effects to show
    result = Count(acknowledged=sum(answered.values()), committed=sum(steps.values()))
    for name, taken in steps.items():
        rows = await journal.fetch("SELECT step FROM journal.entries WHERE name = $1 ORDER BY seq", name)
        seen = [row["step"] for row in rows]
        result.forgotten += max(0, answered.get(name, 0) - taken)
        result.lost += len(set(range(1, taken + 1)) - set(seen))
        result.twice += len(seen) - len(set(seen))
        result.disordered += sum(later < earlier for earlier, later in pairwise(seen))
    for connection in (counter, journal):
        result.parked += await connection.fetchval("SELECT count(*) FROM chassis.parked")
        await connection.close()
    return result


async def _connect(url: str) -> asyncpg.Connection:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        try:
            return await asyncpg.connect(url)
        except (OSError, asyncpg.PostgresError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


async def run(running: System, *, kills: int, seed: int) -> Count:
    """Load and kill what is up, then count."""
    answered: dict[str, int] = {}
    stop = asyncio.Event()
    loading = asyncio.create_task(load(running.base, stop, answered))
    killed = await torment(running, kills, random.Random(seed))
    await asyncio.sleep(2)
    stop.set()
    await loading
    result = await count(running, answered)
    result.kills = killed
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("broker", choices=brokers.BROKERS)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="repeats the order of the kills")
    options = parser.parse_args()
    print(f"{options.broker}: {options.kills} kills, --seed {options.seed}", flush=True)
    with system(options.broker) as running:
        asyncio.run(running.wait_until_up())
        result = asyncio.run(run(running, kills=options.kills, seed=options.seed))
        print(result)
        if not result.good:
            print(running.logs(), file=sys.stderr)
    return 0 if result.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
