"""Types for request and response models: they accept values that Postgres can store and JSON can carry safely.

Each type accepts only the values of its JSON schema. Pydantic alone would take 0 for a date, or "1e3" for 1000.
A field may narrow each type: `Annotated[fields.Integer, Field(ge=1)]`. A constraint of a field never replaces a rule of
the type.
"""

import re
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from chassis import money

MAX_SAFE_INTEGER = 2**53 - 1
"""The largest integer that a JSON number holds in every client (RFC 8259, section 6)."""


class _Rule:
    """A rule of a type for each value. The rule runs around the constraints that a field adds: see `_narrowable`."""

    def before(self, value: Any) -> Any:
        """Check the value before Pydantic converts it. Raises ValueError."""
        return value

    def after(self, value: Any) -> Any:
        """Check or convert the value that Pydantic has converted. Raises ValueError."""
        return value

    def describe(self, schema: JsonSchemaValue) -> None:
        """Add the rule to the JSON schema, which already has the constraints of the field."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        if type(self).before is not _Rule.before:  # each function costs a call per value
            schema = core_schema.no_info_before_validator_function(self.before, schema)
        if type(self).after is not _Rule.after:
            schema = core_schema.no_info_after_validator_function(self.after, schema)
        return schema

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler(schema)
        self.describe(described)
        return described


class _Metadata(tuple):
    """The metadata of an `Annotated`. Rules stay behind the constraints that a field adds, so that rules run outside them."""

    def __add__(self, more: tuple[Any, ...]) -> "_Metadata":
        return _Metadata(sorted((*self, *more), key=lambda each: isinstance(each, _Rule)))


def _narrowable(kind: Any) -> None:
    """Let `Annotated[kind, Field(…)]` put the field's constraints inside the rule.

    Pydantic applies metadata from left to right. A constraint to the right of a rule would apply to a function instead
    of a number or a text, and the schema would describe the constraint wrongly or not at all. Where both are a
    `pattern`, the constraint would replace the rule.
    """
    kind.__metadata__ = _Metadata(kind.__metadata__)


class _NoNul(_Rule):
    PATTERN = r"^[^\x00]*$"

    def after(self, value: str) -> str:
        if "\x00" in value:
            raise ValueError("must not contain the character NUL")
        return value

    def describe(self, schema: JsonSchemaValue) -> None:
        if "pattern" in schema:
            schema["allOf"] = [*schema.get("allOf", []), {"pattern": self.PATTERN}]
        else:
            schema["pattern"] = self.PATTERN


class _SafeInteger(_Rule):
    def before(self, value: Any) -> Any:
        # Strict mode would refuse 5.0 too, which JSON Schema calls an integer.
        if isinstance(value, str | bytes | bool):
            raise ValueError("must be a number")
        return value

    def after(self, value: int) -> int:
        if abs(value) > MAX_SAFE_INTEGER:
            raise ValueError(f"must lie between -{MAX_SAFE_INTEGER} and {MAX_SAFE_INTEGER}")
        return value

    def describe(self, schema: JsonSchemaValue) -> None:
        schema["minimum"] = max(schema.get("minimum", -MAX_SAFE_INTEGER), -MAX_SAFE_INTEGER)
        schema["maximum"] = min(schema.get("maximum", MAX_SAFE_INTEGER), MAX_SAFE_INTEGER)


class _TrueOrFalse(_Rule):
    def before(self, value: Any) -> Any:
        if not isinstance(value, bool):
            raise ValueError("must be true or false")
        return value


class _TextForm(_Rule):
    """Accept strings of one form, because JSON has neither dates nor decimals, and values of `kind` from domain objects."""

    def __init__(self, kind: type, pattern: str, advice: str) -> None:
        self._kind, self._advice = kind, advice
        self._matches = re.compile(pattern).fullmatch

    def before(self, value: Any) -> Any:
        if self._matches(value) if isinstance(value, str) else isinstance(value, self._kind):
            return value
        raise ValueError(self._advice)


class _InstantText(_TextForm):
    def after(self, value: datetime) -> datetime:
        return _to_utc(value)


def _to_utc(value: datetime) -> datetime:
    try:
        instant = value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie between the years 1 and 9999 in UTC") from None
    # asyncpg writes these two values as Postgres' -infinity and infinity, which it reads without a time zone.
    if instant.replace(tzinfo=None) in (datetime.min, datetime.max):  # noqa: DTZ901
        raise ValueError("must not be the very first or last microsecond of the calendar")
    return instant


Text = Annotated[str, _NoNul()]
"""Any Unicode text without NUL, which Postgres cannot store. Add a `Field(max_length=…)`."""

Integer = Annotated[int, Field(examples=[42]), _SafeInteger()]

Boolean = Annotated[bool, Field(examples=[True]), _TrueOrFalse()]

Date = Annotated[
    date,
    Field(examples=["2027-01-31"]),
    _TextForm(date, "[0-9]{4}-[0-9]{2}-[0-9]{2}", "must be a date such as 2027-01-31"),
]

Timestamp = Annotated[
    AwareDatetime,
    Field(examples=["2027-01-31T12:00:00Z"]),
    _InstantText(
        datetime,
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})",
        "must be an instant such as 2027-01-31T12:00:00Z, with Z or an offset (RFC 3339)",
    ),
]
"""An instant with an offset, stored to the microsecond and shown in UTC. A leap second is refused."""

Identifier = Annotated[
    UUID,
    Field(examples=["0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d"]),
    _TextForm(
        UUID,
        "[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
        "must be a UUID such as 0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d, without prefix or braces (RFC 9562)",
    ),
]

for _kind in (Text, Integer, Boolean, Date, Timestamp, Identifier):
    _narrowable(_kind)


def decimal(precision: int, scale: int) -> tuple[object, ...]:
    """Make the metadata of `Annotated[Decimal, *decimal(12, 2)]`: a string of up to 12 digits, 2 after the point.

    An answer shows all decimals ("1.5" as "1.50"), as does a Postgres numeric(12, 2). Bounds such as
    `Field(gt=0)` are checked, but the schema cannot express bounds for strings: name them in the description.
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
        _TextForm(Decimal, form, f'must be a string such as "{example}", so that no client rounds it'),
        AfterValidator(pad),
        PlainSerializer(lambda value: format(value, "f"), return_type=str),
        WithJsonSchema({"type": "string", "pattern": f"^{form}$", "examples": [example]}),
    )


