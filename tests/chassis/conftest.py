"""The tiny service, in this process and in processes of its own, on one real Postgres for the whole run.

Fixtures that are missing here (`database_url`, `app`, `database`, `uow`, `client` …) are in chassis.testing, like the
fixtures of every service.
"""

import shutil
import socket
import sys
import uuid
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from chassis.application import application
from chassis.database import Database
from chassis.service import Service
from chassis.telemetry.setup import Telemetry
from chassis.web import probes
from fastapi import FastAPI
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from tests.chassis import tiny
from tests.chassis.copies import copy_of
from tests.chassis.each_broker import Run
from tests.chassis.processes import (
    Running,
    Start,
    await_start,
    start_process,
)
from tests.chassis.tiny.main import SERVICE
from tests.support import brokers
from tests.support.link import Link
from tests.support.oidc_provider import Provider, oidc_provider
from tests.support.query import ask


@pytest.fixture(scope="session")
def service() -> Service:
    return SERVICE


@pytest.fixture(autouse=True)
def patient_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that answers late, because this machine is busy, makes no service unready."""
    monkeypatch.setattr(probes, "CHECK_TIMEOUT_SECONDS", 60)


@pytest.fixture
def copy(service: Service, tmp_path: Path) -> Service:
    """The tiny service with its own copy of the migrations, to which a test can add."""
    (source,) = tiny.__path__
    shutil.copytree(Path(source, "migrations"), tmp_path / "migrations")
    return copy_of(service, tmp_path)


@pytest.fixture
def link(database_url: str) -> Generator[Link]:
    """A link to the database that the test can interrupt."""
    with Link(database_url) as link:
        yield link


@pytest.fixture(scope="session")
def run() -> Generator[Run]:
    """`run("kafka")`: a real broker, the same for all tests."""
    running: dict[str, brokers.Broker] = {}
    with ExitStack() as stack:

        def run(name: str) -> brokers.Broker:
            if name not in running:
                try:
                    running[name] = stack.enter_context(brokers.BROKERS[name]())
                except brokers.Missing as missing:
                    pytest.skip(str(missing))
            return running[name]

        yield run


@pytest.fixture(scope="session")
def provider() -> Generator[Provider]:
    """A real OpenID provider, the same for all tests."""
    with oidc_provider() as provider:
        yield provider


@pytest.fixture
def make_app(service: Service, database_url: str, database: Database) -> Callable[..., FastAPI]:
    """Make an application with settings (and telemetry) of the test. `database` deletes the data."""

    def make_app(*, telemetry: Telemetry | None = None, **settings: Any) -> FastAPI:
        shown = {"serve_docs": True, "probe_details": True}
        values = {"database_url": database_url, "log_format": "console", **shown, **settings}
        silent = Telemetry(Resource({}), sampler=ALWAYS_OFF, span_processors=[], metric_readers=[])
        return application(service, service.settings.model_validate(values), telemetry=telemetry or silent)

    return make_app


@pytest.fixture(scope="module")
def start(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Start]:
    """`start(**settings)`: run `python -m tests.chassis.tiny serve` until it answers. It ends with the module.

    `start("-m", "another.module", …)` starts another program that answers probes.
    """
    folder = tmp_path_factory.mktemp("services")
    with ExitStack() as stack:
        stack.callback(ask, database_url, "DELETE FROM tiny.things")

        def start(*arguments: str, listener: socket.socket | None = None, **settings: object) -> Running:
            command = [sys.executable, *(arguments or ("-m", "tests.chassis.tiny", "serve"))]
            usual = {"DATABASE_URL": database_url, "DRAIN_SECONDS": 0, "PROBE_DETAILS": "true"}
            service = start_process(folder, command, usual | settings, listener)
            stack.callback(service.process.stop)
            await_start(service)
            return service

        yield start


@pytest.fixture
def empty_database(postgres_url: str) -> Generator[str]:
    """The URL of an empty database."""
    name = f"empty_{uuid.uuid4().hex[:12]}"
    ask(postgres_url, f"CREATE DATABASE {name}")
    yield urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
    ask(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def connection(database_url: str) -> AsyncGenerator[asyncpg.Connection]:
    """A connection to the database that does not use the chassis."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()
