"""The tiny service in this process and in processes of its own, on one real Postgres for the whole run.

Fixtures that are not here (`database_url`, `app`, `database`, `uow`, `client` …) are those that every service's tests
have: chassis.testing.
"""

import asyncio
import dataclasses
import json
import os
import shutil
import signal
import socket
import sys
import time
import types
import uuid
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
import uvicorn
from chassis.application import application
from chassis.database import Database
from chassis.dev import embedded
from chassis.service import Service
from chassis.telemetry.setup import Telemetry
from chassis.web.connections import Protocol, Room
from fastapi import FastAPI
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from tests.chassis import tiny
from tests.chassis.tiny.main import SERVICE
from tests.support import brokers
from tests.support.link import Link
from tests.support.paths import ROOT

START_TIMEOUT_SECONDS = 120
EXIT_TIMEOUT_SECONDS = 90
LOG_TIMEOUT_SECONDS = 60


@pytest.fixture(scope="session")
def service() -> Service:
    return SERVICE


@pytest.fixture
def copy(service: Service, tmp_path: Path) -> Service:
    """The tiny service with migrations of its own, to add to."""
    (source,) = tiny.__path__
    shutil.copytree(Path(source, "migrations"), tmp_path / "migrations")
    return copy_of(service, tmp_path)


def copy_of(service: Service, folder: Path) -> Service:
    """The service with the migrations in this folder."""
    package = types.ModuleType("tiny_copy")
    package.__path__ = [str(folder)]
    return dataclasses.replace(service, package=package)


@pytest.fixture
def link(database_url: str) -> Generator[Link]:
    """A way to the database that the test can interrupt."""
    with Link(database_url) as link:
        yield link


Run = Callable[[str], brokers.Broker]


@pytest.fixture(scope="session")
def run() -> Generator[Run]:
    """`run("kafka")`: a real broker, the same one for all tests."""
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


def each_of(*names: str) -> list[Any]:
    """Brokers as parameters. One worker has all tests of a broker: it is started once."""
    return [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in names]


@pytest.fixture
def make_app(service: Service, database_url: str, database: Database) -> Callable[..., FastAPI]:
    """An application with settings (and telemetry) of the test's own. `database` deletes what it has stored."""

    def make_app(*, telemetry: Telemetry | None = None, **settings: Any) -> FastAPI:
        shown = {"serve_docs": True, "probe_details": True}
        values = {"database_url": database_url, "log_format": "console", **shown, **settings}
        silent = Telemetry(Resource({}), sampler=ALWAYS_OFF, span_processors=[], metric_readers=[])
        return application(service, service.settings.model_validate(values), telemetry=telemetry or silent)

    return make_app


@asynccontextmanager
async def listening(
    app: Any, *, room: Room | None = None, http: Any = None, **options: Any
) -> AsyncGenerator[httpx.AsyncClient]:
    """Serve the application on a real socket from this process, and yield a client of it."""
    http = http or partial(Protocol, room=room or Room(max_connections=1000))
    server = uvicorn.Server(uvicorn.Config(app, http=http, log_config=None, access_log=False, **options))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        running = asyncio.create_task(server.serve([listener]))
        try:
            while not server.started:
                assert not running.done(), "the server did not start"
                await asyncio.sleep(0.01)
            base = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx.AsyncClient(base_url=base, timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            await running


@dataclass
class Running:
    """The tiny service in a process of its own."""

    base: str
    process: embedded.Process
    output: Path

    @property
    def pid(self) -> int:
        return self.process.child.pid

    def events(self, **facts: object) -> list[dict[str, Any]]:
        """What it has logged (as JSON), or those of its lines that state these facts."""
        lines = [json.loads(line) for line in self.output.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if all(line.get(name) == fact for name, fact in facts.items())]

    def wait_for(self, **facts: object) -> dict[str, Any]:
        """The one line with these facts, once it is there: lines are written when the answer is already out."""
        deadline = time.monotonic() + LOG_TIMEOUT_SECONDS
        while not (found := self.events(**facts)):
            assert time.monotonic() < deadline, f"{facts} was not logged:\n{self.output.read_text()}"
            time.sleep(0.02)
        (line,) = found
        return line

    def tell(self, signal_: signal.Signals = signal.SIGTERM) -> None:
        os.kill(self.pid, signal_)

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        return self.process.child.wait(EXIT_TIMEOUT_SECONDS)


Start = Callable[..., Running]


def environment(**settings: object) -> dict[str, str]:
    """This process's environment without any setting of the chassis, and with these."""
    known = {name.upper() for name in SERVICE.settings.model_fields}
    ours = {
        name: it for name, it in os.environ.items() if name not in known and not name.startswith(("OTEL_", "PYTEST_"))
    }
    return ours | {"PYTHONPATH": str(ROOT)} | {name: str(value) for name, value in settings.items()}


def _start(folder: Path, command: Sequence[str], settings: dict[str, object]) -> Running:
    port = embedded.free_port()
    output = folder / f"service-{port}.log"
    with output.open("w") as log:
        process = embedded.spawn(
            [*command],
            stop_signal=signal.SIGKILL,  # reached only by a test that failed before it stopped the service itself
            env=environment(HTTP_PORT=port, **settings),
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
    return Running(f"http://127.0.0.1:{port}", process, output)


def _await_start(service: Running) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    with closing(httpx.Client(base_url=service.base)) as client:
        while True:
            try:
                client.get("/livez")
                return
            except httpx.TransportError:
                assert service.process.child.poll() is None, service.output.read_text()
                assert time.monotonic() < deadline, service.output.read_text()
                time.sleep(0.05)


@pytest.fixture(scope="module")
def start(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Start]:
    """`start(**settings)`: `python -m tests.chassis.tiny serve`, once it answers. It is gone after the module.

    `start("-m", "another.module", …)` starts another program that answers probes.
    """
    folder = tmp_path_factory.mktemp("services")
    with ExitStack() as stack:
        stack.callback(ask, database_url, "DELETE FROM tiny.things")

        def start(*arguments: str, **settings: object) -> Running:
            command = [sys.executable, *(arguments or ("-m", "tests.chassis.tiny", "serve"))]
            service = _start(
                folder, command, {"DATABASE_URL": database_url, "DRAIN_SECONDS": 0, "PROBE_DETAILS": "true", **settings}
            )
            stack.callback(service.process.stop)
            _await_start(service)
            return service

        yield start


@pytest.fixture
def empty_database(postgres_url: str) -> Generator[str]:
    """The URL of a database with nothing in it."""
    name = f"empty_{uuid.uuid4().hex[:12]}"
    ask(postgres_url, f"CREATE DATABASE {name}")
    yield urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
    ask(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


def ask(url: str, query: str) -> Any:
    """The first value that the query returns, for tests that are not asynchronous."""

    async def fetch() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(fetch())


@pytest.fixture
async def connection(database_url: str) -> AsyncGenerator[asyncpg.Connection]:
    """A look into the database that goes around the chassis."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()
