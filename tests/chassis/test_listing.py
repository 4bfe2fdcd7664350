"""A Listing returns each row once, in the asked order, and refuses a cursor that is not its own."""

import base64
import enum
import json
import random
from collections.abc import AsyncGenerator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import sqlalchemy as sa
from chassis.database import Database, metadata_for
from chassis.database.migrate import engine_for
from chassis.listing import CACHED_STATEMENTS, InvalidCursor, Listing, Page

from tests.chassis.temporary_schema import temporary_schema


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


metadata = metadata_for("listing")
papers = sa.Table(
    "papers",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("number", sa.String(40), nullable=False),
    sa.Column("due_on", sa.Date),
    sa.Column("price", sa.Numeric(12, 2)),
    sa.Column("rate", sa.Float),
    sa.Column("count", sa.SmallInteger),
    sa.Column("paid", sa.Boolean),
    sa.Column("sent_at", sa.DateTime(timezone=True)),
    sa.Column("size", sa.Enum(Size, name="size", schema="listing")),
    sa.Column("notes", sa.Text),
    sa.Column("facts", sa.JSON),
    sa.Column("scan", sa.LargeBinary),
    sa.Index("ix_papers_due_on_id", "due_on", "id"),
)
SORTED = ["number", "due_on", "price", "rate", "count", "paid", "sent_at", "size", "id"]
PAPERS = Listing(
    sa.select(papers),
    dict,
    key=papers.c.id,
    sorts={name: papers.c[name] for name in SORTED} | {f"-{name}": papers.c[name].desc() for name in SORTED},
    filters={
        "number": papers.c.number == sa.bindparam("number"),
        "before": papers.c.due_on < sa.bindparam("before"),
    },
)
COUNT = 60


def paper(number: int) -> dict[str, Any]:
    """Make a row with repeated values, and with a NULL in every third row."""
    chance = random.Random(number)
    values = {
        "due_on": date(2027, 1, 1) + timedelta(days=number % 7),
        "price": Decimal(number % 5) / 100,
        "rate": [0.1, float("inf"), -2.5][number % 3],
        "count": number % 4 - 2,
        "paid": number % 2 == 0,
        "sent_at": datetime(2027, 1, 1, microsecond=number % 6, tzinfo=UTC),
        "size": ["SMALL", "LARGE"][number % 2],
    }
    nulls = {name: None for name in values if chance.random() < 0.3}
    return {"id": UUID(int=chance.getrandbits(128)), "number": f'ž"{number % 3}', **values, **nulls}


@pytest.fixture
async def stored(database_url: str) -> AsyncGenerator[None]:
    """The table above, with rows."""
    async with temporary_schema(database_url, metadata):
        engine = engine_for(database_url)
        async with engine.begin() as plain:
            await plain.execute(sa.insert(papers), [paper(number) for number in range(COUNT)])
        await engine.dispose()
        yield


