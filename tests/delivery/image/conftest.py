"""A generated service as an image, built by its own `make image`, and the servers that it needs."""

import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
from chassis.dev.embedded import nats_server

from tests.delivery.image.world import ANSWERS, Database, World, build, locked
from tests.support import containers
from tests.support import engine as engines
from tests.support.engine import Engine
from tests.support.services import Render
from tests.support.tokens import trusted_issuer

pytest.register_assert_rewrite("tests.delivery.image.checks", "tests.delivery.image.contents")

IMAGE = "slipway-test:service"


@pytest.fixture(scope="session")
def engine() -> Generator[Engine]:
    with engines.running() as engine:
        yield engine


@pytest.fixture(scope="session")
def apart() -> Generator[Engine]:
    """An engine with Compose. It has images of its own, unless an engine runs on this machine."""
    with engines.with_compose() as engine:
        yield engine


@pytest.fixture(scope="session")
def source(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service's files with a lock file, without an environment: the input of a build in CI."""
    return locked(shutil.copytree(render(**ANSWERS), tmp_path_factory.mktemp("image") / "billing"))


@pytest.fixture(scope="session")
def image(engine: Engine, source: Path) -> Generator[str]:
    yield build(engine, source, IMAGE)
    engine.docker("image", "rm", "--force", IMAGE)


@pytest.fixture(scope="session")
def world(engine: Engine, image: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    with nats_server.temporary_nats() as broker, trusted_issuer() as trusted:
        database = Database(tmp_path_factory.mktemp("postgres"))
        database.start()
        try:
            status, said = containers.run(engine, image, "migrate", DATABASE_URL=database.url)
            assert status == 0, said
            yield World(engine, database, broker, trusted)
        finally:
            database.stop()
