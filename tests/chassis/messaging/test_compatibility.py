"""The gate for messages refuses each breaking change with a remedy, and accepts additions."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from chassis import fields
from chassis.commands import main
from chassis.messages import Contract, Event, Job, Messages, OnJob
from chassis.messaging.specs.compatibility import differences, problems
from chassis.messaging.specs.schemas import described
from chassis.sagas import Run, Sagas, saga
from chassis.service import Service
from pydantic import ConfigDict, Field, create_model

from tests.support.commands import git

# --- one contract, and ways to change it ------------------------------------------------------------------------------


class Address(Contract):
    city: str
    zip_code: str | None = None


class Line(Contract):
    amount: int
    parts: list["Line"] = Field(default_factory=list)


class Parts(StrEnum):
    DOOR = "door"
    ROOF = "roof"


class MoreParts(StrEnum):
    DOOR = "door"
    ROOF = "roof"
    WHEEL = "wheel"


FIELDS: dict[str, Any] = {
    "invoice_id": (UUID, ...),
    "number": (Annotated[int, Field(ge=1, le=1000)], ...),
    "customer": (Annotated[str, Field(min_length=1, max_length=80, pattern="^[a-z]+$")], ...),
    "status": (Literal["issued", "paid", "void"], ...),
    "reason": (str | None, None),
    "tone": (str, "kind"),
    "lines": (list[Line], ...),
    "address": (Address, ...),
    "total": (fields.MoneyField, ...),
    "rates": (dict[str, int], ...),
    "labels": (Annotated[list[str], Field(max_length=3)], []),
    "parts": (dict[Parts, int], {}),
    "pair": (tuple[int, int], (1, 2)),
}


@dataclass(frozen=True)
class Thing:
    invoice_id: UUID


async def handle(message: Any, uow: Any) -> None: ...


def contract(name: str = "InvoiceIssuedV1", **changes: Any) -> type[Contract]:
    """Make the contract with these fields changed or added, or removed with None."""
    wanted = {field: definition for field, definition in {**FIELDS, **changes}.items() if definition is not None}
    return create_model(name, __base__=Contract, **wanted)


def event(*contracts: type[Contract]) -> Messages:
    """Make a service that publishes an event as each of these contracts."""
    happened = [dataclasses.make_dataclass(one.__name__, ["invoice_id"]) for one in contracts]
    lines = (Event(one, wire, "invoice", "invoice_id") for one, wire in zip(happened, contracts, strict=True))
    return Messages("billing", tuple(lines))


def job_of_others(wire: type[Contract]) -> Messages:
    return Messages("billing", incoming=(OnJob(wire, handle),))


def job_to_ourselves(wire: type[Contract]) -> Messages:
    return Messages("billing", (Job(Thing, wire),), (OnJob(wire, handle),))


KINDS = [event, job_to_ourselves, job_of_others]


def published(messages: Messages) -> dict[str, Any]:
    return {one.name: json.loads(json.dumps(one.schema())) for one in described(messages) if one.ours}


def refused(old: Messages, new: Messages) -> list[str]:
    return problems(published(old), described(new))


def nested(model: type[Contract], **changes: Any) -> type[Contract]:
    return create_model(model.__name__, __base__=model, **changes)


class AddressWithoutZipCode(Contract):
    city: str


class LineOfText(Contract):
    amount: str
    parts: list["LineOfText"] = Field(default_factory=list)


# --- changes that break other services --------------------------------------------------------------------------------

BREAKING: dict[str, tuple[dict[str, Any], str]] = {
    "a removed field": ({"customer": None}, "customer: was removed"),
    "a removed optional field": ({"reason": None}, "reason: was removed"),
    "a renamed field": (
        {"customer": None, "client": FIELDS["customer"]},
        "customer: was renamed to client, which others do not know",
    ),
    "a renamed optional field": (
        {"tone": None, "manner": FIELDS["tone"]},
        "tone: was renamed to manner, which others do not know",
    ),
    "a changed type": ({"number": (str, ...)}, "number: is string, was integer"),
    "a new format": ({"tone": (UUID, "kind")}, "tone: is string (uuid), was string"),
    "a list of it": ({"address": (list[Address], ...)}, "address: is array, was object"),
    "another type for items": ({"lines": (list[str], ...)}, "lines[]: is string, was object"),
    "another type for values": ({"rates": (dict[str, str], ...)}, "rates.*: is string, was integer"),
    "two other types": ({"customer": (int | bool, ...)}, "customer: is integer or boolean, was string"),
    "another type deeper": ({"lines": (list[LineOfText], ...)}, "lines[].amount: is string, was integer"),
    "a field removed deeper": ({"address": (AddressWithoutZipCode, ...)}, "address.zip_code: was removed"),
    "a required addition": ({"due": (str, ...)}, "due: was added and is required; an addition needs a default"),
    "a required addition deeper": (
        {"address": (nested(Address, street=(str, ...)), ...)},
        "address.street: was added and is required; an addition needs a default",
    ),
    "an optional field required": ({"tone": (str, ...)}, "tone: is required now"),
    "a narrowed enum": ({"status": (Literal["issued", "paid"], ...)}, 'status: may no longer be "void"'),
    "an enum of one": ({"status": (Literal["issued"], ...)}, 'status: may no longer be "paid", "void"'),
    "an enum for text": ({"tone": (Literal["kind"], "kind")}, 'tone: enum is ["kind"], was not set'),
    "null refused": ({"reason": (str, None)}, "reason: may no longer be null"),
    "a raised minimum": ({"number": (Annotated[int, Field(ge=2, le=1000)], ...)}, "number: minimum is 2, was 1"),
    "a lowered maximum": ({"number": (Annotated[int, Field(ge=1, le=999)], ...)}, "number: maximum is 999, was 1000"),
    "a new bound": (
        {"labels": (Annotated[list[str], Field(min_length=1, max_length=3)], [])},
        "labels: minItems is 1, was not set",
    ),
    "shorter text": (
        {"customer": (Annotated[str, Field(min_length=1, max_length=79, pattern="^[a-z]+$")], ...)},
        "customer: maxLength is 79, was 80",
    ),
    "another pattern": (
        {"customer": (Annotated[str, Field(min_length=1, max_length=80, pattern="^[a-z]*$")], ...)},
        'customer: pattern is "^[a-z]*$", was "^[a-z]+$"',
    ),
    "another default": ({"tone": (str, "stern")}, 'tone: default is "stern", was "kind"'),
    "a key less of a mapping": (
        {"parts": (dict[Literal["door"], int], {})},
        'parts.<name>: may no longer be "roof"',
    ),
    "a rule that is not judged": (
        {"labels": (Annotated[list[str], Field(max_length=3, json_schema_extra={"uniqueItems": True})], [])},
        "labels: uniqueItems is true, was not set",
    ),
}

WIDENING: dict[str, tuple[dict[str, Any], str]] = {
    "any text for an id": ({"invoice_id": (str, ...)}, "invoice_id: is string, was string (uuid)"),
    "a number with decimals": (
        {"number": (Annotated[float, Field(ge=1, le=1000)], ...)},
        "number: is number, was integer",
    ),
    "another type as well": ({"tone": (str | int, "kind")}, "tone: is string or integer, was string"),
    "another key of a mapping": ({"parts": (dict[MoreParts, int], {})}, 'parts.<name>: may also be "wheel" now'),
    "any key of a mapping": ({"parts": (dict[str, int], {})}, 'parts.<name>: enum is not set, was ["door", "roof"]'),
    "another pair": ({"pair": (tuple[int, int | str], (1, 2))}, "pair[1]: is integer or string, was integer"),
    "null": ({"customer": (FIELDS["customer"][0] | None, ...)}, "customer: may be null now"),
    "null with a default": ({"tone": (str | None, "kind")}, "tone: may be null now"),
    "a required field optional": ({"customer": (FIELDS["customer"][0], "none")}, "customer: may be missing now"),
    "a widened enum": (
        {"status": (Literal["issued", "paid", "void", "lost"], ...)},
        'status: may also be "lost" now',
    ),
    "any text for an enum": ({"status": (str, ...)}, 'status: enum is not set, was ["issued", "paid", "void"]'),
    "a lower minimum": ({"number": (Annotated[int, Field(ge=0, le=1000)], ...)}, "number: minimum is 0, was 1"),
    "a dropped maximum": ({"number": (Annotated[int, Field(ge=1)], ...)}, "number: maximum is not set, was 1000"),
    "longer text": (
        {"customer": (Annotated[str, Field(min_length=1, max_length=81, pattern="^[a-z]+$")], ...)},
        "customer: maxLength is 81, was 80",
    ),
}


def cases(known: dict[str, tuple[dict[str, Any], str]]) -> Any:
    return pytest.mark.parametrize(("changes", "line"), [pytest.param(*case, id=name) for name, case in known.items()])


@pytest.mark.parametrize("kind", KINDS)
@cases(BREAKING)
def test_a_breaking_change_is_refused_with_the_field_the_rule_and_the_remedy(
    kind: Callable[..., Messages], changes: dict[str, Any], line: str
) -> None:
    (problem,) = refused(kind(contract()), kind(contract(**changes)))

    *lines, last = problem.splitlines()
    assert lines == ["billing.invoice-issued.v1 has changed in a way that breaks other services:", f"  {line}"]
    assert last.startswith("Within a version ")
    assert last.endswith("InvoiceIssuedV2 in addition to InvoiceIssuedV1.")


@pytest.mark.parametrize("kind", [event, job_to_ourselves])
@cases(WIDENING)
def test_a_sent_message_does_not_widen_because_readers_know_the_old_shape(
    kind: Callable[..., Messages], changes: dict[str, Any], line: str
) -> None:
    (problem,) = refused(kind(contract()), kind(contract(**changes)))
    assert problem.splitlines()[1:] == [
        f"  {line}",
        "Within a version only optional fields may be added. "
        "Restore the contract, and publish InvoiceIssuedV2 in addition to InvoiceIssuedV1.",
    ]


@cases(WIDENING)
def test_a_job_that_only_others_send_may_be_taken_more_generously(changes: dict[str, Any], line: str) -> None:
    assert refused(job_of_others(contract()), job_of_others(contract(**changes))) == []


def test_a_job_is_described_as_accepted_rather_than_published() -> None:
    (problem,) = refused(job_of_others(contract()), job_of_others(contract(customer=None)))
    assert problem.splitlines()[-1] == (
        "Within a version a job accepts all that it accepted. "
        "Restore the contract, and accept InvoiceIssuedV2 in addition to InvoiceIssuedV1."
    )


def test_every_change_of_every_message_is_told() -> None:
    old = event(contract(), contract("InvoicePaidV1"))
    new = event(contract(customer=None, number=(str, ...)), contract("InvoicePaidV1", due=(str, ...)))
    one, other = refused(old, new)
    assert one.splitlines()[1:-1] == ["  number: is string, was integer", "  customer: was removed"]
    assert other.splitlines()[1:-1] == ["  due: was added and is required; an addition needs a default"]


def test_the_proposed_next_version_is_free() -> None:
    old = event(contract(), contract("InvoiceIssuedV2"))
    (problem,) = refused(old, event(contract(customer=None), contract("InvoiceIssuedV2")))
    assert problem.endswith("publish InvoiceIssuedV3 in addition to InvoiceIssuedV1.")


def test_an_event_does_not_become_a_job() -> None:
    (problem,) = refused(event(contract()), job_of_others(contract()))
    assert "the message: it is of the kind job, was event" in problem


def test_nothing_is_added_to_an_object_that_is_closed_to_unknown_fields() -> None:
    class Closed(Contract):
        model_config = ConfigDict(extra="forbid")
        amount: int

    old = contract(price=(Closed, ...))
    new = contract(price=(nested(Closed, tax=(int, 0)), ...))
    (problem,) = refused(event(old), event(new))
    assert "  price.tax: was added to an object that is closed to unknown fields" in problem.splitlines()
    assert refused(job_of_others(old), job_of_others(new)) == []


def test_a_union_may_not_get_another_member() -> None:
    class Card(Contract):
        method: Literal["card"]

    class Transfer(Contract):
        method: Literal["transfer"]

    class Cash(Contract):
        method: Literal["cash"]

    def paid_by(union: Any) -> Messages:
        return event(contract(payment=(Annotated[union, Field(discriminator="method")], ...)))

    (problem,) = refused(paid_by(Card | Transfer), paid_by(Card | Transfer | Cash))
    assert '  payment.method: may also be "cash" now' in problem.splitlines()
    (problem,) = refused(paid_by(Card | Transfer), paid_by(Card | Cash))
    assert '  payment.method: may no longer be "transfer"' in problem.splitlines()
    assert refused(paid_by(Card | Transfer), paid_by(Card | nested(Transfer, bank=(str, "")))) == []
    (problem,) = refused(
        event(contract(code=(int | str | None, None))), event(contract(code=(int | bool | None, None)))
    )
    assert "  code: is integer or boolean or null, was integer or string or null" in problem.splitlines()


A, B = {"type": "string"}, {"type": "integer"}
DEFINED = {"$defs": {"A": {"type": "string", "title": "Old"}}}
RENAMED = {"$defs": {"B": {"type": "string", "title": "New"}, "A": {"type": "integer"}}}


@pytest.mark.parametrize(
    "holder",
    [
        lambda inner: {"not": inner},
        lambda inner: {"type": "object", "propertyNames": {"not": inner}},
        lambda inner: {"type": "array", "contains": inner},
        lambda inner: {"if": inner, "then": {"maxLength": 3}},
        lambda inner: {"if": {"maxLength": 3}, "then": inner},
        lambda inner: {"if": {"maxLength": 3}, "else": inner},
        lambda inner: {"type": "object", "dependentSchemas": {"a": inner}},
        lambda inner: {"type": "object", "unevaluatedProperties": inner},
        lambda inner: {"type": "array", "unevaluatedItems": inner},
        lambda inner: {"type": "array", "items": inner},
        lambda inner: {"type": "array", "prefixItems": [inner]},
        lambda inner: {"type": "object", "additionalProperties": inner},
        lambda inner: {"type": "object", "patternProperties": {"^a": inner}},
        lambda inner: {"type": "object", "properties": {"a": inner}},
        lambda inner: {"anyOf": [inner, {"type": "null"}]},
        lambda inner: {"oneOf": [inner, {"type": "null"}]},
        lambda inner: {"allOf": [inner]},
        lambda inner: inner,
    ],
)
def test_a_reference_is_compared_by_its_target(holder: Callable[[Any], dict[str, Any]]) -> None:
    old = {**holder({"$ref": "#/$defs/A"}), **DEFINED}
    assert [one for one in differences(old, {**holder({"$ref": "#/$defs/A"}), **RENAMED}) if not one.wider]
    assert [one for one in differences({**holder({"$ref": "#/$defs/A"}), **RENAMED}, old) if not one.wider]
    assert differences(old, {**holder({"$ref": "#/$defs/B"}), **RENAMED}) == []


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ({"$ref": "#/$defs/gone"}, A, "the reference #/$defs/gone leads nowhere"),
        ({"$ref": "other.json"}, A, "the reference other.json leads to another document or an anchor"),
        ({"$ref": "#here", "$defs": {"A": {"$anchor": "here"}}}, A, "the reference #here leads to another"),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}, A, "leads to itself"),
        ({"properties": {"a": 1}}, {"properties": {"a": {}}}, "1 is no schema"),
        ({"type": "array", "items": [A]}, {"type": "array", "items": A}, "as before JSON Schema 2020-12"),
    ],
)
def test_a_schema_that_cannot_be_compared_is_refused_with_the_reason(
    old: dict[str, Any], new: dict[str, Any], reason: str
) -> None:
    for one, other in ((old, new), (new, old)):
        (found, *_) = differences(one, other)
        assert reason in found.change
        assert not found.wider


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"enum": [1]}, {"enum": [True]}),
        ({"const": 0}, {"const": False}),
        ({"properties": {"a": {"default": 1}}}, {"properties": {"a": {"default": True}}}),
        ({"not": A}, {"not": B}),
        ({"type": ["string", "null"]}, {"type": "string"}),
        ({"anyOf": [A, B]}, {"anyOf": [A]}),
        ({"additionalProperties": True}, {"additionalProperties": False}),
        ({"required": []}, {"required": ["a"]}),
        ({"type": "object", "additionalProperties": B}, {"type": "object", "properties": {"a": A}}),
        ({"$ref": "#/$defs/A", "maxLength": 5, **DEFINED}, {"$ref": "#/$defs/A", "maxLength": 3, **DEFINED}),
        ({"oneOf": [{"maximum": 3}, {"minimum": 5}]}, {"oneOf": [{"maximum": 7}, {"minimum": 5}]}),
        ({"contains": A}, {"contains": A, "minContains": 2}),
        ({"dependentRequired": {}}, {"dependentRequired": {"a": ["b"]}}),
    ],
)
def test_a_value_that_is_no_longer_valid_is_a_difference(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert [one for one in differences(old, new) if not one.wider]
    assert differences(old, old) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"type": "string", "x-own": 1}, {"type": "string", "x-own": 2, "examples": ["a"], "externalDocs": {}}),
        ({"type": ["string", "null"]}, {"anyOf": [{"type": "null"}, {"type": "string"}]}),
        ({"const": "a"}, {"enum": ["a"]}),
        ({"allOf": [A]}, {"type": "string"}),
        ({"allOf": [{"minLength": 1}, A]}, {"type": "string", "minLength": 1}),
        ({"anyOf": [A, B]}, {"anyOf": [B, A]}),
        ({"anyOf": [A, B]}, {"oneOf": [B, A]}),
        ({"required": ["a", "b"]}, {"required": ["b", "a"]}),
        ({"type": "object", "properties": {}, "additionalProperties": True}, {"type": "object", "properties": {}}),
    ],
)
def test_schemas_of_the_same_meaning_have_no_difference(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert [one for one in differences(old, new) if one.wider is False] == []


# --- changes that pass ------------------------------------------------------------------------------------------------


class Renamed(Contract):
    """A contract with another name and the same JSON as Address."""

    city: Annotated[str, Field(description="Where.", examples=["Rome"])]
    zip_code: str | None = Field(None, deprecated=True)


PASSING: dict[str, dict[str, Any]] = {
    "nothing": {},
    "an optional field": {"due": (str | None, None)},
    "a field with a default": {"due": (Annotated[int, Field(ge=1)], 14)},
    "a field with a default that is made": {"tags": (list[str], Field(default_factory=list))},
    "an optional object": {"place": (Address | None, None)},
    "an optional field deeper": {"address": (nested(Address, street=(str, "")), ...)},
    "an optional field in an item": {"lines": (list[nested(Line, tax=(Decimal | None, None))], ...)},
    "another name for a class and words about it": {"address": (Renamed, ...)},
    "another order of an enum": {"status": (Literal["void", "paid", "issued"], ...)},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in PASSING.items()])
def test_an_optional_addition_passes(kind: Callable[..., Messages], changes: dict[str, Any]) -> None:
    assert refused(kind(contract()), kind(contract(**changes))) == []


def test_a_new_message_and_a_new_version_pass() -> None:
    new = event(contract(), contract("InvoiceIssuedV2", customer=None), contract("InvoicePaidV1"))
    assert refused(event(contract()), new) == []


def test_the_schema_of_another_service_is_not_compared() -> None:
    sent_to_others = Messages("billing", (Job(Thing, contract(), to="printing"),))
    assert published(sent_to_others) == {}
    assert refused(sent_to_others, event(contract("OtherV1"))) == []


# --- removed messages -------------------------------------------------------------------------------------------------


def test_a_removed_message_is_refused_with_the_way_to_retire_a_message() -> None:
    (problem,) = refused(event(contract(), contract("PaidV1", due=(str, ...))), event(contract()))
    assert problem == (
        "billing.paid.v1 is gone.\n"
        "Bring PaidV1 back, in addition to new contracts. Once no service uses PaidV1 any more, retire the message by a line in "
        "specs/retired.txt: `billing.paid.v1 <why nobody needs it>`."
    )


def test_a_renamed_message_counts_as_removed() -> None:
    (problem,) = refused(event(contract()), event(contract("InvoicePostedV1")))
    assert problem.startswith("billing.invoice-issued.v1 is gone (billing.invoice-posted.v1 is alike, but ")
    assert "Bring InvoiceIssuedV1 back" in problem
    # The other name was there before, so it cannot be the new name of the message that is gone.
    (problem,) = refused(event(contract(), contract("PaidV1")), event(contract()))
    assert problem.startswith("billing.paid.v1 is gone.")


def test_a_retired_message_may_go_and_its_number_never_comes_back() -> None:
    old, new = event(contract(), contract("PaidV1")), event(contract())
    assert problems(published(old), described(new), {"billing.paid.v1"}) == []
    (problem,) = problems(published(new), described(old), {"billing.paid.v1"})
    assert problem == "billing.paid.v1 is in specs/retired.txt, and its number is used up: make it PaidV2."


# --- the command, in a repository -------------------------------------------------------------------------------------


@pytest.fixture(params=[".", "services/billing"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The service's folder: the root of a repository with one commit, or deeper in it."""
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "Start")
    folder = tmp_path / request.param
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def compare(service: Service) -> Callable[..., int]:
    """`compare(messages, commit)`: the exit status of `specs --against`."""

    def compare(messages: Messages, commit: str) -> int:
        return main(dataclasses.replace(service, messages=messages), ["specs", "--against", commit])

    return compare


