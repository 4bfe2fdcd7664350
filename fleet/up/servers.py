"""The servers that all services share, which are started again if they die: PostgreSQL with a database for each service, brokers."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import asyncpg
from chassis.dev.embedded import EmbeddedServerError, postgresql
from chassis.dev.embedded.child_process import Server

from fleet.up.memory import Memory
from fleet.up.product import Checkout

LOOK_SECONDS = 0.5
Start = Callable[[], Server]


BROKERS = {"nats": "NATS", "kafka": "Kafka", "rabbitmq": "RabbitMQ"}


class Servers:
    """PostgreSQL and the brokers. `brokers` has the function that starts each broker, by the kind of the broker."""

    def __init__(self, memory: Memory, brokers: Mapping[str, Start], tell: Callable[[str], None]) -> None:
        self._memory, self._tell = memory, tell
        self._starts: dict[str, Start] = {
            "PostgreSQL": partial(postgresql.start, memory.folder / "postgres", durable=True)
        }
        self._starts |= {BROKERS[kind]: start for kind, start in brokers.items()}
        self._running: dict[str, Server] = {}

    async def start(self) -> None:
        """Start all. Raises EmbeddedServerError."""
        await asyncio.gather(*(self._start(name) for name in self._starts))

    async def _start(self, name: str) -> None:
        self._running[name] = await asyncio.to_thread(self._starts[name])

    def brokers(self) -> dict[str, str]:
        """Return the URL for each kind of broker that runs here."""
        return {kind: self._running[name].url for kind, name in BROKERS.items() if name in self._running}

    async def keep(self) -> None:
        """Start each server again that has ended, on its old port and data, until this is cancelled."""
        await asyncio.gather(*(self._keep(name) for name in self._running))

    async def _keep(self, name: str) -> None:
        problem = ""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if (process := self._running[name].process).child.poll() is None:
                problem = ""
                continue
            if not problem:  # a container engine that was ended may stay so for hours
                self._tell(f"{name} has ended, and is started again")
            await asyncio.to_thread(process.stop)
            try:
                await self._start(name)
            except EmbeddedServerError as error:  # processes of the dead server may still hold its folder
                if not problem:
                    self._tell(f"{name}: {error}")
                problem = str(error)

    async def stop(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(server.process.stop) for server in self._running.values()))

    async def databases(self, services: Sequence[Checkout]) -> dict[str, str]:
        """Make the database and the role of each service. Return their URLs, by the names of the services.

        Only the role of a service, and the administrator, can connect to its database.
        """
        url = self._running["PostgreSQL"].url
        place = url.rpartition("@")[2].rpartition("/")[0]
        connection = await asyncpg.connect(url, ssl=False)
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
