"""Rows are read with the rows of their child tables in one statement."""

from collections.abc import AsyncGenerator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from chassis.database import Database, Statement, metadata_for, rows_of, select_with_rows

from tests.chassis.temporary_schema import temporary_schema

metadata = metadata_for("nested")
orders = sa.Table("orders", metadata, sa.Column("id", sa.Integer, primary_key=True, autoincrement=False))


def child(name: str, *columns: sa.Column[Any]) -> sa.Table:
    key = sa.Column("order_id", sa.Integer, sa.ForeignKey(orders.c.id, ondelete="CASCADE"), primary_key=True)
    return sa.Table(name, metadata, key, sa.Column("position", sa.Integer, primary_key=True), *columns)


lines = child(
    "lines",
    sa.Column("text", sa.Text),
    sa.Column("number", sa.BigInteger),
    sa.Column("price", sa.Numeric(38, 2)),
    sa.Column("active", sa.Boolean),
    sa.Column("day", sa.Date),
    sa.Column("at", sa.DateTime(timezone=True)),
    sa.Column("other_id", sa.Uuid),
)
notes = child("notes", sa.Column("text", sa.Text))
WHOLE = select_with_rows(orders, lines, notes)
ALL = Statement(WHOLE.order_by(orders.c.id.desc()).limit(sa.bindparam("limit")))
FULL: dict[str, Any] = {
    "text": 'ž, "quoted" {and} NULL',
    "number": 2**53 - 1,
    "price": Decimal("123456789012345678901234567890123456.78"),
    "active": False,
    "day": date(2027, 1, 31),
    "at": datetime(2027, 1, 31, 12, tzinfo=UTC),
    "other_id": UUID("0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d"),
}


@pytest.fixture
async def tables(database_url: str, database: Database) -> AsyncGenerator[Database]:
    async with temporary_schema(database_url, metadata):
        yield database


async def test_each_row_has_its_own_rows_in_order(tables: Database) -> None:
    await Statement(sa.insert(orders)).run_many(tables, [{"id": number} for number in (1, 2, 3)])
    empty = dict.fromkeys(FULL)
    stored = [
        {"order_id": 1, "position": 1, **empty},
        {"order_id": 1, "position": 0, **FULL},
        {"order_id": 3, "position": 0, **FULL},
    ]
    await Statement(sa.insert(lines)).run_many(tables, stored)
    await Statement(sa.insert(notes)).run_many(
        tables, [{"order_id": 3, "position": place, "text": str(place)} for place in (2, 10, 1)]
    )
    third, second, first = await ALL.all(tables, limit=3)
    assert [row["id"] for row in (first, second, third)] == [1, 2, 3]
    assert rows_of(first, lines) == [stored[1], stored[0]]
    assert [rows_of(row, lines) for row in (second, third)] == [[], [stored[2]]]
    assert [[note["text"] for note in rows_of(row, notes)] for row in (first, third)] == [[], ["1", "2", "10"]]
    assert len(await ALL.all(tables, limit=2)) == 2
