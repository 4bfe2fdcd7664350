"""Types for request and response models. What they accept is what Postgres can store and JSON can carry safely."""

from datetime import UTC, datetime
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

from chassis.money import Money

MAX_SAFE_INTEGER = 2**53 - 1
"""The largest integer that a JSON number holds in every client (RFC 8259, section 6)."""


def _number(value: object) -> object:
    # Pydantic's lax mode takes "5" and true for an integer; strict mode refuses 5.0, which JSON Schema calls one.
    if isinstance(value, str | bytes | bool):
        raise ValueError("must be a number")
    return value


def _decimal_string(value: object) -> object:
    if not isinstance(value, str | Decimal):
        raise ValueError('must be a string such as "12.50", so that no client rounds it')
    return value


def _to_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie between the years 1 and 9999 in UTC") from None


Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""Any Unicode text but NUL, which Postgres cannot store. Add a `Field(max_length=…)`."""

Integer = Annotated[int, Field(ge=-MAX_SAFE_INTEGER, le=MAX_SAFE_INTEGER), BeforeValidator(_number)]

Boolean = StrictBool

Timestamp = Annotated[AwareDatetime, AfterValidator(_to_utc)]
"""An instant with an offset; kept to the microsecond and shown in UTC."""


Identifier = Annotated[UUID, Field(examples=["0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d"])]


def decimal(precision: int, scale: int) -> tuple[object, ...]:
    """What makes `Annotated[Decimal, *decimal(12, 2)]`: a string of at most 12 digits, 2 of them after the point.

    The value comes back with all its decimals ("1.5" as "1.50"), as a Postgres numeric(12, 2) shows it.
    """
    whole = precision - scale
    digits = rf"\d{{1,{whole}}}" if whole else "0"
    fraction = rf"(\.\d{{1,{scale}}})?" if scale else ""
    # The default context rounds to 28 digits.
    context, quantum = Context(prec=precision + 1), Decimal(1).scaleb(-scale)

    def pad(value: Decimal) -> Decimal:
        return context.add(value.quantize(quantum, context=context), Decimal(0))  # + 0 turns -0 into 0

    return (
        Field(max_digits=precision, decimal_places=scale),
        BeforeValidator(_decimal_string),
        AfterValidator(pad),
        PlainSerializer(lambda value: format(value, "f"), return_type=str),
        WithJsonSchema({"type": "string", "pattern": f"^-?{digits}{fraction}$"}),
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


class MoneyModel(ResponseModel):
    """An amount in the currency's smallest unit, and the currency's ISO 4217 code."""

    model_config = ConfigDict(extra="forbid", from_attributes=True, title="Money")

    amount: Annotated[Integer, Field(examples=[1250])]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$", examples=["EUR"])]


class _ShownAsModel:
    """Lets the plain dataclass Money stand in a model: checked and described by MoneyModel, kept as Money."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        model = handler.generate_schema(MoneyModel)
        return core_schema.no_info_after_validator_function(
            lambda checked: Money(checked.amount, checked.currency),
            model,
            serialization=core_schema.plain_serializer_function_ser_schema(
                MoneyModel.model_validate, return_schema=model
            ),
        )


MoneyField = Annotated[Money, _ShownAsModel]