def _fail_fast(schema: Any) -> None:
    """Let each list, set and tuple within the schema end its validation at the first invalid item."""
    if isinstance(schema, dict):
        if schema.get("type") in ("list", "set", "frozenset", "tuple"):
            schema["fail_fast"] = True
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            _fail_fast(part)


MAX_BROKEN_RULES = 100
"""The most rules that an error describes: a body of 1 MiB can break a million, which would fill a pod's memory."""


class RequestModel(BaseModel):
    """A request body. An unknown field is refused: either it is a typo, or the client is newer than this version.

    A list is checked up to its first invalid item. If more than MAX_BROKEN_RULES rules are broken, the error states
    only their number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="wrap")
    @classmethod
    def _describe_few(cls, value: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(value)
        except ValidationError as error:
            count = error.error_count()
            if count <= MAX_BROKEN_RULES:
                raise
        raise PydanticCustomError("too_many_errors", "breaks {count} rules", {"count": count})

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _fail_fast(schema)
        return schema


class PatchModel(RequestModel):
    """A change of some fields. Give each field the default MISSING: an absent field stays, and null clears a field."""

    def changes(self) -> dict[str, Any]:
        """Return the fields that the request named, with their new values."""
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
    """Let the dataclass be a field of a model: `Money` above checks and describes the value of the dataclass."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            lambda checked: money.Money(checked.amount, checked.currency),
            handler.generate_schema(Money),
            # The response model has checked the value, so its two attributes are shown as they are.
            serialization=core_schema.plain_serializer_function_ser_schema(
                vars, return_schema=core_schema.dict_schema()
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe the model for answers as for requests."""
        as_checked: Any = {name: part for name, part in schema.items() if name != "serialization"}
        return handler(as_checked)


MoneyField = Annotated[money.Money, _ShownAsModel]
