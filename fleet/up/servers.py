"""The servers that all services share, which are started again if they die: PostgreSQL with a database for each service, NATS."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import asyncpg
from chassis.dev.embedded import EmbeddedServerError, nats_server, postgresql
from chassis.dev.embedded.child_process import Server

from fleet.up.memory import Memory
from fleet.up.product import Checkout

LOOK_SECONDS = 0.5
Start = Callable[[], Server]


class Servers:
    """PostgreSQL, and NATS unless all services use other brokers."""

    def __init__(self, memory: Memory, *, with_nats: bool, tell: Callable[[str], None]) -> None:
        self._memory, self._tell = memory, tell
        self._starts: dict[str, Start] = {
            "PostgreSQL": partial(postgresql.start, memory.folder / "postgres", durable=True)
        }
        if with_nats:
            self._starts["NATS"] = partial(nats_server.start, memory.folder / "nats", durable=True)
        self._running: dict[str, Server] = {}

    async def start(self) -> None:
        """Start all. Raises EmbeddedServerError."""
        await asyncio.gather(*(self._start(name) for name in self._starts))

    async def _start(self, name: str) -> None:
        self._running[name] = await asyncio.to_thread(self._starts[name])

    def has(self, name: str) -> bool:
        return name in self._starts

    def url(self, name: str) -> str:
        return self._running[name].url

    async def keep(self) -> None:
        """Start each server again that has ended, on its old port and data, until this is cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for name, server in self._running.items():
                if server.process.child.poll() is not None:
                    self._tell(f"{name} has ended, and is started again")
                    await asyncio.to_thread(server.process.stop)
                    try:
                        await self._start(name)
                    except EmbeddedServerError as error:  # processes of the dead server may still hold its folder
                        self._tell(f"{name}: {error}")

    async def stop(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(server.process.stop) for server in self._running.values()))

    async def databases(self, services: Sequence[Checkout]) -> dict[str, str]:
        """Make the database and the role of each service. Return their URLs, by the names of the services.

        Only the role of a service, and the administrator, can connect to its database.
        """
        place = self.url("PostgreSQL").rpartition("@")[2].rpartition("/")[0]
        connection = await asyncpg.connect(self.url("PostgreSQL"), ssl=False)
        try:
            await connection.execute("REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC")
            urls = {}
            for one in services:
                password = self._memory.secret("databases", one.package)
                await _make_database(connection, one.package, password)
                urls[one.name] = f"postgresql://{one.package}:{password}@{place}/{one.package}"
        finally:
            await connection.close()
        return urls


async def _make_database(connection: asyncpg.Connection, name: str, password: str) -> None:
    # Neither the name, which is a Python identifier, nor the password contains a character that needs quoting.
    known = await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", name)
    await connection.execute(f"{'ALTER' if known else 'CREATE'} ROLE \"{name}\" LOGIN PASSWORD '{password}'")
    if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
        await connection.execute(f'CREATE DATABASE "{name}" OWNER "{name}"')
    await connection.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
