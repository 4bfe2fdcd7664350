"""The orders of bench/sagas.py on another engine: a module of this package with `install`, `fill`, CLEAR and ENDED."""

import asyncio
import sys
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import asyncpg

from bench.engines.measure import Measured, Worker, finish, running
from tests.service.chaos.system import Part, connect, create

TABLES = """
    CREATE TABLE done (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number integer NOT NULL, what text NOT NULL);
    CREATE TABLE bookings (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number integer NOT NULL, kind text NOT NULL);
"""


class OtherOrders:
    """The workers of a shop, and a bank, which share a database."""

    def __init__(self, module: ModuleType, server: str, folder: Path, workers: int) -> None:
        self._module, self._folder, self._workers = module, folder, workers
        name = module.__name__.rpartition(".")[2]
        self._url = urlsplit(server)._replace(path=f"/{name}").geturl()
        asyncio.run(create(server, [name]))
        asyncio.run(self._execute(TABLES))
        module.install(self._url)

    def backlog(self, orders: int) -> Measured:
        asyncio.run(self._execute(f"{self._module.CLEAR}; TRUNCATE done, bookings"))
        self._module.fill(self._url, orders)
        with running(
            [self._worker(name, at) for at, name in enumerate(["bank", *["shop"] * self._workers])]
        ) as workers:
            return asyncio.run(self._finish(orders, workers))

    async def _finish(self, orders: int, workers: list[Worker]) -> Measured:
        connection = await connect(self._url)
        try:
            return await finish(
                connection.fetchval, orders, workers, first="SELECT EXISTS (TABLE done)", ended=self._module.ENDED
            )
        finally:
            await connection.close()

    async def _execute(self, statements: str) -> None:
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute(statements)
        finally:
            await connection.close()

    def _worker(self, queue: str, at: int) -> Worker:
        log = self._folder / f"other-{at}.log"
        return Worker(Part([sys.executable, "-m", self._module.__name__, queue, self._url], log), log)
