"""The answers of the probes, which neither hang nor depend on the load of the service."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import asyncpg
import httpx2
import pytest
from chassis.database import migrate, outages
from chassis.http import reader
from chassis.service import Service
from chassis.web import middleware, probes
from fastapi import FastAPI
from structlog.testing import CapturingLogger

from tests.chassis.sockets import listening
from tests.support.link import Link


@pytest.fixture
async def probed(make_app: Callable[..., FastAPI], link: Link) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of a service with two database connections, whose database the link can cut."""
    async with listening(make_app(database_url=link.url, database_pool_size=2)) as client:
        yield client


async def status(client: httpx2.AsyncClient, path: str) -> int:
    return (await client.get(path)).status_code


async def test_alive_says_nothing_about_the_database(probed: httpx2.AsyncClient, link: Link) -> None:
    assert await status(probed, "/livez") == 200
    link.cut()
    assert await status(probed, "/livez") == 200


async def test_ready_follows_the_database_down_and_up(probed: httpx2.AsyncClient, link: Link) -> None:
    assert await status(probed, "/readyz") == 200

    link.cut()
    assert await status(probed, "/readyz") == 503

    link.restore()
    assert await status(probed, "/readyz") == 200


async def test_started_waits_for_the_database_once_and_for_all(probed: httpx2.AsyncClient, link: Link) -> None:
    link.cut()
    assert await status(probed, "/startupz") == 503

    link.restore()
    assert await status(probed, "/startupz") == 200

    link.cut()
    assert await status(probed, "/startupz") == 200


async def test_the_log_says_why_a_pod_that_nobody_sends_requests_to_is_not_ready(
    make_app: Callable[..., FastAPI], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = CapturingLogger()
    monkeypatch.setattr(outages, "log", logger)
    credentials, _, host = database_url.rpartition("@")
    async with listening(make_app(database_url=f"{credentials}x@{host}")) as client:
        assert [await status(client, path) for path in ("/startupz", "/readyz", "/readyz")] == [503, 503, 503]

    (line,) = logger.calls
    assert line.args == ("database_unavailable",)
    assert "password authentication failed" in line.kwargs["reason"]


@pytest.mark.slow
async def test_a_database_that_hangs_makes_us_unready_in_time_and_ready_again(
    probed: httpx2.AsyncClient, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await status(probed, "/readyz") == 200

    link.freeze()
    with monkeypatch.context() as patch:
        patch.setattr(probes, "CHECK_TIMEOUT_SECONDS", 1)
        async with asyncio.timeout(60):
            for _ in range(2):  # twice: the first must not keep the connection of the probes
                assert await status(probed, "/readyz") == 503

    link.restore()
    assert await status(probed, "/readyz") == 200


async def test_a_service_whose_connections_are_all_busy_is_still_ready(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(database_pool_size=2)
    begun, proceed = asyncio.Semaphore(0), asyncio.Event()

    @app.get("/hold")
    async def hold() -> None:
        reader()
        begun.release()
        await proceed.wait()

    async with listening(app) as client:
        busy = [asyncio.create_task(client.get("/hold")) for _ in range(4)]
        async with asyncio.timeout(60):
            for _ in range(2):
                await begun.acquire()

        assert await status(client, "/readyz") == 200

        proceed.set()
        assert [(await task).status_code for task in busy] == [200] * 4


async def test_a_probe_names_the_failed_part(probed: httpx2.AsyncClient, link: Link) -> None:
    link.cut()

    assert (await probed.get("/readyz")).json() == {
        "status": "unavailable",
        "version": "0.0.0",
        "database": "unreachable",
    }


OLDER = """
from alembic import op

revision = "0000"
down_revision = None


def upgrade() -> None:
    op.execute("CREATE TABLE tiny.things (id uuid PRIMARY KEY, name text NOT NULL)")
"""


@pytest.fixture
def older_database(service: Service, empty_database: str, tmp_path: Path) -> str:
    """Return the URL of a database that the previous version has migrated."""
    package = ModuleType("tiny")
    package.__path__ = [str(tmp_path)]
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "0000_create_things.py").write_text(OLDER)
    migrate.upgrade(replace(service, package=package), empty_database)
    return empty_database


@pytest.fixture(params=["empty_database", "older_database"])
def incomplete_database(request: pytest.FixtureRequest) -> str:
    """Return the URL of a database that lacks migrations of this version."""
    return request.getfixturevalue(request.param)


async def test_a_database_that_lacks_migrations_makes_us_unready_and_requests_unavailable(
    make_app: Callable[..., FastAPI], incomplete_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = CapturingLogger()
    for module in (outages, middleware):
        monkeypatch.setattr(module, "log", logger)
    async with listening(make_app(database_url=incomplete_database)) as client:
        ready = await client.get("/readyz")
        started = await status(client, "/startupz")
        answers = [await client.post("/v1/things", json={"name": "x"}), await client.get("/v1/things")]

    missing = "migrations missing: run `migrate`"
    assert (ready.status_code, ready.json()["database"], started) == (503, missing, 200)
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(503, "database_unavailable")}
    assert {(call.args[0], call.kwargs["reason"]) for call in logger.calls} == {("database_unavailable", missing)}


async def test_a_statement_with_a_mistake_is_a_bug_where_the_database_has_all_migrations(
    make_app: Callable[..., FastAPI], database_url: str, connection: asyncpg.Connection
) -> None:
    await connection.execute("ALTER TABLE tiny.things RENAME COLUMN email TO address")
    try:
        async with listening(make_app(database_url=database_url)) as client:
            assert (await status(client, "/readyz"), await status(client, "/v1/things")) == (200, 500)
    finally:
        await connection.execute("ALTER TABLE tiny.things RENAME COLUMN address TO email")


async def test_ready_says_which_version_is(make_app: Callable[..., FastAPI], database_url: str) -> None:
    async with listening(make_app(database_url=database_url, service_version="v7")) as client:
        assert (await client.get("/readyz")).json()["version"] == "v7"
