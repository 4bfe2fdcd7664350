"""A receiver can read the messages of a sender, or not, by schemas from Pydantic."""

from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal, Optional
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model

from fleet.map.unmet_expectations import UnmetExpectation, find_unmet


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class Red(StrEnum):
    RED = "red"


class Money(BaseModel):
    model_config = ConfigDict(extra="forbid")
    amount: int
    currency: str


class MoneyWithRate(Money):
    rate: int


class Amount(BaseModel):
    amount: int


class Tree(BaseModel):
    name: str
    parent: Optional["Tree"] = None


class LabelledTree(BaseModel):
    name: str
    label: int
    parent: Optional["LabelledTree"] = None


class NumberedTree(BaseModel):
    name: int
    parent: Optional["NumberedTree"] = None


def compare(expected: Any, sent: Any) -> list[str]:
    """Compare two schemas of a message with one field, `it`: of the type that the receiver expects, and of the sent type."""
    taken = create_model("Message", it=expected).model_json_schema(mode="validation")
    given = create_model("Message", it=sent).model_json_schema(mode="serialization")
    return [str(one) for one in find_unmet(taken, given)]


KIND, KINDS = Literal["a"], Literal["a", "b"]

FITS: dict[str, tuple[Any, Any]] = {
    "the same": (str, str),
    "a text for what is more": (str, UUID),
    "bounds that the receiver does not have": (str, Annotated[str, Field(max_length=40, pattern="^a")]),
    "narrower bounds": (Annotated[int, Field(ge=0, le=10)], Annotated[int, Field(ge=1, le=9)]),
    "null where it is expected": (str | None, str | None),
    "never null where it might be": (str | None, str),
    "optional here and required there": ((str, "none"), str),
    "optional here and unknown there": ((str, "none"), (str, "none")),
    "an integer as a number": (float, int),
    "a decimal as it is written": (Decimal, Decimal),
    "one of several types": (int | str, int),
    "fewer choices": (Colour, Red),
    "a constant as a choice": (Colour, Literal["green"]),
    "a choice as text with bounds": (Annotated[str, Field(max_length=10)], Colour),
    "fewer keys of a mapping": (dict[KINDS, int], dict[KIND, int]),
    "a pair": (tuple[float, str], tuple[int, str]),
    "a part of an object": (Amount, Money),
    "a list of parts": (list[Amount], list[Money]),
    "a list as a list of anything": (list[Any], list[int]),
    "a mapping": (dict[str, float], dict[str, int]),
    "anything": (Any, dict[str, int]),
    "what holds itself": (Tree, LabelledTree),
    "one of two objects": (Amount | Tree, Money),
}

BREAKS: dict[str, tuple[Any, Any, str]] = {
    "text for a number": (int, str, "it may be string, expected integer"),
    "text that may be no id": (UUID, str, "it may be string, expected string (uuid)"),
    "another format": (date, datetime, "it may be string (date-time), expected string (date)"),
    "a number for an integer": (int, float, "it may be number, expected integer"),
    "null where none is expected": (str, str | None, "it may be null, expected string"),
    "missing where it is required": (str, (str | None, None), "it may be null, expected string"),
    "a type more than expected": (int | str, int | str | None, "it may be null, expected integer or string"),
    "longer than expected": (
        Annotated[str, Field(max_length=9)],
        Annotated[str, Field(max_length=10)],
        "it has maxLength 10, expected 9",
    ),
    "of any length": (Annotated[str, Field(max_length=9)], str, "it has maxLength unset, expected 9"),
    "smaller than expected": (Annotated[int, Field(ge=1)], Annotated[int, Field(ge=0)], "it has minimum 0, expected 1"),
    "a choice more": (Red, Colour, "it may be 'green', expected 'red'"),
    "any text as a choice": (Red, str, "it may be anything, expected 'red'"),
    "a closed object with more in it": (
        Money,
        MoneyWithRate,
        "it.rate is sent, and the receiver refuses unknown fields",
    ),
    "a field less in a list": (list[Money], list[Amount], "it[].currency is required, and is not sent"),
    "a field less in a mapping": (dict[str, Money], dict[str, Amount], "it.*.currency is required, and is not sent"),
    "something else in what holds itself": (Tree, NumberedTree, "it.name may be integer, expected string"),
    "another key of a mapping": (dict[KIND, int], dict[KINDS, int], "it.<name> may be 'b', expected 'a'"),
    "another pair": (tuple[int, str], tuple[int, int], "it[1] may be integer, expected string"),
    "a mapping for an object": (Amount, dict[str, str], "it.amount may be string, expected integer"),
    "none of two objects": (Tree | Money, Amount, "it.name is required, and is not sent"),
}


@pytest.mark.parametrize("name", FITS)
def test_a_receiver_is_content_with(name: str) -> None:
    assert compare(*FITS[name]) == []


@pytest.mark.parametrize("name", BREAKS)
def test_a_receiver_is_stopped_by(name: str) -> None:
    expected, sent, says = BREAKS[name]
    assert says in compare(expected, sent)


def test_an_optional_field_is_reported_if_the_receiver_requires_the_field() -> None:
    sent = {"type": "object", "properties": {"it": {"type": "string"}}}
    assert find_unmet({**sent, "required": ["it"]}, sent) == [UnmetExpectation("it", "is required, and may be missing")]
    assert find_unmet({**sent, "required": ["it"]}, {"type": "object", "properties": {}}) == [
        UnmetExpectation("it", "is required, and is not sent")
    ]


def test_schemas_that_cannot_be_compared_are_reported() -> None:
    expected, sent = {"type": "string", "pattern": "^a+$"}, {"type": "string", "pattern": "^a"}
    assert find_unmet(expected, sent) == [UnmetExpectation("", "has another pattern", sure=False)]
    assert str(find_unmet(expected, sent)[0]) == "the message has another pattern"


def test_a_mismatch_is_reported_for_each_affected_field() -> None:
    schemas = [
        {"properties": {"a": {"$ref": "#/$defs/M"}, "b": {"$ref": "#/$defs/M"}}, "$defs": {"M": {"type": kind}}}
        for kind in ("string", "integer")
    ]
    assert [one.field for one in find_unmet(*schemas)] == ["a", "b"]