def commit(folder: Path, service: Service, messages: Messages) -> None:
    assert main(dataclasses.replace(service, messages=messages), ["specs"]) == 0
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "Change")


def test_the_code_is_compared_with_the_documents_of_a_commit(
    folder: Path, service: Service, compare: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    commit(folder, service, event(contract(), contract("PaidV1")))

    assert compare(event(contract(due=(str, "")), contract("PaidV1")), "main") == 0
    assert capsys.readouterr().err == ""
    assert compare(event(contract(customer=None)), "HEAD") == 1
    said = capsys.readouterr().err
    assert (
        "billing.invoice-issued.v1 has changed in a way that breaks other services:\n  customer: was removed\n" in said
    )
    assert "billing.paid.v1 is gone" in said


def test_other_files_in_the_folder_of_schemas_are_no_schemas(
    folder: Path, service: Service, compare: Callable[..., int]
) -> None:
    commit(folder, service, event(contract()))
    for name in (".gitattributes", "README.md"):
        (folder / "specs/messages" / name).write_text("# Not JSON\n")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Explain")

    assert compare(event(contract()), "main") == 0
    assert compare(event(contract(customer=None)), "main") == 1


def test_a_stale_or_edited_file_cannot_hide_a_change(
    folder: Path, service: Service, compare: Callable[..., int]
) -> None:
    commit(folder, service, event(contract()))
    assert (folder / "specs/messages/billing.invoice-issued.v1.json").exists()

    assert compare(event(contract(customer=None)), "main") == 1


def test_a_message_that_the_base_got_after_the_branch_is_not_missing(
    folder: Path, service: Service, compare: Callable[..., int]
) -> None:
    commit(folder, service, event(contract()))
    git(folder, "branch", "work")
    commit(folder, service, event(contract(), contract("PaidV1")))
    git(folder, "checkout", "--quiet", "work")

    assert compare(event(contract()), "main") == 0
    assert compare(event(contract(customer=None)), "main") == 1


def test_a_commit_from_before_the_first_message_is_kept_by_any(folder: Path, compare: Callable[..., int]) -> None:
    assert (folder / "specs").exists() is False
    assert compare(event(contract()), "main") == 0


def test_a_message_is_retired_by_a_line_that_says_why(
    folder: Path, service: Service, compare: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    commit(folder, service, event(contract(), contract("PaidV1")))
    retired = folder / "specs/retired.txt"
    retired.write_text("billing.paid.v1\n")
    assert compare(event(contract()), "main") == 2
    assert "specs/retired.txt has no reason for billing.paid.v1" in capsys.readouterr().err

    retired.write_text("# name, reason\n\nbilling.paid.v1 nobody has listened since 2027-01\n")
    assert compare(event(contract()), "main") == 0

    commit(folder, service, event(contract()))
    retired.unlink()
    assert compare(event(contract(), contract("PaidV1")), "main") == 1
    assert "make it PaidV2" in capsys.readouterr().err


async def collect(run: Run, address: Address) -> None: ...


def with_saga(version: int) -> Messages:
    sagas = Sagas([saga("collect", version=version)(collect)], idle=timedelta(minutes=1), keep=timedelta(days=30))
    return Messages("billing", tuple(sagas.outgoing), tuple(sagas.incoming), sagas=sagas)


def test_a_saga_keeps_its_function_until_a_line_says_why_no_saga_is_left(
    folder: Path, service: Service, compare: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    commit(folder, service, with_saga(2))
    assert compare(with_saga(2), "main") == compare(with_saga(3), "main") == 0
    assert compare(with_saga(1), "main") == 1
    assert "The saga collect has version 1, was 2: workers would leave" in capsys.readouterr().err
    assert compare(event(contract()), "main") == 1
    assert "retire it by a line in specs/retired.txt: `collect <why no saga is left>`" in capsys.readouterr().err
    lines = "collect nothing has started one since 2027-01\nbilling.advance-saga.v1 the service has no sagas\n"
    (folder / "specs/retired.txt").write_text(lines)
    assert compare(event(contract()), "main") == 0


SCHEMA = "specs/messages/billing.invoice-issued.v1.json"
DEEP = '{"a": ' * 100_000


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        ("specs/asyncapi.json", b"[]", "specs/asyncapi.json is not an object there"),
        (
            "specs/asyncapi.json",
            b'{"x-sagas": ["collect"]}',
            "x-sagas of specs/asyncapi.json is not an object with the version",
        ),
        (
            "specs/asyncapi.json",
            b'{"x-sagas": {"collect": "1"}}',
            "x-sagas of specs/asyncapi.json is not an object with the ver",
        ),
        ("specs/asyncapi.json", DEEP.encode(), "specs/asyncapi.json is not JSON there"),
        (SCHEMA, b"null", f"{SCHEMA} is not an object there"),
        (SCHEMA, b'{"title": "Caf\xe9"}', "a document there is not UTF-8"),
        (SCHEMA, b'{"type": "object", "required": 1}', "a schema there is no JSON Schema (TypeError"),
    ],
)
def test_a_document_of_the_base_that_was_changed_by_hand_is_refused_by_a_sentence(
    folder: Path,
    service: Service,
    compare: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    path: str,
    content: bytes,
    said: str,
) -> None:
    commit(folder, service, event(contract()))
    (folder / path).write_bytes(content)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Change by hand")
    assert compare(event(contract()), "main") == 2
    assert capsys.readouterr().err.startswith(f"Cannot compare the messages with 'main': {said}")


def test_a_retired_name_without_a_number_is_no_version_of_a_message(
    folder: Path, service: Service, compare: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    commit(folder, service, event(contract()))
    name = next(Path("specs/messages").glob("*.json")).stem
    (folder / "specs/retired.txt").write_text(f"{name} a wrong decision\n{name}-draft nobody has used the draft\n")
    assert compare(event(contract()), "main") == 1
    assert "its number is used up: make it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("unknown", "said"),
    [
        ("nowhere", "single revision"),
        ("", "single revision"),
        ("main:specs", "main:specs"),
        ("island", "no common history"),
    ],
)
def test_an_unknown_base_is_refused(
    folder: Path, compare: Callable[..., int], capsys: pytest.CaptureFixture[str], unknown: str, said: str
) -> None:
    git(folder, "branch", "island", git(folder, "commit-tree", "HEAD^{tree}", "-m", "Alone").strip())

    assert compare(event(contract()), unknown) == 2

    told = capsys.readouterr().err
    assert told.startswith(f"Cannot compare the messages with {unknown!r}: ")
    assert said in told


def test_without_a_repository_or_git_there_is_nothing_to_compare_with(
    tmp_path: Path, compare: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert compare(event(contract()), "main") == 2
    assert "not a git repository" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")
    assert compare(event(contract()), "main") == 2
    assert "git is not installed" in capsys.readouterr().err


def test_checking_and_comparing_are_two_commands(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(service, ["specs", "--check", "--against", "main"])
    assert refused.value.code == 2
    assert "not allowed with" in capsys.readouterr().err
