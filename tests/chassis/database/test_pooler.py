"""Behind pgbouncer in transaction mode, HTTP works and other processes are refused; in session mode everything works."""

import asyncio
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import replace

import asyncpg
import pytest
from chassis.application import worker
from chassis.commands import main
from chassis.database import Database
from chassis.database.connection import dedicated_connection
from chassis.database.leadership import only_replica
from chassis.messages import NO_MESSAGES
from chassis.messaging.outbox import Outbox
from chassis.service import Service
from chassis.settings import SettingsError
from fastapi import FastAPI
from pydantic import SecretStr

from tests.chassis.sockets import listening
from tests.chassis.tiny_messages import MESSAGES
from tests.support import pgbouncer

pytestmark = pytest.mark.slow

REQUESTS = 40


@pytest.fixture(scope="module")
def by_transaction(database_url: str) -> Generator[str]:
    with pgbouncer.pooled(database_url, "transaction") as url:
        yield url


@pytest.fixture(scope="module")
def by_session(database_url: str) -> Generator[str]:
    with pgbouncer.pooled(database_url, "session") as url:
        yield url


async def test_http_works_behind_a_transaction_pooler_with_the_setting(
    make_app: Callable[..., FastAPI], by_transaction: str, connection: asyncpg.Connection
) -> None:
    app = make_app(database_url=by_transaction, database_transaction_pooler=True, database_pool_size=20)
    async with listening(app) as client:
        created = await asyncio.gather(
            *(client.post("/v1/things", json={"name": f"thing {number}"}) for number in range(REQUESTS))
        )
        read = await asyncio.gather(*(client.get(f"/v1/things/{one.json()['id']}") for one in created))
        ready = await client.get("/readyz")
    await connection.execute("DELETE FROM tiny.things")

    assert Counter(answer.status_code for answer in created) == {201: REQUESTS}
    assert Counter(answer.status_code for answer in read) == {200: REQUESTS}
    assert ready.status_code == 200


async def test_a_pooler_by_transaction_is_detected_and_named_where_the_setting_is_missing(
    make_app: Callable[..., FastAPI], by_transaction: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with listening(make_app(database_url=by_transaction)) as client:
        probes = [(await client.get(path)).status_code for path in ("/startupz", "/readyz", "/livez")]
        answer = await client.post("/v1/things", json={"name": "x"})

    assert probes == [503, 503, 200]
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    (refused,) = [line for line in capsys.readouterr().out.splitlines() if "database_refused" in line]
    assert "DATABASE_TRANSACTION_POOLER=true" in refused


def test_migrate_refuses_a_pooler_by_transaction(
    service: Service, by_transaction: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", by_transaction)

    assert main(service, ["migrate"]) == 1
    assert "session mode" in capsys.readouterr().err


def test_a_worker_refuses_to_start_with_the_setting(service: Service, database_url: str) -> None:
    settings = service.settings.model_validate(
        {"database_url": database_url, "broker_url": "nats://localhost", "database_transaction_pooler": True}
    )
    with pytest.raises(SettingsError, match="DATABASE_TRANSACTION_POOLER"):
        worker(replace(service, messages=MESSAGES), settings)


def test_migrate_works_by_session(service: Service, by_session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", by_session)

    assert main(service, ["migrate"]) == 0


async def test_everything_that_a_worker_needs_works_by_session(by_session: str) -> None:
    stop, heard = asyncio.Event(), asyncio.Event()
    async with (
        Database(
            SecretStr(by_session), pool_size=1, name="tiny", command_timeout_seconds=5, outbox=Outbox(NO_MESSAGES)
        ) as database,
        only_replica(by_session, name="tiny-leader", lock=77, stop=stop) as lead,
        dedicated_connection(by_session, name="tiny-relay") as listening_connection,
    ):
        await listening_connection.add_listener("heard", lambda *_: heard.set())
        await database.execute("NOTIFY heard")
        await asyncio.wait_for(heard.wait(), 30)

        assert lead is not None
        assert lead.held
