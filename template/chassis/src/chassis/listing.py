"""Listing: pages of one SELECT, by the filters and the order that a request chooses."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, Any, Generic, TypeVar

import asyncpg
import sqlalchemy as sa
from fastapi.exceptions import RequestValidationError
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, WithJsonSchema
from pydantic_core import to_json
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BindParameter, ColumnElement, UnaryExpression
from sqlalchemy.sql.visitors import iterate

from chassis.database import Executor, Row, Statement
from chassis.fields import RequestModel

T = TypeVar("T")

MAX_SORTED_LENGTH = 200
"""The most characters of a text that a list is sorted by: the cursor holds the text, and goes into a URL."""

CACHED_STATEMENTS = 128
"""The number of compiled statements of one listing: k filters can be combined in 2^k ways."""

NUMERIC_DIGITS = 131_072, 16_383
"""The most digits of a NUMERIC of PostgreSQL before and after the point."""

_RESERVED = {"after", "after_key", "after_value", "executor", "limit", "sort"}


class InvalidCursor(RequestValidationError):
    """The cursor belongs to another list, or to another sort or other filters of this list: the answer is a 422."""

    def __init__(self) -> None:
        super().__init__([{"type": "value_error", "loc": ("query", "after"), "msg": _FOREIGN}])


@dataclass(frozen=True)
class Page(Generic[T]):
    """Part of a list. The last page has no `next_cursor`."""

    items: list[T]
    next_cursor: str | None


class ListCursor(RequestModel):
    """The start and the length of a page of a Listing. Add the sort and the filters of the list."""

    limit: Annotated[int, Field(ge=1, le=100, description="Items per page.")] = 20
    after: Annotated[
        str | None,
        Field(max_length=2000, description="The `next_cursor` of the previous page, with the same sort and filters."),
        WithJsonSchema({"type": "string", "maxLength": 2000}),
    ] = None


class Listing(Generic[T]):
    """Pages of a SELECT, by key and not by offset, in one of several orders, with any combination of filters.

    Make it at module level. `make` makes an item of a row. `key` is a unique column: it decides between rows of the
    same value. `sorts` has a column for each order, as in `invoices.c.due_on.desc()`; a row without a value comes last
    in both directions. `filters` has a condition for each filter, with one bindparam that has the filter's name. Each
    combination of filters is a statement of its own, compiled once, so that PostgreSQL plans it for the conditions that
    it has. A page is read by an index on the sorted column and the key, in either direction.

    Raises ValueError, when the module is imported, for a sort or a filter that cannot work.
    """

    def __init__(
        self,
        select: sa.Select[Any],
        make: Callable[[Row], T],
        *,
        key: ColumnElement[Any],
        sorts: Mapping[str, ColumnElement[Any]],
        filters: Mapping[str, ColumnElement[bool]],
    ) -> None:
        self._select, self._make, self._filters = select, make, dict(filters)
        self._sorts = {name: _Sort(column, key, select) for name, column in sorts.items()}
        self._statement = lru_cache(CACHED_STATEMENTS)(self._compile)
        for name, condition in self._filters.items():
            _check_filter(name, condition)

    async def page(
        self, executor: Executor, /, *, sort: str, limit: int, after: str | None = None, **filters: Any
    ) -> Page[T]:
        """Read at most `limit` items, behind the page whose `next_cursor` is `after`. None leaves out a filter.

        Raises InvalidCursor.
        """
        if unknown := filters.keys() - self._filters.keys():
            raise TypeError(f"the listing has no filter {', '.join(sorted(unknown))}")
        given = {name: value for name, value in filters.items() if value is not None}
        order, names, rows = self._sorts[sort], frozenset(given), []
        belongs = _digest(sort, given)
        for part, start in order.parts(order.decode(after, belongs) if after is not None else None):
            statement = self._statement(sort, part, bool(start), names)
            try:
                rows += await statement.all(executor, limit=limit + 1 - len(rows), **start, **given)
            except asyncpg.DataError:
                if after is None:
                    raise
                raise InvalidCursor from None  # PostgreSQL cannot store the value that the cursor names
            if len(rows) > limit:
                return Page([self._make(row) for row in rows[:limit]], order.encode(rows[limit - 1], belongs))
        return Page([self._make(row) for row in rows], None)

    def _compile(self, sort: str, part: str, started: bool, names: frozenset[str]) -> Statement:
        order = self._sorts[sort]
        statement = self._select.where(
            *(self._filters[name] for name in sorted(names)), *order.conditions(part, started)
        )
        return Statement(order.apply(statement).limit(sa.bindparam("limit", type_=sa.Integer)))


class _Sort:
    """One order of a listing, and its cursors: the value and the key of the last row of a page.

    Rows without a value are a part of their own, which is read once the other part has ended. A condition for both
    parts in one statement needs an OR, for which PostgreSQL reads an index from its beginning.
    """

    def __init__(self, column: ColumnElement[Any], key: ColumnElement[Any], select: sa.Select[Any]) -> None:
        self._descending = isinstance(column, UnaryExpression) and column.modifier is operators.desc_op
        self._column: Any = column.element if isinstance(column, UnaryExpression) and column.modifier else column
        self._key: Any = key
        self._by_key = self._column is key
        # The declaration of a column holds for its table: an outer join has rows without a value of the column.
        table = getattr(self._column, "table", None)
        declared = isinstance(table, sa.Table) and select.get_final_froms() == [table]
        self._nullable = not self._by_key and (self._column.nullable if declared else True)
        value, unique = _python_type(self._column), _python_type(key)
        self._cursor: TypeAdapter[Any] = TypeAdapter(
            tuple[str, value | None, unique],  # ty: ignore[invalid-type-form]
            config=ConfigDict(ser_json_inf_nan="strings"),
        )

    def parts(self, start: tuple[Any, Any] | None) -> list[tuple[str, dict[str, Any]]]:
        """Return the parts of the list from `start` on, with the parameters of each."""
        nulls: list[tuple[str, dict[str, Any]]] = [("nulls", {})] if self._nullable else []
        if start is None:
            return [("values", {}), *nulls]
        value, key = start
        if value is None and self._nullable:
            return [("nulls", {"after_key": key})]
        return [("values", {"after_value": value, "after_key": key}), *nulls]

    def conditions(self, part: str, started: bool) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if self._nullable:
            found.append(self._column.is_(None) if part == "nulls" else self._column.is_not(None))
        if started:
            after_key = sa.bindparam("after_key", type_=self._key.type)
            if part == "nulls" or self._by_key:
                left, right = self._key, after_key
            else:
                left = sa.tuple_(self._column, self._key)
                right = sa.tuple_(sa.bindparam("after_value", type_=self._column.type), after_key)
            found.append(left < right if self._descending else left > right)
        return found

    def apply(self, select: sa.Select[Any]) -> sa.Select[Any]:
        """Sort the SELECT, and let each row have the value and the key for a cursor."""
        columns = [self._key] if self._by_key else [self._column, self._key]
        ordered = select.order_by(*(column.desc() if self._descending else column for column in columns))
        return ordered.add_columns(self._column.label("after_value"), self._key.label("after_key"))

    def encode(self, row: Row, belongs: str) -> str:
        text = self._cursor.dump_json((belongs, row["after_value"], row["after_key"]))
        return base64.urlsafe_b64encode(text).rstrip(b"=").decode()

    def decode(self, cursor: str, belongs: str) -> tuple[Any, Any]:
        """Return the value and the key. Raises InvalidCursor."""
        try:
            text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
            owner, value, key = self._cursor.validate_json(text)
        except (ValueError, ValidationError):
            raise InvalidCursor from None
        if owner != belongs or (value is None and not self._nullable):
            raise InvalidCursor
        if not (value is None or _fits(self._column.type, value)) or not _fits(self._key.type, key):
            raise InvalidCursor
        return value, key


_FOREIGN = (
    "must be the `next_cursor` of a page with the same sort and the same filters: "
    "repeat the request without `after` to start at the first page"
)


def _fits(type_: Any, value: Any) -> bool:
    """Return whether asyncpg can encode the value. Otherwise the connection would drop its prepared statements."""
    match value:
        case int() if isinstance(type_, sa.Integer):
            bits = 16 if isinstance(type_, sa.SmallInteger) else 64 if isinstance(type_, sa.BigInteger) else 32
            return -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)
        case Decimal() if value.is_finite():
            return value.adjusted() < NUMERIC_DIGITS[0] and int(value.as_tuple().exponent) >= -NUMERIC_DIGITS[1]
        case datetime() if type_.timezone:
            infinite = datetime.min, datetime.max  # noqa: DTZ901 (as asyncpg returns them)
            return value in infinite or _has_utc(value)
        case datetime() | time():
            return (value.tzinfo is not None) is type_.timezone
    return True


def _has_utc(value: datetime) -> bool:
    try:
        value.astimezone(UTC)
    except OverflowError:
        return False
    return True


def _digest(sort: str, filters: Mapping[str, Any]) -> str:
    text = to_json([sort, sorted(filters.items())], fallback=str)
    return base64.urlsafe_b64encode(blake2b(text, digest_size=9).digest()).decode()


def _check_filter(name: str, condition: ColumnElement[bool]) -> None:
    """Check the name and the parameter of a filter. Raises ValueError."""
    if name in _RESERVED:
        raise ValueError(f"a filter cannot be called {name}, because a page has a parameter of that name: rename it")
    used = {bind.key for bind in iterate(condition) if isinstance(bind, BindParameter) and bind.required}
    if used != {name}:
        raise ValueError(f"the filter {name} must use bindparam({name!r}) and no other bindparam")


def _python_type(column: Any) -> Any:
    """Return the Python type of a sorted column. Raises ValueError."""
    type_ = column.type
    if isinstance(type_, sa.String) and not isinstance(type_, sa.Enum) and (type_.length or 10**9) > MAX_SORTED_LENGTH:
        raise ValueError(
            f"a list cannot be sorted by {column}, because the cursor would be too long for a URL: "
            f"sort by a String of at most {MAX_SORTED_LENGTH} characters"
        )
    try:
        if isinstance(type_, sa.TypeDecorator | sa.JSON | sa.ARRAY | sa.LargeBinary):
            raise NotImplementedError
        return type_.python_type
    except NotImplementedError:
        raise ValueError(
            f"a list cannot be sorted by {column}, because a cursor cannot hold a {type(type_).__name__}: "
            "sort by a number, a text, a time or an id"
        ) from None
