"""A migration may change a type while the service runs. A statement that can be repeated still succeeds.

Any other statement fails at most once on each connection.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from io import BytesIO
from typing import Any

import asyncpg
import pytest
from chassis.database import Database, DatabaseUnavailable
from chassis.messages import NO_MESSAGES
from chassis.messaging.outbox import Outbox
from pydantic import SecretStr

# For each change: the table before it, the migration, and a value that fits before and after.
CHANGES: dict[str, tuple[str, str, Any, Any]] = {
    "an enum that loses a value": (
        "CREATE TYPE changing.kind AS ENUM ('a', 'b'); CREATE TABLE changing.rows (a changing.kind)",
        "ALTER TYPE changing.kind RENAME TO old; CREATE TYPE changing.kind AS ENUM ('a');"
        " ALTER TABLE changing.rows ALTER a TYPE changing.kind USING a::text::changing.kind; DROP TYPE changing.old",
        "a",
        "a",
    ),
    "an array of an enum that is made anew": (
        "CREATE TYPE changing.kind AS ENUM ('a', 'b'); CREATE TABLE changing.rows (a changing.kind[])",
        "DROP TABLE changing.rows; DROP TYPE changing.kind;"
        " CREATE TYPE changing.kind AS ENUM ('a'); CREATE TABLE changing.rows (a changing.kind[])",
        ["a"],
        ["a"],
    ),
    "a domain that is made anew": (
        "CREATE DOMAIN changing.count AS int; CREATE TABLE changing.rows (a changing.count)",
        "DROP TABLE changing.rows; DROP DOMAIN changing.count;"
        " CREATE DOMAIN changing.count AS int CHECK (value > 0); CREATE TABLE changing.rows (a changing.count)",
        1,
        1,
    ),
    "a column of another type": (
        "CREATE TABLE changing.rows (a text)",
        "ALTER TABLE changing.rows ALTER a TYPE uuid USING a::uuid",
        "0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d",
        "0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d",
    ),
    "a column that is made anew": (
        "CREATE TABLE changing.rows (a int)",
        "ALTER TABLE changing.rows DROP a; ALTER TABLE changing.rows ADD a text",
        1,
        "one",
    ),
    "a table that is made anew": (
        "CREATE TABLE changing.rows (a int)",
        "DROP TABLE changing.rows; CREATE TABLE changing.rows (b int, a int)",
        1,
        1,
    ),
    "a wider number": (
        "CREATE TABLE changing.rows (a int)",
        "ALTER TABLE changing.rows ALTER a TYPE bigint",
        1,
        2**40,
    ),
    "a composite with one more attribute": (
        "CREATE TYPE changing.pair AS (x int); CREATE TABLE changing.rows (a changing.pair)",
        "ALTER TYPE changing.pair ADD ATTRIBUTE y int",
        (1,),
        (1, 2),
    ),
}
INSERT = "INSERT INTO changing.rows (a) VALUES ($1)"


async def select(connection: Any, _: Any) -> None:
    await connection.fetch("SELECT a FROM changing.rows")


async def compare(connection: Any, value: Any) -> None:
    if not isinstance(value, tuple):  # asyncpg takes a tuple for a composite value only
        await connection.fetch("SELECT FROM changing.rows WHERE a = $1", value)


async def insert(connection: Any, value: Any) -> None:
    await connection.execute(INSERT, value)


async def insert_many(connection: Any, value: Any) -> None:
    await connection.executemany(INSERT, ((value,) for _ in range(3)))


async def insert_many_returning(connection: Any, value: Any) -> None:
    assert len(await connection.fetchmany(f"{INSERT} RETURNING a", ((value,) for _ in range(3)))) == 3


async def move_a_cursor(connection: Any, _: Any) -> None:
    async with connection.transaction():
        async for _ in connection.cursor("SELECT a FROM changing.rows"):
            pass


async def copy_in(connection: Any, value: Any) -> None:
    await connection.copy_records_to_table("rows", schema_name="changing", columns=["a"], records=[(value,)])


async def copy_out(connection: Any, _: Any) -> None:
    await connection.copy_from_query("SELECT a FROM changing.rows", output=BytesIO())


USES = [select, compare, insert, insert_many, insert_many_returning, move_a_cursor, copy_in, copy_out]
Use = Callable[[Any, Any], Any]


async def alone(database: Database, use: Use, value: Any) -> None:
    async with database.connection() as connection:
        await use(connection, value)


async def first_in_a_transaction(database: Database, use: Use, value: Any) -> None:
    async with database.unit_of_work() as uow:
        await use(uow.connection, value)


async def later_in_a_transaction(database: Database, use: Use, value: Any) -> None:
    async with database.unit_of_work() as uow:
        await uow.connection.execute("SELECT 1")
        await use(uow.connection, value)


@pytest.fixture
async def pool(database_url: str, connection: asyncpg.Connection) -> AsyncGenerator[Database]:
    """A pool of two connections for one test, and an empty schema `changing`."""
    await connection.execute("CREATE SCHEMA changing")
    options: dict[str, Any] = {"pool_size": 2, "name": "tiny", "command_timeout_seconds": 30}
    try:
        async with Database(SecretStr(database_url), outbox=Outbox(NO_MESSAGES), **options) as pool:
            yield pool
    finally:
        await connection.execute("DROP SCHEMA changing CASCADE")


async def start_anew(pool: Database, make: str) -> None:
    """Make the schema again, and let the connections of the pool drop their caches."""
    async with pool.connection() as connection:
        await connection.execute(f"DROP SCHEMA changing CASCADE; CREATE SCHEMA changing; {make}")
        await connection.reload_schema_state()


async def on_both_connections(pool: Database, work: Callable[..., Any], use: Use, value: Any) -> None:
    async with pool.connection():
        await work(pool, use, value)
    await asyncio.gather(*(work(pool, use, value) for _ in range(2)))


@pytest.mark.parametrize("change", CHANGES)
async def test_a_changed_type_fails_no_statement_that_can_be_repeated(
    pool: Database, connection: asyncpg.Connection, change: str
) -> None:
    make, migrate, before, after = CHANGES[change]
    for use in USES:
        for work in (alone, first_in_a_transaction):
            await start_anew(pool, make)
            await on_both_connections(pool, work, use, before)
            await connection.execute(f"DELETE FROM changing.rows; {migrate}")
            await on_both_connections(pool, work, use, after)


@pytest.mark.parametrize("change", CHANGES)
async def test_a_changed_type_fails_a_later_statement_of_a_transaction_at_most_once_for_each_connection(
    pool: Database, connection: asyncpg.Connection, change: str
) -> None:
    make, migrate, before, after = CHANGES[change]
    for use in USES:
        await start_anew(pool, make)
        await on_both_connections(pool, later_in_a_transaction, use, before)
        await connection.execute(f"DELETE FROM changing.rows; {migrate}")

        failures = []
        for _ in range(5):
            try:
                await later_in_a_transaction(pool, use, after)
            except DatabaseUnavailable as error:
                failures.append(error)
            # An argument that asyncpg refuses may also be a mistake of the caller, so this is no outage.
            except asyncpg.DataError as error:
                failures.append(error)
                assert before != after

        assert len(failures) <= 2, failures


async def test_rows_from_an_iterator_are_all_stored_after_a_changed_type(
    pool: Database, connection: asyncpg.Connection
) -> None:
    make, migrate, before, after = CHANGES["a column of another type"]
    await connection.execute(make)
    await pool.executemany(INSERT, [(before,)])
    await connection.execute(f"DELETE FROM changing.rows; {migrate}")

    await pool.executemany(INSERT, ((after,) for _ in range(1000)))

    assert await connection.fetchval("SELECT count(*) FROM changing.rows") == 1000


async def test_copied_numbers_are_stored_unchanged_after_a_changed_type(
    pool: Database, connection: asyncpg.Connection
) -> None:
    await connection.execute("CREATE TABLE changing.rows (a int)")
    await alone(pool, copy_in, 1)
    await connection.execute("DELETE FROM changing.rows; ALTER TABLE changing.rows ALTER a TYPE real")

    await alone(pool, copy_in, 1)

    assert await connection.fetchval("SELECT a FROM changing.rows") == 1.0


async def test_a_mistake_in_a_statement_or_an_argument_is_no_outage(
    pool: Database, connection: asyncpg.Connection
) -> None:
    await connection.execute("CREATE TABLE changing.rows (a int)")
    await pool.execute(INSERT, 1)
    for _ in range(3):
        for work in (alone, first_in_a_transaction, later_in_a_transaction):
            with pytest.raises(asyncpg.UndefinedFunctionError):
                await work(pool, lambda used, _: used.fetch("SELECT FROM changing.rows WHERE a = 'x'::text"), None)
            with pytest.raises(asyncpg.DataError, match="int32"):
                await work(pool, insert, 2**40)


async def test_a_type_of_a_transaction_that_was_rolled_back_fails_no_later_statement(
    pool: Database, connection: asyncpg.Connection
) -> None:
    make, *_ = CHANGES["an enum that loses a value"]
    async with pool.connection() as used:
        transaction = used.transaction()
        await transaction.start()
        await used.execute(make)
        await insert(used, "a")
        await transaction.rollback()
    await connection.execute(make)

    await first_in_a_transaction(pool, insert, "a")
