"""A service on a database that is backed up and restored, its neighbour, and the server of the database."""

import asyncio
import importlib
import json
import os
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import nats
from chassis.brokers import Kind, Message, Options, broker_for
from chassis.database import Database
from chassis.dev import embedded
from chassis.messages import Messages, OnEvent
from chassis.messaging.consumer import Consumer
from chassis.messaging.outbox import Outbox
from chassis.messaging.relay import Relay
from chassis.messaging.retry_policy import RetryPolicy
from chassis.messaging.topology import topology_of
from chassis.service import Service
from chassis.telemetry.setup import Telemetry
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from pydantic import SecretStr

from tests.chassis.running import running
from tests.chassis.tiny_messages import PaidV1, on_paid
from tests.support.query import ask
from tests.support.waiting import PATIENCE_SECONDS, until

SILENT = Telemetry(Resource({}), sampler=ALWAYS_OFF, span_processors=[], metric_readers=[])
LISTENING = Messages("billing", incoming=(OnEvent("bank.paid.v1", PaidV1, on_paid),))
MOMENT = "2026-11-30 07:12:00+00"
EFFECTS_SO_FAR = "SELECT array_agg(number ORDER BY seq) FROM effects"


@dataclass
class Neighbour:
    """A service with a copy of invoices. It drops known ids, as an inbox does, and versions that are not higher."""

    system = "memory"
    heard: list[Message] = field(default_factory=list)
    invoices: dict[str, Any] = field(default_factory=dict)

    async def publish(self, message: Message) -> None:
        known = message.id in {each.id for each in self.heard}
        self.heard.append(message)
        state = json.loads(message.body)
        ours = self.invoices.get(state["invoice_id"], {"version": 0})
        if not known and state["version"] > ours["version"]:
            self.invoices[state["invoice_id"]] = state


@dataclass
class Billing:
    """The service on one of its databases."""

    service: Service
    url: str
    broker_url: str
    neighbour: Neighbour

    def create(self, invoice: UUID, note: str) -> None:
        usecases = importlib.import_module("billing.usecases.invoices")
        command = usecases.CreateInvoice(invoice_id=invoice, number="N-1", note=note)
        self._transaction(lambda uow: usecases.create_invoice(command, uow, now=datetime.now(UTC)))

    def change(self, invoice: UUID, note: str) -> None:
        usecases = importlib.import_module("billing.usecases.invoices")
        command = usecases.ChangeInvoice(invoice_id=invoice, expected_version=None, changes={"note": note})
        self._transaction(lambda uow: usecases.change_invoice(command, uow, now=datetime.now(UTC)))

    def _transaction(self, work: Callable[[Any], Awaitable[Any]]) -> None:
        async def run() -> None:
            async with self._database(self.service.messages) as database, database.unit_of_work() as uow:
                await work(uow)

        asyncio.run(run())

    def _database(self, messages: Messages) -> Database:
        url = SecretStr(self.url)
        return Database(url, pool_size=5, name="billing", command_timeout_seconds=30, outbox=Outbox(messages))

    def relay(self) -> None:
        """Send everything in the outbox to the neighbour."""

        async def run() -> None:
            relay = Relay(self.url, self.neighbour, SILENT, name="billing")
            async with self._database(self.service.messages) as database, running("relay", relay.run):
                await until(lambda: empty(database))

        async def empty(database: Database) -> bool:
            rows = await database.fetch("SELECT FROM chassis.outbox")
            return not rows

        asyncio.run(run())

    def consume(self, *effects: int) -> None:
        """Consume until these are the effects of all events."""

        async def run() -> None:
            broker = broker_for(self._options("billing"))
            await broker.connect()
            await broker.declare(topology_of(LISTENING))
            async with self._database(LISTENING) as database:
                policy = RetryPolicy(max_attempts=5, handler_timeout_seconds=30)
                consumer = Consumer(
                    Kind.EVENT, broker, database, LISTENING, SILENT, database_url=self.url, retry_policy=policy
                )
                async with running("consumer", consumer.run):
                    await until(lambda: there(database))
            await broker.close()

        async def there(database: Database) -> bool:
            [row] = await database.fetch(EFFECTS_SO_FAR)
            return row[0] == [*effects]

        asyncio.run(run())

    def pay(self, number: int) -> None:
        """Let the service `bank` publish an event."""

        async def run() -> None:
            broker = broker_for(self._options("bank"))
            await broker.connect()
            await broker.declare(topology_of(LISTENING))
            body = json.dumps({"number": number}).encode()
            await broker.publish(Message(Kind.EVENT, "bank.paid.v1", f"payment-{number}", "key", body))
            await broker.close()

        asyncio.run(run())

    def _options(self, client: str) -> Options:
        return Options(SecretStr(self.broker_url), client, publish_timeout_seconds=PATIENCE_SECONDS)

    def forget_position(self, command: str) -> None:
        """Delete the consumer as this command `nats consumer rm` of the page does."""

        async def run() -> None:
            async with await nats.connect(self.broker_url) as client:
                stream, consumer = command.split()[3:5]
                await client.jetstream().delete_consumer(stream.replace("customers", "bank"), consumer)

        asyncio.run(run())

    def run(self, sql: str) -> None:
        ask(self.url, sql)


class Server:
    """A PostgreSQL server with its backups."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.url = ""
        self.moment = MOMENT

    def shell(self, text: str) -> str:
        """Run commands of the page as the user of the server, with the folders of this test."""
        for name, folder in (("/backups", "backups"), ("/restored", "recovered/data")):
            text = text.replace(name, str(self.home / folder))
        program = embedded.postgres_program("pg_dump")
        assert program, "these PostgreSQL programs lack pg_dump"
        environment = {
            "PATH": f"{Path(program).parent}:{os.environ['PATH']}",
            "DATABASE_URL": self.database("billing"),
            "RESTORED_URL": self.database("billing_restored"),
        }
        owner = self.home.stat()
        user: dict[str, Any] = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        done = subprocess.run(
            ["bash", "-ec", text.replace(MOMENT, self.moment)],
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
            **(user if os.geteuid() == 0 else {}),
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def psql(self, sql: str, url: str = "$DATABASE_URL") -> str:
        return self.shell(f"psql -v ON_ERROR_STOP=1 \"{url}\" <<'END'\n{sql}\nEND")

    def database(self, name: str) -> str:
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()
