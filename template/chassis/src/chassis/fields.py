"""Types for request and response models. What they accept is what Postgres can store and JSON can carry safely.

They accept what their JSON schema says and no more, where Pydantic alone would take 0 for a date, or "1e3" for 1000.
"""

import re
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    StrictBool,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from chassis import money

MAX_SAFE_INTEGER = 2**53 - 1
"""The largest integer that a JSON number holds in every client (RFC 8259, section 6)."""


def _number(value: object) -> object:
    # Strict mode would refuse 5.0 too, which JSON Schema calls an integer.
    if isinstance(value, str | bytes | bool):
        raise ValueError("must be a number")
    return value


def _written(kind: type, pattern: str, advice: str) -> BeforeValidator:
    """Take strings of one form, and the values of `kind` that domain objects hold. JSON has neither dates nor decimals."""
    matches = re.compile(pattern).fullmatch

    def check(value: object) -> object:
        if matches(value) if isinstance(value, str) else isinstance(value, kind):
            return value
        raise ValueError(advice)

    return BeforeValidator(check)


def _to_utc(value: datetime) -> datetime:
    try:
        instant = value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie between the years 1 and 9999 in UTC") from None
    # asyncpg writes these two as Postgres' -infinity and infinity, and reads those back without a time zone.
    if instant.replace(tzinfo=None) in (datetime.min, datetime.max):  # noqa: DTZ901
        raise ValueError("must not be the very first or last microsecond of the calendar")
    return instant


Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""Any Unicode text but NUL, which Postgres cannot store. Add a `Field(max_length=…)`."""

Integer = Annotated[int, Field(ge=-MAX_SAFE_INTEGER, le=MAX_SAFE_INTEGER), BeforeValidator(_number)]

Boolean = StrictBool

Date = Annotated[
    date,
    Field(examples=["2027-01-31"]),
    _written(date, "[0-9]{4}-[0-9]{2}-[0-9]{2}", "must be a date such as 2027-01-31"),
]

Timestamp = Annotated[
    AwareDatetime,
    Field(examples=["2027-01-31T12:00:00Z"]),
    AfterValidator(_to_utc),
    _written(
        datetime,
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})",
        "must be an instant such as 2027-01-31T12:00:00Z, with Z or an offset (RFC 3339)",
    ),
]
"""An instant with an offset; kept to the microsecond and shown in UTC. A leap second is refused: nothing here has it."""

Identifier = Annotated[UUID, Field(examples=["0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d"])]


def decimal(precision: int, scale: int) -> tuple[object, ...]:
    """What makes `Annotated[Decimal, *decimal(12, 2)]`: a string of at most 12 digits, 2 of them after the point.

    The value comes back with all its decimals ("1.5" as "1.50"), as a Postgres numeric(12, 2) shows it.
    """
    whole = precision - scale
    digits = f"[0-9]{{1,{whole}}}" if whole else "0"
    fraction = rf"(\.[0-9]{{1,{scale}}})?" if scale else ""
    form = f"-?{digits}{fraction}"
    example = ("1" if whole else "0") + (".5".ljust(scale + 1, "0") if scale else "")
    # The default context rounds to 28 digits.
    context, quantum = Context(prec=precision + 1), Decimal(1).scaleb(-scale)

    def pad(value: Decimal) -> Decimal:
        return context.add(value.quantize(quantum, context=context), Decimal(0))  # + 0 turns -0 into 0

    return (
        _written(Decimal, form, f'must be a string such as "{example}", so that no client rounds it'),
        AfterValidator(pad),
        PlainSerializer(lambda value: format(value, "f"), return_type=str),
        WithJsonSchema({"type": "string", "pattern": f"^{form}$", "examples": [example]}),
    )


class RequestModel(BaseModel):
    """A request body. An unknown field is refused: it is a typo, or a client ahead of this version."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PatchModel(RequestModel):
    """A change of some fields. Give each field the default MISSING: absent means unchanged, null means cleared."""

    def changes(self) -> dict[str, Any]:
        """The fields that the request named."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class ResponseModel(BaseModel):
    """A response body, made from the attributes of a domain object."""

    model_config = ConfigDict(from_attributes=True)


class Money(ResponseModel):
    """An amount in the currency's smallest unit, and the currency's ISO 4217 code."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    amount: Annotated[Integer, Field(examples=[1250])]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$", examples=["EUR"])]


class _ShownAsModel:
    """Lets the dataclass stand in a model: checked and described by the model above, kept as the dataclass."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        model = handler.generate_schema(Money)
        return core_schema.no_info_after_validator_function(
            lambda checked: money.Money(checked.amount, checked.currency),
            model,
            serialization=core_schema.plain_serializer_function_ser_schema(Money.model_validate, return_schema=model),
        )


MoneyField = Annotated[money.Money, _ShownAsModel]
