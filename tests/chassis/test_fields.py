"""Request fields accept and return the values that both Postgres and JSON can hold."""

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import asyncpg
import httpx2
import jsonschema_rs
import pytest
from annotated_types import Interval, Len
from chassis import fields, money
from fastapi import FastAPI, Path, Query
from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError

Amount = Annotated[Decimal, *fields.decimal(12, 2)]
Huge = Annotated[Decimal, *fields.decimal(38, 4)]
Share = Annotated[Decimal, *fields.decimal(4, 4)]
Whole = Annotated[Decimal, *fields.decimal(5, 0)]


def read(kind: Any, text: str) -> Any:
    """Validate a JSON value by the type."""
    return TypeAdapter(kind).validate_json(text)


def shown(kind: Any, value: Any) -> Any:
    """Return the JSON value of the type."""
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
        (fields.Identifier, '"urn:uuid:0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d"'),
        (fields.Identifier, '"{0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d}"'),
        (fields.Identifier, '"0190b5a87c5e7b3a9d436f0e8c1a2b4d"'),
        (fields.Identifier, '"0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d\\n"'),
        (fields.Identifier, "1"),
    ],
)
def test_a_value_that_cannot_be_stored_and_shown_exactly_is_refused(kind: Any, text: str) -> None:
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
        (fields.Identifier, '"0190B5A8-7C5E-7b3a-9d43-6f0e8c1a2b4d"', UUID("0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d")),
        (Amount, '"1.5"', Decimal("1.50")),
        (Amount, '"-9999999999.99"', Decimal("-9999999999.99")),
        (Amount, '"007"', Decimal("7.00")),
        (Huge, '"' + "9" * 34 + '.9999"', Decimal("9" * 34 + ".9999")),
        (Share, '"0.0001"', Decimal("0.0001")),
        (Whole, '"-99999"', Decimal(-99999)),
        (fields.MoneyField, '{"amount": -1250, "currency": "JPY"}', money.Money(-1250, "JPY")),
    ],
)
def test_a_value_that_can_be_stored_and_shown_exactly_is_accepted(kind: Any, text: str, value: Any) -> None:
    found = read(kind, text)

    assert (found, type(found)) == (value, type(value))


MAX = fields.MAX_SAFE_INTEGER


@pytest.mark.parametrize(
    ("kind", "constraint", "taken", "refused_by_field", "refused_by_type"),
    [
        (fields.Text, Field(pattern="^SKU"), ["SKU", "SKU-1\n"], ["ABC", ""], ["SKU\0", "SKU\0SKU"]),
        (fields.Text, Field(pattern="KU$"), ["SKU"], ["SKU1"], ["\0SKU"]),
        (fields.Text, Field(pattern="^SKU", max_length=5), ["SKU"], ["ABC", "SKU-123"], ["SKU\0"]),
        (fields.Text, Field(min_length=2), ["ab"], ["a"], ["ab\0"]),
        (fields.Text, Field(max_length=2), ["ab"], ["abc"], ["\0"]),
        (fields.Text, StringConstraints(pattern="^SKU"), ["SKU"], ["ABC"], ["SKU\0"]),
        (fields.Text, Len(2, 3), ["ab"], ["a", "abcd"], ["a\0"]),
        (fields.Text, Field(strict=True), ["ab"], [], ["a\0", 1]),
        (fields.Integer, Field(ge=1), [1, 5.0, MAX], [0, -1], ["1", True, MAX + 1]),
        (fields.Integer, Field(gt=1), [2], [1], ["2", MAX + 1]),
        (fields.Integer, Field(le=10), [10, -MAX], [11], ["1", False, -MAX - 1]),
        (fields.Integer, Field(lt=10), [9], [10], ["1", -MAX - 1]),
        (fields.Integer, Field(ge=1, le=10_000), [1, 10_000], [0, 10_001], ["1", 1.5]),
        (fields.Integer, Field(ge=-(2**60), le=2**60), [-MAX, MAX], [], [-MAX - 1, MAX + 1, 2**61]),
        (fields.Integer, Field(gt=-(2**60), lt=2**60), [-MAX, MAX], [], [-MAX - 1, MAX + 1]),
        (fields.Integer, Field(multiple_of=5), [0, -5], [6], ["5", MAX + 4]),
        (fields.Integer, Interval(ge=1, le=3), [1, 3], [0, 4], ["1"]),
        (fields.Integer, Field(strict=False), [1], [], ["1", True]),
        (fields.Boolean, Field(strict=False), [True], [], ["true", 1]),
        (fields.Identifier, Field(strict=False), [str(UUID(int=1))], [], [UUID(int=1).urn, UUID(int=1).hex]),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_constraint_of_a_field_adds_to_the_rules_of_its_type_and_so_says_the_schema(
    kind: Any, constraint: Any, taken: list, refused_by_field: list, refused_by_type: list, nested: bool
) -> None:
    narrowed = Annotated[Annotated[kind, Field(title="Inner")], constraint] if nested else Annotated[kind, constraint]
    adapter = TypeAdapter(narrowed)

    for mode in ("validation", "serialization"):
        schema = adapter.json_schema(mode=mode)
        assert not {"ge", "gt", "le", "lt", "multiple_of"} & set(schema)
        for value, right in [(each, True) for each in taken] + [
            (each, False) for each in refused_by_field + refused_by_type
        ]:
            assert jsonschema_rs.is_valid(schema, value, validate_formats=True) is right, (schema, value)
    for value in taken:
        adapter.validate_python(value)
    for value in refused_by_field + refused_by_type:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)
        with pytest.raises(ValidationError):
            adapter.validate_json(json.dumps(value))


DAY, INSTANT = date(2027, 1, 31), datetime(2027, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "constraint", "taken", "refused"),
    [
        (fields.Date, Field(ge=DAY), ["2027-01-31"], ["2027-01-30", 20_000, "2027-02-01T00:00:00"]),
        (fields.Date, Field(lt=DAY), ["2027-01-30"], ["2027-01-31", 0]),
        (fields.Timestamp, Field(ge=INSTANT), ["2027-01-31T01:00:00+01:00"], ["2027-01-31T00:59:59+01:00", 2**33]),
        (fields.Timestamp, Field(lt=INSTANT), ["2027-01-31T00:59:59+01:00"], ["2027-01-31T00:00:00Z", 0]),
        (Amount, Field(gt=0), ["0.01"], ["0", "-1", 1, "1e3", "0.001"]),
        (Amount, Field(le=Decimal("9.5")), ["9.50"], ["9.51", 9]),
        (Amount, Field(max_digits=3), ["1.50"], ["100.50", 1]),
        (Amount, Field(multiple_of=Decimal("0.5")), ["1.5"], ["1.25", 1.5]),
    ],
)
def test_a_bound_that_json_schema_cannot_express_is_checked_beside_the_rules_of_the_type(
    kind: Any, constraint: Any, taken: list, refused: list
) -> None:
    adapter = TypeAdapter(Annotated[kind, constraint])

    for value in taken:
        adapter.validate_python(value)
    for value in refused:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)
    assert adapter.json_schema() == TypeAdapter(kind).json_schema()


