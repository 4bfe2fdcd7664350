"""A violated constraint raises the domain error that its table names."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from chassis.database import Database, Statement, metadata_for, raises
from chassis.errors import Conflict, DomainError

from tests.chassis.temporary_schema import temporary_schema


class NumberTaken(Conflict):
    code = "number_taken"


class OwnerUnknown(Conflict):
    code = "owner_unknown"


class OwnerHasThings(Conflict):
    code = "owner_has_things"


class TooMany(Conflict):
    code = "too_many"


LONG = "a_name_that_makes_the_constraint_longer_than_postgresql_keeps"
metadata = metadata_for("violated")
owners = sa.Table("owners", metadata, sa.Column("id", sa.Integer, primary_key=True, autoincrement=False))
things = sa.Table(
    "things",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("number", sa.Text, nullable=False),
    sa.Column(LONG, sa.Text),
    sa.Column("plain", sa.Text, unique=True),
    sa.Column("owner_id", sa.Integer),
    sa.Column("parent_id", sa.Integer),
    sa.Column("amount", sa.Integer),
    sa.UniqueConstraint("number", info=raises(NumberTaken, "this number is taken")),
    sa.UniqueConstraint(LONG, info=raises(NumberTaken, "this long name is taken")),
    sa.CheckConstraint("amount < 10", name="few", info=raises(TooMany, "fewer than ten")),
    sa.ForeignKeyConstraint(
        ["owner_id"],
        [owners.c.id],
        info=raises(OwnerUnknown, "no such owner", if_referenced=(OwnerHasThings, "the owner has things")),
    ),
    sa.ForeignKeyConstraint(
        ["parent_id"],
        ["violated.things.id"],
        info=raises(OwnerUnknown, "no such parent", if_referenced=(OwnerHasThings, "the parent has things")),
    ),
)
INSERT = Statement(sa.insert(things), columns=[column.name for column in things.c])
UPDATE = Statement(sa.update(things).where(things.c.id == sa.bindparam("id")), columns=["number", "owner_id", "amount"])
DELETE = Statement(sa.delete(things).where(things.c.id == sa.bindparam("id")))
RETURNING = Statement(sa.insert(things).returning(things.c.id), columns=[column.name for column in things.c])
DELETE_OWNER = Statement(sa.delete(owners).where(owners.c.id == sa.bindparam("id")))


def thing(row: int, **values: Any) -> dict[str, Any]:
    return dict.fromkeys(column.name for column in things.c) | {"id": row, "number": str(row)} | values


@pytest.fixture
async def tables(database_url: str, database: Database) -> AsyncGenerator[Database]:
    async with temporary_schema(database_url, metadata):
        await Statement(sa.insert(owners)).run(database, id=1)
        await INSERT.run(database, **thing(1, owner_id=1, plain="x", **{LONG: "x"}))
        await INSERT.run(database, **thing(2, parent_id=1))
        yield database


async def refused(running: Any) -> tuple[type[Exception], str]:
    with pytest.raises(DomainError) as caught:
        await running
    assert isinstance(caught.value.__cause__, asyncpg.IntegrityConstraintViolationError)
    return caught.type, str(caught.value)


async def test_each_violation_raises_the_error_of_its_constraint(tables: Database) -> None:
    taken = (NumberTaken, "this number is taken")
    assert await refused(INSERT.run(tables, **thing(3, number="1"))) == taken
    assert await refused(INSERT.run_many(tables, [thing(3), thing(4, number="1")])) == taken
    assert await refused(RETURNING.one(tables, **thing(3, number="1"))) == taken
    assert await refused(RETURNING.all(tables, **thing(3, number="1"))) == taken
    assert await refused(UPDATE.run(tables, id=2, number="1", owner_id=1, amount=1)) == taken
    assert await refused(INSERT.run(tables, **thing(3, **{LONG: "x"}))) == (NumberTaken, "this long name is taken")
    assert await refused(INSERT.run(tables, **thing(3, amount=10))) == (TooMany, "fewer than ten")
    assert await refused(INSERT.run(tables, **thing(3, owner_id=7))) == (OwnerUnknown, "no such owner")
    assert await refused(UPDATE.run(tables, id=2, number="2", owner_id=7, amount=1)) == (OwnerUnknown, "no such owner")
    assert await refused(INSERT.run(tables, **thing(3, parent_id=7))) == (OwnerUnknown, "no such parent")
    assert await refused(DELETE_OWNER.run(tables, id=1)) == (OwnerHasThings, "the owner has things")
    assert await refused(DELETE.run(tables, id=1)) == (OwnerHasThings, "the parent has things")


async def test_a_constraint_without_a_domain_error_raises_the_error_of_postgresql(tables: Database) -> None:
    for values, error in (
        ({"plain": "x"}, asyncpg.UniqueViolationError),
        ({"id": 1}, asyncpg.UniqueViolationError),
        ({"number": None}, asyncpg.NotNullViolationError),
    ):
        with pytest.raises(error):
            await INSERT.run(tables, **thing(3) | values)


async def test_of_two_equal_rows_at_once_one_is_refused(tables: Database) -> None:
    async def insert(number: int) -> None:
        async with tables.unit_of_work() as uow:
            await INSERT.run(uow.connection, **thing(number, number="same"))

    results = await asyncio.gather(insert(5), insert(6), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["NoneType", "NumberTaken"]
