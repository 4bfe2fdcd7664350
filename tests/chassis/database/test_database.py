"""Statements mean the same as with SQLAlchemy; transactions commit or leave nothing; outages pass."""

import asyncio
import enum
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest
import sqlalchemy as sa
from chassis.database import Database, DatabaseUnavailable, Statement, metadata_for
from chassis.database.connection import ALIVE, Session
from chassis.messages import NO_MESSAGES
from chassis.messaging.outbox import Outbox
from fastapi import FastAPI
from pydantic import SecretStr

from tests.chassis.tiny.api import BY_ID, INSERT
from tests.chassis.tiny.tables import things
from tests.support.link import Link
from tests.support.waiting import until

ID = UUID("0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d")
ASLEEP = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"


POOL_SIZE = 3


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


pens = sa.Table(
    "pens",
    metadata_for("tiny"),
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("colour", sa.Enum(Colour, name="colour", schema="tiny"), nullable=False),
    sa.Column("price", sa.Numeric(38, 2), nullable=True),
    sa.Column("bought_on", sa.Date, nullable=True),
    sa.Column("facts", sa.JSON, nullable=True),
    sa.Column("count", sa.Integer, nullable=False, server_default="1"),
)

GOLDEN = {
    "select": (
        Statement(sa.select(pens.c.id).where(pens.c.colour == sa.bindparam("colour")).limit(sa.bindparam("limit"))),
        {"limit": 5, "colour": Colour.RED},
        "SELECT tiny.pens.id FROM tiny.pens WHERE tiny.pens.colour = $1::tiny.colour LIMIT $2",
        ["RED", 5],
    ),
    "select with a literal": (
        Statement(sa.select(pens.c.id).where(pens.c.count > 3, pens.c.id < sa.bindparam("after"))),
        {"after": ID},
        "SELECT tiny.pens.id FROM tiny.pens WHERE tiny.pens.count > $1::INTEGER AND tiny.pens.id < $2::UUID",
        [3, ID],
    ),
    "insert": (
        Statement(sa.insert(pens), columns=["id", "colour", "price", "bought_on", "facts"]),
        {"id": ID, "colour": Colour.BLUE, "price": Decimal("1.50"), "bought_on": date(2027, 1, 31), "facts": {"a": 1}},
        "INSERT INTO tiny.pens (id, colour, price, bought_on, facts) "
        "VALUES ($1::UUID, $2::tiny.colour, $3::NUMERIC(38, 2), $4::DATE, $5::JSON)",
        [ID, "BLUE", Decimal("1.50"), date(2027, 1, 31), '{"a": 1}'],
    ),
    "update": (
        Statement(sa.update(pens).where(pens.c.id == sa.bindparam("pen")), columns=["price", "bought_on"]),
        {"pen": ID, "price": None, "bought_on": None},
        "UPDATE tiny.pens SET price=$1::NUMERIC(38, 2), bought_on=$2::DATE WHERE tiny.pens.id = $3::UUID",
        [None, None, ID],
    ),
    "update to null": (
        Statement(sa.update(pens).where(pens.c.id == sa.bindparam("pen")).values(price=None)),
        {"pen": ID},
        "UPDATE tiny.pens SET price=$1::NUMERIC(38, 2) WHERE tiny.pens.id = $2::UUID",
        [None, ID],
    ),
    "delete": (
        Statement(sa.delete(pens).where(pens.c.id == sa.bindparam("pen"))),
        {"pen": ID},
        "DELETE FROM tiny.pens WHERE tiny.pens.id = $1::UUID",
        [ID],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_statement_compiles_to_this_sql_with_its_arguments_in_this_order(name: str) -> None:
    statement, parameters, sql, arguments = GOLDEN[name]

    assert " ".join(statement.sql.split()) == sql
    assert statement.arguments(parameters) == arguments


def test_a_missing_parameter_is_an_error_that_names_the_parameter() -> None:
    with pytest.raises(KeyError, match="name"):
        INSERT.arguments({"id": ID, "email": None})


async def test_values_of_every_type_pass_through_a_real_table(connection: asyncpg.Connection) -> None:
    await connection.execute("""
        CREATE TYPE tiny.colour AS ENUM ('RED', 'BLUE');
        CREATE TABLE tiny.pens (id uuid, colour tiny.colour, price numeric(38, 2), bought_on date, facts json,
                                count integer NOT NULL DEFAULT 1)
    """)
    try:
        price = Decimal("9" * 36 + ".99")
        row = {"id": ID, "colour": Colour.RED, "price": price, "bought_on": date.max, "facts": ["é", "\U0001f58a"]}
        insert, *_ = GOLDEN["insert"]
        assert await insert.run(connection, **row) == 1

        found = await Statement(sa.select(pens)).one(connection)
    finally:
        await connection.execute("DROP TABLE tiny.pens; DROP TYPE tiny.colour")

    assert found is not None
    assert (found["id"], found["colour"], found["price"], found["bought_on"]) == (ID, Colour.RED, price, date.max)


async def test_a_statement_returns_one_row_all_rows_or_the_number_of_changed_rows(database: Database) -> None:
    for number in range(3):
        assert await INSERT.run(database, id=UUID(int=number), name=f"thing {number}", email=None) == 1
    everything = Statement(sa.select(things).order_by(things.c.id))

    first = await everything.one(database)

    assert first is not None
    assert first["name"] == "thing 0"
    assert [row["name"] for row in await everything.all(database)] == ["thing 0", "thing 1", "thing 2"]
    assert await BY_ID.one(database, id=uuid4()) is None
    assert await BY_ID.all(database, id=uuid4()) == []
    assert await Statement(sa.delete(things)).run(database) == 3


async def test_a_transaction_is_visible_to_others_only_after_its_end(
    database: Database, connection: asyncpg.Connection
) -> None:
    async with database.unit_of_work() as uow:
        await INSERT.run(uow.connection, id=ID, name="lamp", email=None)
        assert await BY_ID.one(connection, id=ID) is None

    assert await BY_ID.one(connection, id=ID) is not None


async def test_a_transaction_that_fails_leaves_nothing(database: Database, connection: asyncpg.Connection) -> None:
    async def fail_inside() -> None:
        async with database.unit_of_work() as uow:
            await INSERT.run(uow.connection, id=ID, name="lamp", email=None)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_inside()

    assert await BY_ID.one(connection, id=ID) is None


async def test_a_cancelled_transaction_leaves_nothing_and_gives_its_connection_back(
    database: Database, connection: asyncpg.Connection
) -> None:
    async def wait_inside() -> None:
        async with database.unit_of_work() as uow:
            await INSERT.run(uow.connection, id=ID, name="lamp", email=None)
            await uow.connection.execute("SELECT pg_sleep(30)")

    task = asyncio.create_task(wait_inside())
    await until(lambda: connection.fetchval(ASLEEP))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await BY_ID.one(connection, id=ID) is None
    await until(lambda: not database.usage().used)


async def test_a_question_for_missing_migrations_that_is_cancelled_gives_its_connection_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never_answers(*args: object) -> bool:
        await asyncio.sleep(60)
        return False

    monkeypatch.setattr("chassis.database.pool.is_unmigrated", never_answers)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5), database.connection() as connection:
            await connection.execute("SELECT * FROM no_such_table")
    await until(lambda: not database.usage().used)


async def test_the_next_user_of_a_connection_finds_no_open_transaction(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(database_pool_size=1)
    async with app.router.lifespan_context(app):
        database: Database = app.state.database
        with pytest.raises(asyncpg.UndefinedTableError):
            async with database.unit_of_work() as uow:
                await uow.connection.execute("SELECT * FROM no_such_table")

        first, second = [await database.fetchrow("SELECT txid_current()") for _ in range(2)]

    assert first != second


@pytest.mark.filterwarnings("ignore:.*active transaction")
async def test_a_transaction_that_was_left_open_by_hand_ends_with_its_user(link: Link) -> None:
    async with connected(link) as database:
        async with database.connection() as connection:
            await connection.execute("BEGIN")
            left = await connection.fetchval("SELECT txid_current()")
        found = await database.fetchrow("SELECT txid_current()")

    assert found is not None
    assert found[0] != left


async def test_closing_closes_every_connection_that_was_opened(link: Link, connection: asyncpg.Connection) -> None:
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    before = await connection.fetchval(count)
    async with connected(link) as database:
        await asyncio.gather(*(database.fetchrow("SELECT pg_sleep(0.05)") for _ in range(POOL_SIZE)))
        assert await connection.fetchval(count) == before + POOL_SIZE

    async def all_are_closed() -> bool:
        return await connection.fetchval(count) == before

    await until(all_are_closed)


@pytest.mark.slow
async def test_a_change_that_fails_at_commit_is_never_answered_with_success(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    assert (await client.post("/v1/things", json={"name": "lamp"})).status_code == 201

    refused = await client.post("/v1/things", json={"name": "lamp"})  # the constraint is deferred: COMMIT fails

    assert refused.status_code == 500
    assert len((await client.get("/v1/things")).json()) == 1


async def test_a_change_that_was_answered_with_success_is_committed(
    client: httpx2.AsyncClient, connection: asyncpg.Connection
) -> None:
    created = (await client.post("/v1/things", json={"name": "lamp"})).json()

    assert await BY_ID.one(connection, id=UUID(created["id"])) is not None


async def test_an_unreachable_server_is_database_unavailable_until_its_return(link: Link) -> None:
    async with connected(link) as database:
        assert await database.fetchrow("SELECT 1")

        link.cut()
        for _ in range(2):  # the first attempt finds a broken connection, and the second makes a new connection
            with pytest.raises(DatabaseUnavailable):
                await database.fetchrow("SELECT 1")

        link.restore()
        assert await database.fetchrow("SELECT 1")


async def test_a_process_starts_without_a_server_and_connects_later(link: Link) -> None:
    link.cut()
    async with connected(link) as database:
        with pytest.raises(DatabaseUnavailable):
            await database.fetchrow("SELECT 1")

        link.restore()
        assert await database.fetchrow("SELECT 1")


async def test_a_server_that_goes_away_in_a_transaction_is_database_unavailable(link: Link) -> None:
    async with connected(link) as database:
        with pytest.raises(DatabaseUnavailable):
            await lose_the_server_inside(database, link)

        link.restore()
        assert await BY_ID.one(database, id=ID) is None


async def test_a_server_that_ends_our_connections_is_database_unavailable_at_most_once_each(
    link: Link, connection: asyncpg.Connection
) -> None:
    async with connected(link) as database:
        row = await database.fetchrow("SELECT pg_backend_pid() AS pid")
        assert row is not None
        await connection.execute("SELECT pg_terminate_backend($1)", row["pid"])
        with pytest.raises(DatabaseUnavailable):
            async with database.connection() as ours:
                await ours.execute("SELECT pg_terminate_backend(pg_backend_pid())")

        assert await database.fetchrow("SELECT 1")


async def test_a_free_connection_is_taken_while_another_connection_is_closed(database_url: str) -> None:
    closes, may_close = asyncio.Event(), asyncio.Event()

    class Slow(Session):
        async def close(self, **options: Any) -> None:
            closes.set()
            await may_close.wait()
            await super().close(**options)

    class Pool(Database):
        session = Slow

    async with (
        asyncio.timeout(30),
        Pool(SecretStr(database_url), pool_size=2, name="tiny", command_timeout_seconds=10) as pool,
    ):
        async with pool.connection() as free:
            pid = free.get_server_pid()
            with pytest.raises(asyncio.CancelledError):
                async with pool.connection():
                    raise asyncio.CancelledError
            waiting = asyncio.ensure_future(pool.fetchrow("SELECT pg_backend_pid()"))
            await closes.wait()
        assert await waiting == (pid,)
        may_close.set()
        async with pool.connection(), pool.connection():  # both places are free again
            pass


def test_a_database_serves_one_event_loop_after_another(database_url: str) -> None:
    database = Database(SecretStr(database_url), pool_size=1, name="tiny", command_timeout_seconds=10)

    async def compete() -> list[Any]:
        async with asyncio.timeout(30), database:
            return await asyncio.gather(*(database.fetchrow("SELECT 1") for _ in range(3)))

    assert [asyncio.run(compete()) for _ in range(2)] == [[(1,), (1,), (1,)]] * 2


async def test_an_observer_is_called_after_the_end_of_each_statement(database_url: str) -> None:
    observed: list[tuple[str, int, BaseException | None]] = []
    began = time.time_ns()
    async with Database(
        SecretStr(database_url),
        pool_size=1,
        name="tiny",
        command_timeout_seconds=10,
        outbox=Outbox(NO_MESSAGES),
        observe=lambda *statement: observed.append(statement),
    ) as database:
        async with database.connection() as connection:
            assert await connection.execute("SELECT 1") == "SELECT 1"
            assert await connection.execute("SELECT $1::int", 2) == "SELECT 1"
            assert len(await connection.fetch("SELECT $1::int", 3)) == 1
            assert await connection.fetchval("SELECT $1::int, 4", 3, column=1) == 4
            assert await connection.fetchrow("SELECT 5", timeout=5) == (5,)
            assert await connection.fetchmany("SELECT $1::int", [(6,), (7,)]) == [(6,), (7,)]
            await connection.executemany("SELECT $1::int", [(8,)])
            await connection.executemany(command="SELECT $1::int", args=[(9,)])
            assert await connection.fetchval(query="SELECT 6") == 6
            with pytest.raises(asyncpg.UndefinedColumnError):
                await connection.fetchval("SELECT no_such_column")
        async with database.unit_of_work():
            pass
    ended = time.time_ns()

    one, any_number = "SELECT 1", "SELECT $1::int"
    assert [query for query, *_ in observed] == [
        one,
        any_number,
        any_number,
        "SELECT $1::int, 4",
        "SELECT 5",
        any_number,
        any_number,
        any_number,
        "SELECT 6",
        "SELECT no_such_column",
        "BEGIN;",
        "COMMIT;",
    ]
    assert [type(error) for *_, error in observed if error is not None] == [asyncpg.UndefinedColumnError]
    times = [started for _, started, _ in observed]
    assert began <= times[0]
    assert times[-1] <= ended
    assert times == sorted(times)


async def test_a_wrong_password_is_database_unavailable(database_url: str) -> None:
    credentials, _, host = database_url.rpartition("@")
    wrong = Database(
        SecretStr(f"{credentials}x@{host}"),
        pool_size=1,
        name="tiny",
        command_timeout_seconds=10,
        outbox=Outbox(NO_MESSAGES),
    )
    async with wrong:
        with pytest.raises(DatabaseUnavailable):
            await wrong.fetchrow("SELECT 1")


@pytest.mark.slow
async def test_closing_is_not_held_up_by_a_server_that_does_not_answer(link: Link) -> None:
    async with asyncio.timeout(60), connected(link) as database:
        await database.fetchrow("SELECT 1")
        link.freeze()


async def test_many_requests_share_few_connections_even_if_some_fail_or_are_cancelled(link: Link) -> None:
    async def work(database: Database, number: int) -> None:
        async with database.unit_of_work() as uow:
            await uow.connection.execute("SELECT pg_sleep(0.02)")
            if number % 5 == 1:
                raise ZeroDivisionError
            if number % 5 == 2:
                await uow.connection.execute("SELECT no_such_column")

    async with connected(link) as database:
        tasks = [asyncio.create_task(work(database, number)) for number in range(40)]
        await until(lambda: database.usage().used)
        for task in tasks[3::5]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        used, idle, waiting = database.usage()

        assert await database.fetchrow("SELECT 1")

    assert {type(outcome) for outcome in outcomes[0::5] + outcomes[4::5]} == {type(None)}
    assert {type(outcome) for outcome in outcomes[1::5]} == {ZeroDivisionError}
    assert {type(outcome) for outcome in outcomes[2::5]} == {asyncpg.UndefinedColumnError}
    assert (used, waiting) == (0, 0)
    assert 0 < idle <= POOL_SIZE


async def test_usage_counts_used_and_idle_connections_and_waiting_tasks(link: Link) -> None:
    async with connected(link) as database:
        assert database.usage() == (0, 0, 0)
        async with AsyncExitStack() as stack:
            for _ in range(POOL_SIZE):
                await stack.enter_async_context(database.connection())
            late = asyncio.create_task(database.fetchrow("SELECT 1"))
            cancelled = asyncio.create_task(database.fetchrow("SELECT 1"))
            await asyncio.sleep(0)
            assert database.usage() == (POOL_SIZE, 0, 2)
            cancelled.cancel()
            await asyncio.wait([cancelled])
            assert database.usage().waiting == 1
        await late
        assert database.usage() == (0, POOL_SIZE, 0)


async def test_a_task_that_waits_gets_the_connection_of_another_without_the_pool(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquired: list[object] = []
    acquire = asyncpg.Pool.acquire
    monkeypatch.setattr(asyncpg.Pool, "acquire", lambda pool, **rest: acquired.append(pool) or acquire(pool, **rest))

    async with connected(link) as database:
        await asyncio.gather(*(database.fetchrow("SELECT pg_sleep(0.01)") for _ in range(8 * POOL_SIZE)))

    assert len(acquired) == POOL_SIZE


async def test_the_server_sees_the_service_by_name(link: Link) -> None:
    async with connected(link) as database:
        row = await database.fetchrow("SHOW application_name")

    assert row is not None
    assert row["application_name"] == "tiny"


async def test_a_process_that_vanishes_keeps_its_locks_for_half_a_minute_not_for_hours(link: Link) -> None:
    async with connected(link) as database, database.connection() as connection:
        shown = [await connection.fetchval(f"SHOW {name}") for name in ALIVE]

    assert shown == list(ALIVE.values())


async def test_a_connection_that_nobody_has_used_for_long_is_closed(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.database.at_hand.IDLE_SECONDS", 0.3)
    async with connected(link) as database:
        await asyncio.gather(*(database.fetchrow("SELECT pg_sleep(0.1)") for _ in range(POOL_SIZE)))
        assert database.usage() == (0, POOL_SIZE, 0)
        async with asyncio.timeout(20):
            while database.usage().idle > 1:
                await database.fetchrow("SELECT 1")  # only this connection is used again, so only it stays open
                await asyncio.sleep(0.05)
        await until(lambda: not database.usage().idle)
        assert await database.fetchrow("SELECT 1") is not None


async def lose_the_server_inside(database: Database, link: Link) -> None:
    async with database.unit_of_work() as uow:
        await INSERT.run(uow.connection, id=ID, name="lamp", email=None)
        link.cut()
        await uow.connection.execute("SELECT 1")


def connected(link: Link) -> Database:
    return Database(
        SecretStr(link.url), pool_size=POOL_SIZE, name="tiny", command_timeout_seconds=5, outbox=Outbox(NO_MESSAGES)
    )


def test_a_statement_that_sqlalchemy_would_rewrite_at_each_run_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="ANY"):
        Statement(sa.select(things).where(things.c.name.in_(sa.bindparam("names", expanding=True))))
