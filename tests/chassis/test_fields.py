"""What request fields accept and give back: all that Postgres and JSON can hold, and nothing that only one of them can."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any

import asyncpg
import pytest
from chassis import fields, money
from pydantic import BaseModel, TypeAdapter, ValidationError

Amount = Annotated[Decimal, *fields.decimal(12, 2)]
Huge = Annotated[Decimal, *fields.decimal(38, 4)]
Share = Annotated[Decimal, *fields.decimal(4, 4)]
Whole = Annotated[Decimal, *fields.decimal(5, 0)]


def read(kind: Any, text: str) -> Any:
    """What the type makes of a JSON value."""
    return TypeAdapter(kind).validate_json(text)


def shown(kind: Any, value: Any) -> Any:
    """The JSON value that the type shows."""
    return TypeAdapter(kind).dump_python(value, mode="json")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (fields.Text, '"a\\u0000b"'),
        (fields.Text, '"\\ud800"'),
        (fields.Text, "1"),
        (fields.Text, "null"),
        (fields.Integer, "9007199254740992"),
        (fields.Integer, "-9007199254740992"),
        (fields.Integer, "1.5"),
        (fields.Integer, '"1"'),
        (fields.Integer, "true"),
        (fields.Integer, "1e400"),
        (fields.Boolean, "1"),
        (fields.Boolean, '"true"'),
        (fields.Date, "0"),
        (fields.Date, '"2027-02-29"'),
        (fields.Date, '"2027-01-31T00:00:00Z"'),
        (fields.Date, '"0000-01-01"'),
        (fields.Timestamp, "1798761600"),
        (fields.Timestamp, '"1798761600"'),
        (fields.Timestamp, '"2027-01-31T12:00:00"'),
        (fields.Timestamp, '"2027-01-31"'),
        (fields.Timestamp, '"2027-01-31T24:00:00Z"'),
        (fields.Timestamp, '"2027-01-31T12:00:60Z"'),
        (fields.Timestamp, '"0001-01-01T00:30:00+01:00"'),
        (fields.Timestamp, '"9999-12-31T23:30:00-01:00"'),
        (fields.Timestamp, '"0001-01-01T00:00:00Z"'),
        (fields.Timestamp, '"9999-12-31T23:59:59.999999Z"'),
        (Amount, "1.5"),
        (Amount, "1"),
        (Amount, '"1.555"'),
        (Amount, '"12345678901.00"'),
        (Amount, '"1e3"'),
        (Amount, '"1_000"'),
        (Amount, '" 1.5 "'),
        (Amount, '"+1"'),
        (Amount, '"NaN"'),
        (Amount, '"-Infinity"'),
        (Amount, '"\\u0661"'),
        (Amount, '""'),
        (Amount, '"1."'),
        (Amount, "true"),
        (Share, '"1.0000"'),
        (Whole, '"1.0"'),
        (Whole, '"100000"'),
        (fields.MoneyField, '{"amount": 12.5, "currency": "EUR"}'),
        (fields.MoneyField, '{"amount": 1250, "currency": "eur"}'),
        (fields.MoneyField, '{"amount": 1250, "currency": "EURO"}'),
        (fields.MoneyField, '{"amount": 1250}'),
        (fields.MoneyField, '{"amount": 1250, "currency": "EUR", "scale": 2}'),
        (fields.Identifier, '"not a uuid"'),
    ],
)
def test_what_cannot_be_stored_and_shown_exactly_is_refused(kind: Any, text: str) -> None:
    with pytest.raises(ValidationError):
        read(kind, text)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (fields.Text, '""', ""),
        (fields.Text, '"\\ud83d\\ude00 \\u202e \\r\\n\\t"', "\U0001f600 \u202e \r\n\t"),
        (fields.Integer, "9007199254740991", 2**53 - 1),
        (fields.Integer, "-9007199254740991", -(2**53 - 1)),
        (fields.Integer, "5.0", 5),
        (fields.Date, '"2028-02-29"', date(2028, 2, 29)),
        (fields.Date, '"0001-01-01"', date.min),
        (fields.Date, '"9999-12-31"', date.max),
        (Amount, '"1.5"', Decimal("1.50")),
        (Amount, '"-9999999999.99"', Decimal("-9999999999.99")),
        (Amount, '"007"', Decimal("7.00")),
        (Huge, '"' + "9" * 34 + '.9999"', Decimal("9" * 34 + ".9999")),
        (Share, '"0.0001"', Decimal("0.0001")),
        (Whole, '"-99999"', Decimal(-99999)),
        (fields.MoneyField, '{"amount": -1250, "currency": "JPY"}', money.Money(-1250, "JPY")),
    ],
)
def test_what_can_be_stored_and_shown_exactly_is_taken(kind: Any, text: str, value: Any) -> None:
    found = read(kind, text)

    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "text", "again"),
    [
        (Amount, '"1.5"', "1.50"),
        (Amount, '"-0"', "0.00"),
        (Amount, '"-0.00"', "0.00"),
        (Amount, '"9999999999"', "9999999999.00"),
        (Huge, '"0.0001"', "0.0001"),
        (Huge, '"' + "1" * 34 + '.2345"', "1" * 34 + ".2345"),
        (Whole, '"7"', "7"),
    ],
)
def test_a_decimal_is_a_string_with_all_its_digits_and_never_a_float(kind: Any, text: str, again: str) -> None:
    assert shown(kind, read(kind, text)) == again


@pytest.mark.parametrize("offset", [UTC, timezone(timedelta(hours=14)), timezone(-timedelta(hours=9, minutes=30))])
@pytest.mark.parametrize("moment", ["2027-01-31T23:59:59.999999", "0002-01-01T00:00:00", "9998-12-31T00:00:00"])
def test_an_instant_stays_the_same_instant_and_is_shown_in_utc(moment: str, offset: timezone) -> None:
    expected = datetime.fromisoformat(moment).replace(tzinfo=offset)
    found = read(fields.Timestamp, f'"{expected.isoformat()}"')

    assert found == expected
    assert found.tzinfo is UTC
    assert shown(fields.Timestamp, found).endswith("Z")


@pytest.mark.parametrize(
    ("kind", "column", "text"),
    [
        (fields.Text, "text", '"\\ud83d\\ude00 \\u007f \\ufffe"'),
        (fields.Integer, "bigint", "9007199254740991"),
        (fields.Date, "date", '"0001-01-01"'),
        (fields.Date, "date", '"9999-12-31"'),
        (fields.Timestamp, "timestamptz", '"0001-01-01T00:00:00.000001Z"'),
        (fields.Timestamp, "timestamptz", '"9999-12-31T23:59:59.999998Z"'),
        (Amount, "numeric(12, 2)", '"-9999999999.99"'),
        (Huge, "numeric(38, 4)", '"' + "9" * 34 + '.9999"'),
    ],
)
async def test_what_is_taken_comes_back_from_postgres_as_it_was(
    connection: asyncpg.Connection, kind: Any, column: str, text: str
) -> None:
    value = read(kind, text)

    stored = await connection.fetchval(f"SELECT $1::{column}", value)

    assert shown(kind, stored) == shown(kind, value)


def test_money_in_a_model_stays_the_plain_dataclass() -> None:
    class Bill(BaseModel):
        total: fields.MoneyField

    bill = Bill.model_validate({"total": {"amount": 1250, "currency": "EUR"}})

    assert bill.total == money.Money(1250, "EUR")
    assert bill.model_dump(mode="json") == {"total": {"amount": 1250, "currency": "EUR"}}


def test_money_goes_into_two_columns_and_comes_back() -> None:
    bill = money.Money(1250, "EUR")

    assert money.from_columns(money.to_columns("total", bill), "total") == bill
    assert money.from_optional_columns(money.to_columns("total", None), "total") is None


def test_a_request_with_an_unknown_field_is_refused() -> None:
    class Order(fields.RequestModel):
        item: str

    with pytest.raises(ValidationError, match="Extra inputs"):
        Order.model_validate({"item": "lamp", "colour": "red"})
