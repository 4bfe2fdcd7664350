"""A generated service as an image, built by its own `make image`, with the servers that it needs beside it."""

import asyncio
import contextlib
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from chassis.dev import embedded

from tests.conftest import Render, service_environment
from tests.support import containers
from tests.support import engine as engines
from tests.support.engine import Engine

pytest.register_assert_rewrite("tests.delivery.image.checks", "tests.delivery.image.contents")

ANSWERS = {"service_name": "billing", "messaging_style": "events", "broker": "nats"}
IMAGE = "slipway-test:service"
VERSION = "1.2.3"


@dataclass
class Database:
    """A Postgres that comes and goes; port and data stay its own."""

    folder: Path
    port: int = field(default_factory=embedded.free_port)
    url: str = ""
    _server: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        self.url = self._server.enter_context(embedded.postgres(self.folder, durable=False, port=self.port))

    def stop(self) -> None:
        self._server.close()

    def empty(self) -> str:
        """The URL of a new database on it."""
        name = f"new_{uuid4().hex}"

        async def create() -> None:
            connection = await asyncpg.connect(self.url)
            await connection.execute(f"CREATE DATABASE {name}")
            await connection.close()

        asyncio.run(create())
        return f"{self.url.rpartition('/')[0]}/{name}"

    @contextlib.contextmanager
    def away(self) -> Generator[None]:
        self.stop()
        try:
            yield
        finally:
            self.start()


@dataclass(frozen=True)
class World:
    """What a container needs around it."""

    engine: Engine
    database: Database
    broker: str


@pytest.fixture(scope="session")
def engine() -> Generator[Engine]:
    with engines.running() as engine:
        yield engine


@pytest.fixture(scope="session")
def source(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service's files, locked, without an environment: what a build on a forge begins with."""
    service = shutil.copytree(render(**ANSWERS), tmp_path_factory.mktemp("image") / "billing")
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("the service's dependencies are locked with uv, which is not here")
    subprocess.run(
        [uv, "lock", "--quiet", "--python", sys.executable], cwd=service, env=service_environment(), check=True
    )
    return service


def build(engine: Engine, source: Path, image: str) -> str:
    environment = service_environment(PATH=engine.path)
    command = ["make", "image", f"VERSION={VERSION}"]
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    engine.docker("tag", ANSWERS["service_name"], image)
    return image


@pytest.fixture(scope="session")
def image(engine: Engine, source: Path) -> Generator[str]:
    yield build(engine, source, IMAGE)
    engine.docker("image", "rm", "--force", IMAGE)


@pytest.fixture(scope="session")
def world(engine: Engine, image: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    with embedded.temporary_nats() as broker:
        database = Database(tmp_path_factory.mktemp("postgres"))
        database.start()
        try:
            status, said = containers.run(engine, image, "migrate", DATABASE_URL=database.url)
            assert status == 0, said
            yield World(engine, database, broker)
        finally:
            database.stop()
