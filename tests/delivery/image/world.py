"""The image that is built, and what a container of it needs around it."""

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

from tests.support.commands import service_environment
from tests.support.engine import Engine
from tests.support.tokens import Trusted

ANSWERS = {"service_name": "billing", "messaging_style": "events", "broker": "nats", "dev_container": "yes"}
VERSION = "1.2.3"


@dataclass
class Database:
    """A Postgres that can stop and start again, and keeps its port and its data."""

    folder: Path
    port: int = field(default_factory=embedded.free_port)
    url: str = ""
    _server: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        self.url = self._server.enter_context(embedded.postgres(self.folder, durable=False, port=self.port))

    def stop(self) -> None:
        self._server.close()

    def empty(self) -> str:
        """Create a new database, and return its URL."""
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
    """The engine, the servers and the image for a test of a container."""

    engine: Engine
    database: Database
    broker: str
    trusted: Trusted

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a container that serves or works, without BROKER_URL."""
        return {"DATABASE_URL": self.database.url, **self.trusted.settings}

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a caller who may do everything."""
        return self.trusted.headers("invoices")


def locked(service: Path) -> Path:
    """Write the service's lock file, and return the service. Skips the test without uv."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("the service's dependencies are locked with uv, which is not here")
    lock = [uv, "lock", "--quiet", "--python", sys.executable]
    subprocess.run(lock, cwd=service, env=service_environment(), check=True)
    return service


def build(engine: Engine, source: Path, image: str) -> str:
    environment = service_environment(PATH=engine.path)
    command = ["make", "image", f"VERSION={VERSION}"]
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    engine.docker("tag", ANSWERS["service_name"], image)
    return image
