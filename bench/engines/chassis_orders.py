"""The orders of bench/sagas.py on the chassis and NATS: `python -m bench.engines.chassis_orders shop` runs a worker."""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from chassis.commands import main as command_line
from chassis.database import Database, migrate
from chassis.messaging.outbox import Outbox
from pydantic import SecretStr

from bench import waiting_sagas
from bench.engines.measure import LIMIT_SECONDS, Measured, Worker, finish, running
from tests.service.chaos.bank import main as bank
from tests.service.chaos.shop import main as shop
from tests.service.chaos.system import Part, create
from tests.support import brokers

SERVICES = {"shop": shop.SERVICE, "bank": bank.SERVICE}
FIRST_PAID = bank.KINDS
ENDED = "SELECT count(*) FROM chassis.sagas WHERE ended_at IS NOT NULL"


class ChassisOrders:
    """The services shop and bank, with a database each."""

    def __init__(self, server: str, broker_url: str, folder: Path, workers: int) -> None:
        self._broker_url, self._folder, self._workers = broker_url, folder, workers
        self._urls = {name: urlsplit(server)._replace(path=f"/{name}").geturl() for name in SERVICES}
        asyncio.run(create(server, list(self._urls)))
        for name, service in SERVICES.items():
            migrate.upgrade(service, self._urls[name])

    def backlog(self, orders: int, *, waiting: int = 0) -> Measured:
        """Measure a backlog of orders, while `waiting` other sagas wait."""
        asyncio.run(self._fill(orders, waiting))
        with running(
            [self._worker(name, at) for at, name in enumerate(["bank", *["shop"] * self._workers])]
        ) as workers:
            return asyncio.run(self._finish(orders, workers))

    def started(self, *, waiting: int) -> float:
        """Return the seconds until a worker of shop consumes."""
        asyncio.run(self._fill(0, waiting))
        began = time.perf_counter()
        with running([self._worker("shop", 0)]) as [worker]:
            while "consumer_started" not in (log := worker.log.read_text() if worker.log.exists() else ""):
                if time.perf_counter() - began > LIMIT_SECONDS:
                    raise TimeoutError(log)
                time.sleep(0.02)
            return time.perf_counter() - began

    async def show_waiting(self, waiting: int) -> None:
        async with self._database() as opened:
            await waiting_sagas.show(opened, waiting)

    async def _fill(self, orders: int, waiting: int) -> None:
        async with self._database() as opened:
            await waiting_sagas.fill(opened, waiting)
            await opened.execute("TRUNCATE shop.done")
            for first in range(0, orders, 100):
                async with opened.unit_of_work() as uow:
                    for number in range(first + FIRST_PAID, min(first + 100, orders) + FIRST_PAID):
                        await uow.start("place-order", shop.PlaceOrder(number), key=str(number))

    async def _finish(self, orders: int, workers: list[Worker]) -> Measured:
        async with self._database() as opened:

            async def value_of(question: str) -> object:
                return (await opened.fetchrow(question))[0]

            return await finish(value_of, orders, workers, first="SELECT EXISTS (TABLE shop.done)", ended=ENDED)

    @asynccontextmanager
    async def _database(self) -> AsyncGenerator[Database]:
        url, outbox = SecretStr(self._urls["shop"]), Outbox(shop.messages_of(1))
        async with Database(url, pool_size=2, name="bench", command_timeout_seconds=120, outbox=outbox) as opened:
            yield opened

    def _worker(self, name: str, at: int) -> Worker:
        log = self._folder / f"{at}.log"
        settings = {"DATABASE_URL": self._urls[name], "BROKER_URL": self._broker_url}
        settings |= {"HTTP_PORT": str(brokers.free_port()), "LOG_LEVEL": "info", "DRAIN_SECONDS": "0"}
        program = [sys.executable, "-m", "bench.engines.chassis_orders", name]
        return Worker(Part(program, log, **settings), log)


def work(name: str) -> int:
    """Run a worker whose steps take no time, or a bank that charges each card at once."""
    shop.LONGEST_STEP_SECONDS = shop.FAILING_SHARE = 0
    bank.KINDS = sys.maxsize
    return command_line(SERVICES[name], ["work"])


if __name__ == "__main__":
    raise SystemExit(work(sys.argv[1]))