def test_a_field_may_show_examples_of_its_own() -> None:
    kind = Annotated[fields.Date, Field(examples=["2030-12-24"], description="When it is due.")]

    assert TypeAdapter(kind).json_schema() | {"format": "date", "type": "string"} == {
        "description": "When it is due.",
        "examples": ["2030-12-24"],
        "format": "date",
        "type": "string",
    }


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/{UUID(int=1)}?sku=SKU", 200),
        (f"/{UUID(int=1)}?sku=ABC", 422),
        (f"/{UUID(int=1)}?sku=SKU%00", 422),
        (f"/{UUID(int=1).hex}?sku=SKU", 422),
        (f"/{UUID(int=1).urn}?sku=SKU", 422),
        (f"/%7B{UUID(int=1)}%7D?sku=SKU", 422),
    ],
)
async def test_the_types_serve_as_parameters_too(path: str, status: int) -> None:
    app = FastAPI()

    @app.get("/{one}")
    async def show(
        one: Annotated[fields.Identifier, Path(description="Which.")],
        sku: Annotated[fields.Text, Query(pattern="^SKU", max_length=10)],
    ) -> str:
        return f"{one} {sku}"

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://tiny") as client:
        assert (await client.get(path)).status_code == status
    first, second = app.openapi()["paths"]["/{one}"]["get"]["parameters"]
    assert first["schema"]["format"] == "uuid"
    assert (second["schema"]["pattern"], second["schema"]["maxLength"]) == ("^SKU", 10)
    assert second["schema"]["allOf"] == [{"pattern": "^[^\\x00]*$"}]


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
async def test_an_accepted_value_comes_back_from_postgres_unchanged(
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


class Line(fields.RequestModel):
    number: fields.Integer
    text: fields.Text


class Lines(fields.RequestModel):
    lines: list[Line]
    by_name: dict[str, tuple[Line, ...]] | None = None


@pytest.mark.slow
def test_a_body_that_breaks_many_rules_is_refused_without_describing_each() -> None:
    for body in (
        {f"field-{number}": 0 for number in range(50_000)},
        {"by_name": {str(n): [{}] for n in range(50_000)}},
    ):
        with pytest.raises(ValidationError) as refused:
            Lines.model_validate(body)
        (only,) = refused.value.errors()
        assert only["type"] == "too_many_errors"
        assert only["msg"].startswith("breaks ")


def test_a_list_is_checked_up_to_its_first_bad_item() -> None:
    with pytest.raises(ValidationError) as refused:
        Lines.model_validate({"lines": [{"number": 1, "text": "a"}, *({} for _ in range(50_000))]})
    assert {part["loc"][:2] for part in refused.value.errors()} == {("lines", 1)}


def test_a_body_that_breaks_a_few_rules_gets_a_description_of_each() -> None:
    with pytest.raises(ValidationError) as refused:
        Lines.model_validate({"lines": [{"number": "one", "txt": "a"}], "other": 1})
    assert {part["loc"] for part in refused.value.errors()} == {
        ("lines", 0, "number"),
        ("lines", 0, "text"),
        ("lines", 0, "txt"),
        ("other",),
    }
    assert Lines.model_json_schema()["properties"]["lines"] == {
        "items": {"$ref": "#/$defs/Line"},
        "title": "Lines",
        "type": "array",
    }
