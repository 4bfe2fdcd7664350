"""During an outage of the database requests get a 503, no message loses an attempt, and the logs report no bug."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, asynccontextmanager
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import httpx2
import pytest
from chassis import problems
from chassis.database import Database, DatabaseUnavailable, outages
from chassis.database import pool as chassis_database
from chassis.database.connection import dedicated_connection, is_gone
from chassis.dev import embedded
from chassis.http import reader
from chassis.messages import NO_MESSAGES
from chassis.messaging.outbox import Outbox
from chassis.web import middleware
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import SecretStr
from structlog.testing import CapturingLogger

from tests.chassis.sockets import listening
from tests.support import waiting
from tests.support.link import Link

PID = "SELECT pg_backend_pid()"
LIMIT_SECONDS = 4
"""The time limit of a request or a statement in this module."""

OUTAGES = ["08006", "25006", "26000", "42P05", "53100", "53200", "53300", "57P01", "57P03", "58030"]
FAILURES = ["22012", "23505", "40P01", "42P01", "53400", "55P03", "57014"]


def failing(state: str) -> str:
    """Make a statement that fails with this SQLSTATE."""
    return f"DO $$ BEGIN RAISE EXCEPTION 'provoked' USING ERRCODE = '{state}'; END $$"


def connected(url: str, **options: Any) -> Database:
    usual: dict[str, Any] = {"pool_size": 3, "name": "tiny", "outbox": Outbox(NO_MESSAGES)}
    usual["command_timeout_seconds"] = LIMIT_SECONDS
    return Database(SecretStr(url), **(usual | options))


@pytest.mark.parametrize("state", OUTAGES)
async def test_an_error_of_the_session_or_the_server_is_an_outage_and_ends_the_session(
    database: Database, state: str
) -> None:
    for transact in (database.unit_of_work, database.connection):
        first = await database.fetchrow(PID)
        with pytest.raises(
            DatabaseUnavailable, match=state if state not in ("26000", "42P05") else "DATABASE_TRANSACTION_POOLER=true"
        ):
            async with transact() as used:
                await getattr(used, "connection", used).execute(failing(state))

        assert await database.fetchrow(PID) != first


@pytest.mark.parametrize("state", FAILURES)
async def test_an_error_of_a_statement_is_no_outage(database: Database, state: str) -> None:
    first = await database.fetchrow(PID)
    with pytest.raises(asyncpg.PostgresError) as raised:
        async with database.unit_of_work() as uow:
            await uow.connection.execute(failing(state))

    assert raised.value.sqlstate == state
    assert await database.fetchrow(PID) == first


async def test_a_dedicated_connection_tells_an_outage_from_a_bug(database_url: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="53100"):
        async with dedicated_connection(database_url, name="tiny") as connection:
            await connection.execute(failing("53100"))
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with dedicated_connection(database_url, name="tiny") as connection:
            await connection.execute("SELECT 1 / 0")


async def test_a_result_type_that_a_migration_changes_fails_no_caller_that_can_start_again(
    database: Database, connection: asyncpg.Connection
) -> None:
    await connection.execute("CREATE TABLE tiny.kinds (a int)")
    try:
        for work in (read_kinds, transact_kinds):
            for kind in ("text", "integer"):
                await work(database)
                await connection.execute(f"ALTER TABLE tiny.kinds ALTER a TYPE {kind} USING NULL")
                assert await work(database) == []
    finally:
        await connection.execute("DROP TABLE tiny.kinds")


async def execute(connection: Any) -> None:
    await connection.execute("INSERT INTO tiny.kinds VALUES (1)")


async def execute_prepared(connection: Any) -> None:
    await (await connection.prepare("INSERT INTO tiny.kinds VALUES (1)")).fetch()


async def move_a_cursor(connection: Any) -> None:
    assert [row async for row in connection.cursor("INSERT INTO tiny.kinds VALUES (1) RETURNING 1")]


async def copy_records(connection: Any) -> None:
    await connection.copy_records_to_table("kinds", schema_name="tiny", records=[(1,)])


async def copy_file(connection: Any) -> None:
    await connection.copy_to_table("kinds", schema_name="tiny", source=BytesIO(b"1\n"))


async def copy_out(connection: Any) -> None:
    await connection.copy_from_query("INSERT INTO tiny.kinds VALUES (1) RETURNING 1", output=BytesIO())


@pytest.mark.parametrize("write", [execute, execute_prepared, move_a_cursor, copy_records, copy_file, copy_out])
async def test_a_transaction_with_effects_is_not_restarted(
    database: Database, connection: asyncpg.Connection, write: Callable[[Any], Any]
) -> None:
    await connection.execute("CREATE TABLE tiny.kinds (a int)")
    outcomes: list[Any] = []
    try:
        await transact_kinds(database)
        await connection.execute("ALTER TABLE tiny.kinds ALTER a TYPE bigint")
        for _ in range(2):
            try:
                async with database.unit_of_work() as uow:
                    await write(uow.connection)
                    outcomes.append(len(await uow.connection.fetch("SELECT a FROM tiny.kinds")))
            except DatabaseUnavailable:
                outcomes.append("unavailable")
    finally:
        await connection.execute("DROP TABLE tiny.kinds")

    assert outcomes == ["unavailable", 1]


async def read_kinds(database: Database) -> list[Any]:
    return await database.fetch("SELECT a FROM tiny.kinds")


async def transact_kinds(database: Database) -> list[Any]:
    async with database.unit_of_work() as uow:
        found = await uow.connection.fetch("SELECT a FROM tiny.kinds")
        assert await uow.connection.fetchval("SELECT txid_current()") == await uow.connection.fetchval(
            "SELECT txid_current()"
        )
        return found


async def test_many_requests_in_an_outage_are_answered_503_and_logged_in_one_line(
    make_app: Callable[..., FastAPI], link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = CapturingLogger()
    for module in (outages, problems, middleware):
        monkeypatch.setattr(module, "log", logger)
    async with listening(make_app(database_url=link.url)) as client:
        link.cut()
        answers = await asyncio.gather(*(client.post("/v1/things", json={"name": "x"}) for _ in range(20)))

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(503, "database_unavailable")}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
    assert [(call.method_name, call.args) for call in logger.calls] == [("warning", ("database_unavailable",))]


async def test_many_streams_that_meet_an_outage_are_cut_and_logged_in_one_line(
    make_app: Callable[..., FastAPI], link: Link, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(database_url=link.url)

    async def rows(database: Database) -> AsyncGenerator[bytes]:
        while True:
            await database.execute("SELECT 1")
            yield b"a row"
            await asyncio.sleep(0.01)

    @app.get("/rows")
    async def stream() -> StreamingResponse:
        return StreamingResponse(rows(reader()))

    async def follow(client: httpx2.AsyncClient, begun: asyncio.Semaphore) -> None:
        async with client.stream("GET", "/rows") as answer:
            assert answer.status_code == 200
            begun.release()
            async for _ in answer.aiter_bytes():
                pass

    logger, begun = CapturingLogger(), asyncio.Semaphore(0)
    for module in (outages, problems, middleware):
        monkeypatch.setattr(module, "log", logger)
    async with listening(app) as client:
        streams = [asyncio.create_task(follow(client, begun)) for _ in range(5)]
        for _ in streams:
            await begun.acquire()
        link.cut()
        ends = await asyncio.gather(*streams, return_exceptions=True)
        answer = await client.get("/v1/things")

    assert [type(end) for end in ends] == [httpx2.RemoteProtocolError] * 5
    assert answer.status_code == 503
    assert [(call.method_name, call.args) for call in logger.calls] == [("warning", ("database_unavailable",))]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


# A server that does not answer.


async def in_a_transaction(database: Database) -> None:
    async with database.unit_of_work() as uow:
        await uow.connection.execute("SELECT 1")


async def in_a_savepoint(database: Database) -> None:
    async with database.unit_of_work() as uow, uow.connection.transaction():
        await uow.connection.execute("SELECT 1")


async def alone(database: Database) -> None:
    await database.fetch("SELECT 1")


@pytest.mark.slow
@pytest.mark.parametrize("work", [in_a_transaction, in_a_savepoint, alone])
async def test_a_caller_that_gives_up_on_a_dead_connection_does_not_wait_a_second_time(
    link: Link, work: Callable[[Database], Any]
) -> None:
    async with connected(link.url, command_timeout_seconds=30, observe=lambda *_: None) as database:
        await work(database)
        async with database.connection() as connection:
            await connection.execute("SELECT 1")
            link.freeze()
        started = time.monotonic()
        with pytest.raises((TimeoutError, DatabaseUnavailable)):
            async with asyncio.timeout(1):
                await work(database)
        took = time.monotonic() - started

        link.restore()
        await work(database)

    assert took < 15  # a wait for the limit of a statement would take 31 s


@pytest.mark.slow
@pytest.mark.parametrize("work", [in_a_transaction, in_a_savepoint, alone])
async def test_a_statement_without_an_answer_is_an_outage(link: Link, work: Callable[[Database], Any]) -> None:
    async with connected(link.url, command_timeout_seconds=1, observe=lambda *_: None) as database:
        await work(database)
        link.freeze()
        with pytest.raises(DatabaseUnavailable):
            await work(database)


async def test_a_statement_that_is_slow_by_itself_is_no_outage(database_url: str) -> None:
    async with connected(database_url, command_timeout_seconds=0.3) as database:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with database.unit_of_work() as uow:
                    await uow.connection.execute("SELECT pg_sleep(20)")
            with pytest.raises(TimeoutError):
                await database.fetch("SELECT pg_sleep(20)")


@pytest.mark.slow
async def test_a_request_whose_connection_is_dead_is_answered_when_its_time_is_over(
    make_app: Callable[..., FastAPI], link: Link, connection: asyncpg.Connection
) -> None:
    app = make_app(database_url=link.url, request_timeout_seconds=LIMIT_SECONDS)
    async with listening(app) as client:
        assert (await client.post("/v1/things", json={"name": "x"})).status_code == 201
        link.freeze()
        started = time.monotonic()
        answer = await client.post("/v1/things", json={"name": "y"})
        took = time.monotonic() - started
        link.restore()
    await connection.execute("DELETE FROM tiny.things")

    assert (answer.status_code, answer.json()["code"]) == (503, "timed_out")
    assert took < 2 * LIMIT_SECONDS


# A process that is stopped inside a transaction.


@pytest.mark.slow
async def test_a_process_that_is_stopped_in_a_transaction_loses_its_locks(
    link: Link, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis_database, "SPARE_SECONDS", 0)

    async def hold() -> None:
        async with database.unit_of_work() as uow:
            await uow.connection.execute("LOCK TABLE tiny.things")
            link.freeze()
            async with asyncio.timeout(60):
                await connection.execute("LOCK TABLE tiny.things")
            link.restore()

    async with connected(link.url, command_timeout_seconds=1) as database, connection.transaction():
        with pytest.raises(DatabaseUnavailable):
            await hold()


async def test_a_session_has_limits_for_a_transaction_that_nobody_ends(database: Database, database_url: str) -> None:
    async with database.connection() as pooled, dedicated_connection(database_url, name="tiny") as dedicated:
        for connection in (pooled, dedicated):
            assert await connection.fetchval("SHOW idle_in_transaction_session_timeout") == "40s"
            assert await connection.fetchval("SHOW transaction_timeout") == "4000s"


async def test_a_limit_that_the_role_sets_is_left_alone(database_url: str) -> None:
    url = urlsplit(database_url)._replace(query="options=-c%20idle_in_transaction_session_timeout%3D7s").geturl()
    async with connected(url) as database, database.connection() as connection:
        assert await connection.fetchval("SHOW idle_in_transaction_session_timeout") == "7s"


async def test_a_limit_of_the_role_that_is_shorter_than_ours_is_logged_once(
    database_url: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis_database, "log", logger := CapturingLogger())
    limits = {"statement_timeout": "1s", "lock_timeout": "30s", "transaction_timeout": "2s"}
    role = f"hasty_{uuid4().hex[:8]}"
    await connection.execute(f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'hasty'")
    try:
        for name, limit in limits.items():
            await connection.execute(f"ALTER ROLE {role} SET {name} = '{limit}'")
        parts = urlsplit(database_url)
        url = parts._replace(netloc=f"{role}:hasty@{parts.hostname}:{parts.port}").geturl()
        async with connected(url) as database, database.connection(), database.connection():
            pass
    finally:
        await connection.execute(f"DROP ROLE {role}")

    assert {(call.kwargs["name"], call.kwargs["seconds"]) for call in logger.calls} == {
        ("statement_timeout", 1),
        ("transaction_timeout", 2),
    }
    assert len(logger.calls) == 2
    assert {call.args for call in logger.calls} == {("database_limit_short",)}


# Two hosts: only one of the hosts accepts writes.


@pytest.fixture(scope="module")
def hosts() -> Generator[list[str]]:
    """Two servers with the same database, each as host:port."""
    with ExitStack() as stack:
        yield [_prepared(stack.enter_context(embedded.temporary_postgres())) for _ in range(2)]


def _prepared(url: str) -> str:
    async def prepare() -> None:
        admin = await asyncpg.connect(url)
        await admin.execute("CREATE ROLE app SUPERUSER LOGIN PASSWORD 'app'")
        await admin.execute("CREATE SCHEMA tiny")
        await admin.execute("CREATE TABLE tiny.things (id uuid, name text, email text)")
        await admin.execute(
            "CREATE SCHEMA chassis; CREATE TABLE chassis.migrations AS SELECT unnest(ARRAY['chassis_0003', '0001']) AS revision"
        )
        await admin.close()

    asyncio.run(prepare())
    return urlsplit(url).netloc.rpartition("@")[2]


@asynccontextmanager
async def read_only(host: str) -> AsyncGenerator[None]:
    """Make the server refuse writes, in open sessions too, as after a failover or with a full disk."""
    admin = await asyncpg.connect(f"postgresql://app:app@{host}/postgres")
    try:
        await admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await admin.execute("SELECT pg_reload_conf()")
        yield
    finally:
        await admin.execute("SET default_transaction_read_only = off")
        await admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
        await admin.execute("SELECT pg_reload_conf()")
        await admin.close()


async def until(ask: Callable[..., Any], status: int, **request: Any) -> None:
    """Repeat the request until the answer has this status: a server applies a new configuration a little later."""
    async with asyncio.timeout(60):
        while (await ask(**request)).status_code != status:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_host_that_turns_read_only_is_left_for_a_host_that_accepts_writes(
    make_app: Callable[..., FastAPI], hosts: list[str]
) -> None:
    url = f"postgresql://app:app@{','.join(hosts)}/postgres?target_session_attrs=read-write"
    post: dict[str, Any] = {"url": "/v1/things", "json": {"name": "x"}}
    async with listening(make_app(database_url=url)) as client:
        first = await asyncio.gather(*(client.post(**post) for _ in range(5)))
        assert (await client.get("/readyz")).status_code == 200
        async with read_only(hosts[0]):
            await until(client.post, 503, **post)
            await until(client.post, 201, **post)
            statuses = [(await client.post(**post)).status_code for _ in range(10)]
            await until(client.get, 200, url="/readyz")
            async with read_only(hosts[1]):
                await until(client.post, 503, **post)
                await until(client.get, 503, url="/readyz")
                last = [(await client.post(**post)).status_code for _ in range(3)]
                unready = [(await client.get("/readyz")).status_code for _ in range(3)]

    assert {answer.status_code for answer in first} == {201}
    assert set(statuses) == {201}
    assert set(last) == {503}
    assert set(unready) == {503}


async def outlive_the_session(database: Database) -> None:
    """Take longer than the time limit, in a transaction whose session the server has ended meanwhile."""
    async with database.unit_of_work() as uow:
        pid = await uow.connection.fetchval("SELECT pg_backend_pid()")
        await database.execute("SELECT pg_terminate_backend($1)", pid)
        await waiting.until(lambda: is_gone(uow.connection))
        raise TimeoutError("longer than its limit")


async def test_a_time_limit_that_ends_after_the_session_is_told_as_a_time_limit(database: Database) -> None:
    with pytest.raises(TimeoutError, match="longer than its limit"):
        await outlive_the_session(database)
