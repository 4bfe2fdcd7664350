"""A Statement stores and returns the same as an SQLAlchemy engine, or is refused when its module is imported."""

import enum
from collections.abc import AsyncGenerator, Callable
from itertools import count
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import sqlalchemy as sa
from chassis.database import Database, Statement, metadata_for
from chassis.database.migrate import engine_for
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncConnection


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Shouted(sa.TypeDecorator):
    """A text that is stored in small letters, with `nothing` for None, and read in capitals."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str:
        return "nothing" if value is None else value.lower()

    def process_result_value(self, value: str | None, dialect: Any) -> str | None:
        return value and value.upper()


class Tags(sa.TypeDecorator):
    """A set that is stored as JSON."""

    impl = JSONB
    cache_ok = True

    def process_bind_param(self, value: set[str] | None, dialect: Any) -> list[str] | None:
        return None if value is None else sorted(value)

    def process_result_value(self, value: list[str] | None, dialect: Any) -> set[str]:
        return set(value or ())


metadata = metadata_for("defaults")
rows = sa.Table(
    "rows",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("retries", sa.Integer, default=3),
    sa.Column("doubled", sa.Integer, default=lambda context: context.get_current_parameters()["retries"] * 2),
    sa.Column("token", sa.Uuid, default=uuid4),
    sa.Column("length", sa.Integer, default=sa.func.length("four"), onupdate=sa.func.length("seven77")),
    sa.Column("served", sa.Integer, server_default="7"),
    sa.Column("computed", sa.Integer, sa.Computed("served + 1")),
    sa.Column("serial", sa.BigInteger, sa.Identity(always=True)),
    sa.Column("counted", sa.Integer, sa.Sequence("counter", schema="defaults", start=1000)),
    sa.Column("state", sa.Text, onupdate="changed"),
    sa.Column("shouted", Shouted),
    sa.Column("colour", sa.Enum(Colour, name="colour", schema="defaults")),
    sa.Column("colours", ARRAY(sa.Enum(Colour, name="colour", schema="defaults"))),
    sa.Column("tags", Tags),
    sa.Column("facts", sa.JSON),
    sa.Column("price", sa.Numeric(10, 2)),
    sa.Column("rate", sa.Numeric(10, 2, asdecimal=False)),
    sa.Column("weight", sa.Float),
    sa.Column("text_id", sa.Uuid(as_uuid=False)),
    sa.Column("needed", sa.Text, nullable=False),
)
VARYING = {"id", "token", "serial", "counted"}
"""Columns whose values differ from row to row."""

INSERT = sa.insert(rows)
UPDATE = sa.update(rows).where(rows.c.id == sa.bindparam("row"))
TEXT_ID = "0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d"
VALUES: dict[str, Any] = {
    "shouted": "Hey",
    "colour": Colour.BLUE,
    "colours": [Colour.RED, Colour.BLUE],
    "tags": {"a", "b"},
    "facts": {"a": [1, None]},
    "price": 1.5,
    "rate": 2.5,
    "weight": 0.5,
    "text_id": TEXT_ID,
    "state": "new",
}
ROWS: dict[str, dict[str, Any]] = {
    "nothing but what is needed": {"needed": "x"},
    "defaults that are given": {"needed": "x", "retries": 9, "doubled": 1, "served": 2, "length": 1, "token": uuid4()},
    "a default that another one depends on": {"needed": "x", "retries": 50},
    "values of every type": {"needed": "x", **VALUES},
    "nothing in each type": {"needed": "x", **dict.fromkeys(VALUES)},
}


@pytest.fixture
async def engine(database_url: str, connection: asyncpg.Connection) -> AsyncGenerator[AsyncConnection]:
    """A connection of SQLAlchemy's engine to the tables above."""
    engine = engine_for(database_url)
    async with engine.connect() as plain:
        await plain.execute(sa.text("CREATE SCHEMA defaults"))
        await plain.run_sync(metadata.create_all)
        await plain.commit()
        autocommit = await plain.execution_options(isolation_level="AUTOCOMMIT")
        try:
            yield autocommit
        finally:
            await plain.execute(sa.text("DROP SCHEMA defaults CASCADE"))
    await engine.dispose()


async def pair(engine: AsyncConnection, database: Database) -> list[dict[str, Any]]:
    """Return the two stored rows without the varying columns: the engine's row first."""
    found = await database.fetch("SELECT * FROM defaults.rows ORDER BY id")
    assert len(found) == 2
    assert all(row[name] is not None for row in found for name in VARYING)
    return [{name: value for name, value in row.items() if name not in VARYING} for row in found]


def by_columns(parameters: dict[str, Any]) -> Statement:
    return Statement(INSERT, columns=list(parameters))


@pytest.mark.parametrize("make", [lambda _: Statement(INSERT), by_columns], ids=["all columns", "named columns"])
@pytest.mark.parametrize("name", ROWS)
async def test_an_insert_stores_the_same_row_as_an_engine(
    engine: AsyncConnection, database: Database, make: Callable[[dict[str, Any]], Statement], name: str
) -> None:
    values = ROWS[name]
    if make is not by_columns:  # a column without a default needs a value
        values = dict.fromkeys(VALUES) | values

    await engine.execute(INSERT, values)
    assert await make(values).run(database, **values) == 1

    stored, ours = await pair(engine, database)
    assert ours == stored