async def all_pages(database: Database, *, limit: int = 7, **query: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    after = None
    for _ in range(COUNT):
        page = await PAPERS.page(database, limit=limit, after=after, **query)
        items += page.items
        after = page.next_cursor
        if after is None:
            return items
        assert len(page.items) == limit
    raise AssertionError("the list does not end")


async def test_every_order_has_each_row_once_and_rows_without_a_value_last(stored: None, database: Database) -> None:
    for name in SORTED:
        for sort, direction in ((name, "ASC"), (f"-{name}", "DESC")):
            wanted = await database.fetch(
                f"SELECT id FROM listing.papers ORDER BY {name} {direction} NULLS LAST, id {direction}"
            )
            found = await all_pages(database, sort=sort)
            assert [item["id"] for item in found] == [row["id"] for row in wanted], sort


async def test_the_last_page_may_be_full(stored: None, database: Database) -> None:
    assert len(await all_pages(database, sort="-due_on", limit=COUNT // 2)) == COUNT
    assert len(await all_pages(database, sort="due_on", limit=COUNT)) == COUNT


async def test_every_given_filter_applies_and_no_other(stored: None, database: Database) -> None:
    filters = {"number": 'ž"1', "before": date(2027, 1, 4)}
    found = await all_pages(database, sort="due_on", limit=2, **filters)
    rows = [paper(number) for number in range(COUNT)]
    wanted = [row for row in rows if row["number"] == filters["number"] and row["due_on"] and row["due_on"].day < 4]
    assert {item["id"] for item in found} == {row["id"] for row in wanted} != set()
    assert len(found) == len(wanted)
    assert len(await all_pages(database, sort="due_on", number=filters["number"], before=None)) == COUNT // 3


async def test_rows_that_come_and_go_neither_repeat_nor_hide_others(stored: None, database: Database) -> None:
    before = await all_pages(database, sort="number")
    page = await PAPERS.page(database, sort="number", limit=10)
    await database.execute("DELETE FROM listing.papers WHERE id = $1", page.items[-1]["id"])
    await database.execute("INSERT INTO listing.papers (id, number) VALUES ($1, 'a')", UUID(int=1))
    rest = await PAPERS.page(database, sort="number", limit=COUNT, after=page.next_cursor)
    assert page.items + rest.items == before


async def cursor_of(database: Database, **query: Any) -> str:
    page: Page[Any] = await PAPERS.page(database, limit=1, **query)
    assert page.next_cursor is not None
    return page.next_cursor


def forged(cursor: str, value: Any, key: Any) -> str:
    """Keep the part of the cursor that names its list, and change the position."""
    belongs = json.loads(base64.urlsafe_b64decode(cursor + "=="))[0]
    return base64.urlsafe_b64encode(json.dumps([belongs, value, key]).encode()).rstrip(b"=").decode()


async def test_a_cursor_of_another_sort_or_other_filters_is_refused(stored: None, database: Database) -> None:
    own = {"sort": "due_on", "number": 'ž"1'}
    cursor = await cursor_of(database, **own)
    assert (await PAPERS.page(database, limit=2, after=cursor, **own)).items
    for other in ({"sort": "-due_on", "number": 'ž"1'}, {"sort": "due_on", "number": 'ž"2'}, {"sort": "due_on"}):
        with pytest.raises(InvalidCursor, match="same sort and the same filters"):
            await PAPERS.page(database, limit=2, after=cursor, **other)


@pytest.mark.parametrize("cursor", ["", "=", "x", "ž", "null", "W10", "AAAA", "\x00", "a" * 2000, "e30", "WzEsMiwzXQ"])
async def test_a_cursor_that_no_list_has_made_is_refused(database: Database, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        await PAPERS.page(database, sort="due_on", limit=2, after=cursor)


async def test_a_position_that_the_column_cannot_have_is_refused(stored: None, database: Database) -> None:
    key = str(UUID(int=1))
    positions = {
        "count": [70_000, 10**400, "x", 1.5, [], {}],
        "price": ["x", []],
        "number": ["\x00", "\ud800", None, 1],
        "due_on": ["0000-00-00", "x"],
        "sent_at": ["0001-01-01T00:00:00+23:00", "2027-13-01T00:00:00Z"],
        "size": ["m"],
        "paid": ["maybe"],
    }
    for sort, values in positions.items():
        cursor = await cursor_of(database, sort=sort)
        for value in values:
            with pytest.raises(InvalidCursor):
                await PAPERS.page(database, sort=sort, limit=2, after=forged(cursor, value, key))
        with pytest.raises(InvalidCursor):
            await PAPERS.page(database, sort=sort, limit=2, after=forged(cursor, None, "1; DROP TABLE listing.papers"))


UNFIT: list[tuple[Any, Any, Any]] = [
    (sa.SmallInteger(), 2**15 - 1, 2**15),
    (sa.Integer(), -(2**31), -(2**31) - 1),
    (sa.BigInteger(), 2**63 - 1, 10**30),
    (sa.Numeric(), "1e-40", "1e-99999"),
    (sa.DateTime(), "2027-01-01T00:00:00", "2027-01-01T00:00:00Z"),
    (sa.DateTime(timezone=True), "9999-12-31T23:59:59.999999", "0001-01-01T00:00:00+23:00"),
    (sa.Time(timezone=True), "10:00:00Z", "10:00:00"),
]


@pytest.mark.parametrize(("type_", "fits", "too_large"), UNFIT, ids=lambda value: str(value)[:30])
def test_a_value_that_asyncpg_cannot_encode_does_not_reach_the_connection(
    type_: Any, fits: Any, too_large: Any
) -> None:
    numbers = sa.Table("numbers", sa.MetaData(), sa.Column("value", type_, nullable=False), sa.Column("id", sa.Integer))
    listing = Listing(
        sa.select(numbers), dict, key=numbers.c.id, sorts={"value": numbers.c.value, "id": numbers.c.id}, filters={}
    )

    def decode(sort: str, value: Any, key: Any) -> Any:
        cursor = base64.urlsafe_b64encode(json.dumps(["me", value, key]).encode()).rstrip(b"=").decode()
        return listing._sorts[sort].decode(cursor, "me")

    decode("value", fits, 1)
    for value, key in ((too_large, 1), (fits, 2**31)):
        with pytest.raises(InvalidCursor):
            decode("value", value, key)


async def test_a_list_over_an_outer_join_has_the_rows_without_a_partner(stored: None, database: Database) -> None:
    others = sa.alias(papers)
    tables = papers.outerjoin(others, sa.and_(others.c.id == papers.c.id, papers.c.paid))
    for partner in (others, sa.select(others.c.number).select_from(tables).add_columns(papers.c.id).subquery()):
        froms = tables if partner is others else partner
        key = papers.c.id if partner is others else partner.c.id
        listing = Listing(
            sa.select(key).select_from(froms), dict, key=key, sorts={"-number": partner.c.number.desc()}, filters={}
        )
        found, after = [], None
        while not found or after:
            page = await listing.page(database, sort="-number", limit=COUNT // 4, after=after)
            found, after = found + [item["id"] for item in page.items], page.next_cursor
        assert sorted(found) == sorted(paper(number)["id"] for number in range(COUNT))


async def test_a_filter_that_postgresql_refuses_is_no_fault_of_a_cursor(stored: None, database: Database) -> None:
    with pytest.raises(asyncpg.DataError):
        await PAPERS.page(database, sort="due_on", limit=2, number="\x00")


async def test_a_page_far_behind_is_read_by_the_index(stored: None, database: Database) -> None:
    statements = [PAPERS._statement(sort, "values", True, frozenset()) for sort in ("due_on", "-due_on")]
    statements += [PAPERS._statement("due_on", "nulls", True, frozenset())]
    for statement in statements:
        values = {"after_value": date(2027, 1, 3), "after_key": UUID(int=1), "limit": 3}
        async with database.unit_of_work() as uow:
            await uow.connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
            plan = await uow.connection.fetch(f"EXPLAIN {statement.sql}", *statement.arguments(values))
        text = "\n".join(row[0] for row in plan)
        assert "using ix_papers_due_on_id" in text
        assert "Index Cond:" in text
        assert "Filter:" not in text


def test_a_caller_cannot_fill_the_memory_with_statements() -> None:
    names = [f"filter_{number}" for number in range(8)]
    many = Listing(
        sa.select(papers),
        dict,
        key=papers.c.id,
        sorts={"newest": papers.c.id.desc()},
        filters={name: papers.c.number == sa.bindparam(name) for name in names},
    )
    for number in range(2 ** len(names)):
        given = frozenset(name for bit, name in enumerate(names) if number >> bit & 1)
        many._statement("newest", "values", False, given)
    assert many._statement.cache_info().currsize == CACHED_STATEMENTS


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "a text without a limit": ("too long for a URL", {"sorts": {"notes": papers.c.notes}}),
    "a value without an order": ("cannot hold a JSON", {"sorts": {"facts": papers.c.facts.desc()}}),
    "bytes": ("cannot hold a LargeBinary", {"sorts": {"scan": papers.c.scan}}),
    "another parameter": ("bindparam\\('number'\\)", {"filters": {"number": papers.c.number == sa.bindparam("no")}}),
    "no parameter": ("bindparam\\('paid'\\)", {"filters": {"paid": papers.c.paid}}),
    "a name of its own": ("cannot be called limit", {"filters": {"limit": papers.c.count < sa.bindparam("limit")}}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_listing_that_cannot_work_is_refused_with_the_reason(name: str) -> None:
    reason, parts = REFUSED[name]
    with pytest.raises(ValueError, match=reason):
        Listing(sa.select(papers), dict, key=papers.c.id, **{"sorts": {}, "filters": {}, **parts})


async def test_a_filter_that_the_listing_does_not_have_is_named() -> None:
    nobody: Any = None
    with pytest.raises(TypeError, match="numbr"):
        await PAPERS.page(nobody, sort="due_on", limit=1, numbr="x")
