"""Pytest fixtures for a service's tests: a real Postgres, migrated, and empty before each test that uses it.

pytest.ini names the service (`chassis_service = billing.main:SERVICE`). Under xdist each worker has a
database server of its own, so tests can run in parallel. If the environment has DATABASE_URL, the tests use that server
instead of the embedded one: they create and drop databases of their own there, and do not touch other databases.
"""

import json
import os
import uuid
from collections.abc import AsyncGenerator, Generator
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

# Pytest loads this file in every run, so slow imports are inside the functions that need them.
if TYPE_CHECKING:
    import asyncio

    import httpx2
    from fastapi import FastAPI

    from chassis.database import Database, UnitOfWork
    from chassis.messages import Messages
    from chassis.service import Service
    from chassis.settings import Settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("chassis_service", "module:attribute of the Service under test")


@pytest.fixture(scope="session")
def service(pytestconfig: pytest.Config) -> "Service":
    """The service under test, from its composition root."""
    module, _, attribute = str(pytestconfig.getini("chassis_service")).partition(":")
    return getattr(import_module(module), attribute)


@pytest.fixture(scope="session")
def postgres_url() -> Generator[str]:
    """The URL of a server on which tests can create databases."""
    from chassis.dev import embedded

    if url := os.environ.get("DATABASE_URL"):
        yield url
    else:
        with embedded.temporary_postgres() as url:
            yield url


@pytest.fixture(scope="session")
def database_url(service: "Service", postgres_url: str) -> Generator[str]:
    """The URL of a migrated database that belongs to this test run and its worker."""
    import asyncio
    from urllib.parse import urlsplit

    from chassis.database import migrate
    from chassis.settings import addresses

    async def execute(statement: str, *args: Any, url: str = postgres_url) -> list[Any]:
        connection = await addresses.connect(url)
        try:
            return await connection.fetch(statement, *args)
        finally:
            await connection.close()

    name = f"{service.schema}_test_{uuid.uuid4().hex[:12]}"
    asyncio.run(execute(f'CREATE DATABASE "{name}"'))
    try:
        url = urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
        migrate.upgrade(service, url)
        tables = [f"{table.schema}.{table.name}" for table in service.tables.sorted_tables]
        absent = "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NULL"
        if missing := [row["name"] for row in asyncio.run(execute(absent, tables, url=url))]:
            pytest.fail(f'no migration makes {", ".join(missing)}: make migration m="what it does"', pytrace=False)
        yield url
    finally:
        asyncio.run(execute(f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture(scope="session")
def issuer(service: "Service") -> Generator[Any]:
    """The issuer of the tokens in tests: a chassis.dev.issuer.Issuer, or None if the service asks for no token."""
    if service.auth is None:
        yield None
        return
    from chassis.dev.issuer import Issuer  # a service without identity has no such file

    with Issuer(service.name).running() as issuer:
        yield issuer


@pytest.fixture(scope="session")
def settings(service: "Service", database_url: str, issuer: Any) -> "Settings":
    """The settings under test. Override this fixture if the service has settings without a default."""
    trusted = issuer.settings if issuer else {}
    return service.settings.model_validate({"database_url": database_url, "log_format": "console", **trusted})


@pytest.fixture(scope="session")
async def app(service: "Service", settings: "Settings", issuer: Any) -> AsyncGenerator["FastAPI"]:
    """The service's application, started."""
    app = service.create_app(settings)
    async with app.router.lifespan_context(app):
        if issuer:
            await issuer.until_trusted(app)
        yield app


@pytest.fixture
async def database(app: "FastAPI", service: "Service") -> AsyncGenerator["Database"]:
    """The service's database. After each test all rows are deleted."""
    yield app.state.database
    # DELETE, not TRUNCATE: on small tables it is ten times faster.
    tables = [f"{table.schema}.{table.name}" for table in reversed(service.tables.sorted_tables)]
    tables += ["chassis.outbox", "chassis.inbox", "chassis.attempts", "chassis.parked", "chassis.schedules"]
    tables += ["chassis.idempotency_keys", "chassis.sagas"]
    await app.state.database.execute("; ".join(f"DELETE FROM {table}" for table in tables))


@pytest.fixture
async def uow(database: "Database") -> AsyncGenerator["UnitOfWork"]:
    """One transaction, for tests of use cases and repositories. It commits, and then `database` deletes the rows."""
    async with database.unit_of_work() as uow:
        yield uow


@pytest.fixture
async def client(app: "FastAPI", database: "Database", issuer: Any) -> AsyncGenerator["httpx2.AsyncClient"]:
    """An HTTP client of the service, in the same process. If the service asks for tokens, the caller has all scopes.

    Such a client is a chassis.dev.issuer.Client: `client.as_("user-17", scopes=["invoices:read"])` is another caller.
    """
    import httpx2

    if issuer:
        made = issuer.client(app)
    else:
        made = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://service")
    async with made as client:
        yield client


async def until_blocked(task: "asyncio.Task[Any]", database: "Database") -> None:
    """Wait until the task waits for a lock in the database. Raises AssertionError if the task ends without waiting."""
    waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while not await database.fetch(waiting):
        assert not task.done(), "the task has ended without waiting for the lock that another transaction holds"


class SentMessage(NamedTuple):
    """A message in the outbox. `body` is the JSON that consumers will read; `not_before` is set for a delayed job, and
    `subject` for a message that a known caller has caused."""

    name: str
    key: str
    body: dict[str, Any]
    not_before: datetime | None
    subject: str | None


class Mailbox:
    """The messages that the service has sent, and a way to deliver messages to the service without a broker."""

    def __init__(self, database: "Database", messages: "Messages") -> None:
        self._database = database
        self._messages = messages

    async def sent(self) -> list[SentMessage]:
        """Return all messages that were published or enqueued and committed, oldest first."""
        rows = await self._database.fetch(
            "SELECT type AS name, aggregateid AS key, payload AS body, not_before, subject FROM chassis.outbox ORDER BY seq"
        )
        return [SentMessage(**{**row, "body": json.loads(row["body"])}) for row in rows]

    async def receive(
        self,
        name: str,
        body: object,
        *,
        times: int = 1,
        subject: str | None = None,
        saga: "uuid.UUID | str | None" = None,
    ) -> None:
        """Deliver one message `times` times, as a broker may: through the inbox to its handler, with a commit for each.

        `body` is a contract, or a value for json.dumps; `subject` is the caller that the message names, and
        `saga` the id of the saga that it answers. Raises
        chassis.messages.Unknown if the service handles no message of that name, ValidationError if the body breaks the
        contract, and the errors of the handler (in production the message would be redelivered, and in the end parked).
        """
        from pydantic import BaseModel

        receiver = self._messages.receiver(name)

        from chassis.brokers import SAGA, SUBJECT, Kind, Message
        from chassis.messaging import inbox

        text = body.model_dump_json() if isinstance(body, BaseModel) else json.dumps(body)
        headers = {name: str(value) for name, value in {SUBJECT: subject, SAGA: saga}.items() if value}
        message = Message(Kind(receiver.kind), name, str(uuid.uuid4()), "key", text.encode(), headers)
        for _ in range(times):
            content = receiver.contract.model_validate_json(message.body)
            async with self._database.unit_of_work() as uow:
                if await inbox.claim(uow.connection, [message.identity]):
                    inbox.introduce(message, uow, self._messages.service)
                    await receiver.handler(content, uow)


@pytest.fixture
async def mailbox(database: "Database", service: "Service") -> Mailbox:
    """The messages of the service under test."""
    return Mailbox(database, service.messages)