@pytest.mark.parametrize("name", ["values of every type", "nothing in each type"])
async def test_a_row_holds_the_same_values_as_a_row_of_an_engine(
    engine: AsyncConnection, database: Database, name: str
) -> None:
    await engine.execute(INSERT, ROWS[name])
    returned = dict((await engine.execute(sa.select(rows))).mappings().one())

    row = await Statement(sa.select(rows)).one(database)
    (same,) = await Statement(sa.select(rows)).all(database)
    changed = await Statement(UPDATE.returning(rows.c.colour, rows.c.tags), columns=["needed"]).one(
        database, row=returned["id"], needed="y"
    )

    assert row is not None
    assert dict(row) == dict(same) == returned
    assert changed is not None
    assert dict(changed) == {"colour": returned["colour"], "tags": returned["tags"]}


@pytest.mark.parametrize("values", [{"needed": "y"}, {"needed": "y", "state": "kept", "length": 2}], ids=str)
async def test_an_update_stores_the_same_row_as_an_engine(
    engine: AsyncConnection, database: Database, values: dict[str, Any]
) -> None:
    for _ in range(2):
        await engine.execute(INSERT, ROWS["values of every type"])
    first, second = [row["id"] for row in await database.fetch("SELECT id FROM defaults.rows ORDER BY id")]

    await engine.execute(UPDATE, {"row": first, **values})
    assert await Statement(UPDATE, columns=list(values)).run(database, row=second, **values) == 1

    stored, ours = await pair(engine, database)
    assert ours == stored


async def test_an_update_of_all_columns_may_leave_out_columns_with_a_default(
    engine: AsyncConnection, database: Database
) -> None:
    await engine.execute(INSERT, ROWS["values of every type"])
    (whole,) = (await engine.execute(sa.select(rows))).mappings()
    values = {name: value for name, value in whole.items() if name not in {"computed", "serial", "state", "length"}}

    assert await Statement(UPDATE).run(database, row=whole["id"], **values) == 1

    row = await database.fetchrow("SELECT state, length FROM defaults.rows")
    assert row is not None
    assert tuple(row) == ("changed", 7)


async def test_a_statement_that_names_every_column_sets_none_that_postgresql_generates(
    engine: AsyncConnection, database: Database
) -> None:
    names = [column.name for column in rows.columns if column.name != "id"]
    await engine.execute(INSERT, ROWS["values of every type"])
    (whole,) = (await engine.execute(sa.select(rows))).mappings()
    values = {name: value for name, value in whole.items() if name not in {"computed", "serial"}} | {"served": 9}

    saved = Statement(UPDATE.returning(rows.c.computed, rows.c.serial), columns=names)
    changed = await saved.one(database, row=whole["id"], **values)
    added = Statement(INSERT.returning(rows.c.computed, rows.c.serial), columns=["id", *names])
    other = await added.one(database, **{**whole, "id": whole["id"] + 1000})

    assert changed is not None
    assert other is not None
    assert tuple(changed) == (10, whole["serial"])
    assert tuple(other) == (8, whole["serial"] + 1)


async def test_a_parameter_is_computed_for_each_run(database: Database) -> None:
    numbers = count(1)
    statement = Statement(sa.select(sa.bindparam("number", callable_=lambda: next(numbers), type_=sa.Integer)))

    assert [(await statement.all(database))[0][0] for _ in range(2)] == [1, 2]


def test_a_parameter_that_the_statement_does_not_set_is_an_error_with_its_name() -> None:
    with pytest.raises(KeyError, match="retires"):
        Statement(INSERT, columns=["needed"]).arguments({"needed": "x", "retires": 5})


def test_a_row_may_have_the_columns_that_a_statement_leaves_out() -> None:
    assert Statement(INSERT, columns=["needed"]).arguments({"needed": "x", "id": uuid4()}).count("x") == 1


async def test_many_rows_are_stored_in_one_go_with_a_default_for_each(
    engine: AsyncConnection, database: Database, connection: asyncpg.Connection
) -> None:
    statement = Statement(INSERT, columns=["needed"])

    await statement.run_many(database, ({"needed": str(number)} for number in range(500)))
    await statement.run_many(database, [])

    stored = await connection.fetch("SELECT count(*), count(DISTINCT token), sum(retries) FROM defaults.rows")
    assert tuple(stored[0]) == (500, 500, 1500)


async def test_many_rows_are_stored_all_or_none(engine: AsyncConnection, database: Database) -> None:
    statement = Statement(INSERT, columns=["id", "needed"])

    with pytest.raises(asyncpg.UniqueViolationError):
        await statement.run_many(database, [{"id": number, "needed": "x"} for number in (1, 2, 1)])

    assert await database.fetch("SELECT FROM defaults.rows") == []


def test_rows_that_leave_out_different_columns_cannot_be_one_statement() -> None:
    table = sa.Table("t", sa.MetaData(), sa.Column("a", sa.Integer), sa.Column("b", sa.Integer, default=1))
    ran = Statement(sa.insert(table)).run_many(None, [{"a": 1}, {"a": 2, "b": 3}])  # ty: ignore[invalid-argument-type]

    with pytest.raises(ValueError, match="same columns"):
        ran.send(None)


OWN_STATEMENT = sa.Table("t", sa.MetaData(), sa.Column("a", sa.Integer), sa.Column("b", sa.Integer))
WITH_DEFAULT = sa.Table("t", sa.MetaData(), sa.Column("a", sa.Integer), sa.Column("b", sa.Integer, default=3))
REFUSED = {
    "literal_execute": sa.select(OWN_STATEMENT.c.a).limit(sa.bindparam("n", literal_execute=True)),
    "execution options": sa.select(OWN_STATEMENT.c.a).execution_options(schema_translate_map={None: "other"}),
    "array of JSON": sa.select(sa.cast(sa.null(), ARRAY(sa.JSON)).label("a")),
    "CTE": sa.select(WITH_DEFAULT.insert().values(a=1).returning(WITH_DEFAULT.c.a).cte("made")),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_statement_that_needs_an_engine_is_refused_with_the_reason(reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Statement(REFUSED[reason])
