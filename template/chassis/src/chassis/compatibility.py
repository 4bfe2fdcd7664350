"""The gate for messages: whoever knows a version of one can go on with it.

What a service sends keeps its shape within a version; optional fields may be added, and nothing else. To send less than
before is refused as well: old messages lie in the broker for days, and a reader made for the new schema would refuse
them. A job that only others send may be taken more generously than before.

Conservative: a difference between schemas that this module cannot judge is refused.

It needs the standard library only: it is fleet/compatibility.py too, so that a service is judged alike from outside.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

Schema = Mapping[str, Any]

ANNOTATIONS = {"$comment", "$defs", "$id", "$schema", "deprecated", "description", "examples", "title", "x-kind"}
"""What says nothing about which bodies are valid."""
LOWER_BOUNDS = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
UPPER_BOUNDS = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}
_SEEN_ELSEWHERE = {"type", "format", "required", "default"}
_NULL = {"type": "null"}


@dataclass(frozen=True)
class Difference:
    """What changed at one field. `wider`: all that was valid still is. `narrower`: all that is valid was so before."""

    field: str
    change: str
    wider: bool = False
    narrower: bool = False

    def __str__(self) -> str:
        return f"{self.field or 'the message'}: {self.change}"


class Message(Protocol):
    """A message of the service as it is now: of the chassis, a Described."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def sent(self) -> bool: ...
    @property
    def ours(self) -> bool: ...
    def schema(self) -> dict[str, Any]: ...


def problems(base: Mapping[str, Schema], messages: Iterable[Message], retired: Set[str] = frozenset()) -> list[str]:
    """What breaks those who know the messages of `base`, by name; one text for each message, with the way out."""
    now = {one.name: one for one in messages if one.ours}
    found = [_gone(name, base, now) for name in sorted(base) if name not in now and name not in retired]
    for name, one in now.items():
        if name in retired:
            next_one = _next(one.schema()["title"], name, base.keys() | now.keys() | retired)
            found.append(f"{name} is in specs/retired.txt, and its number is used up: make it {next_one}.")
        elif name in base:
            found += _broken(base[name], one, base.keys() | now.keys() | retired)
    return found


def _broken(old: Schema, now: Message, names: Set[str]) -> Iterator[str]:
    only_others_send_it = now.kind == "job" and not now.sent
    schema = now.schema()
    breaking = [one for one in differences(old, schema) if not (one.wider and only_others_send_it)]
    if not breaking:
        return
    contract = schema["title"]
    does, rule = (
        ("accept", "Within a version a job accepts all that it accepted.")
        if only_others_send_it
        else ("publish", "Within a version only optional fields may be added.")
    )
    yield "\n".join(
        [
            f"{now.name} is no longer what others know:",
            *(f"  {one}" for one in breaking),
            f"{rule} Put it back, and {does} {_next(contract, now.name, names)} beside {contract}.",
        ]
    )


def _gone(name: str, base: Mapping[str, Schema], now: Mapping[str, Message]) -> str:
    heirs = [other for other, one in now.items() if other not in base and not differences(base[name], one.schema())]
    renamed = f" ({heirs[0]} is alike, but others know it by its old name)" if heirs else ""
    contract = base[name].get("title", name)
    return (
        f"{name} is gone{renamed}.\n"
        f"Bring {contract} back, beside what is new. Once nobody uses it any more, retire it by a line in "
        f"specs/retired.txt: `{name} <why nobody needs it>`."
    )


def _next(contract: str, name: str, names: Iterable[str]) -> str:
    """The contract's name with the first number that no version of the message has had."""
    family = name.rpartition(".v")[0]
    numbers = [int(number) for stem, _, number in (one.rpartition(".v") for one in names) if stem == family]
    return re.sub(r"V\d+$", f"V{max(numbers) + 1}", contract)


def differences(old: Schema, new: Schema, *, within: tuple[Schema, Schema] | None = None) -> list[Difference]:
    """All in which the new schema differs for others, but for optional fields that were added.

    `within` are the documents that their references point into; without it each is its own.
    """
    return list(_Comparison(*(within or (old, new))).everything(old, new))


class _Plain(NamedTuple):
    """A schema without reference, const and null."""

    schema: dict[str, Any]
    nullable: bool
    reference: str | None


class _Comparison:
    def __init__(self, old: Schema, new: Schema) -> None:
        self._old = old
        self._new = new
        self._seen: set[tuple[str, str]] = set()

    def everything(self, old: Schema, new: Schema) -> Iterator[Difference]:
        was, is_ = old.get("x-kind"), new.get("x-kind")
        if was != is_:
            yield Difference("", f"it is of the kind {is_}, was {was}")
        yield from self._value(old, new, "")

    def _value(self, old: Schema | bool, new: Schema | bool, at: str) -> Iterator[Difference]:
        was, is_ = _plain(old, self._old), _plain(new, self._new)
        if is_.nullable and not was.nullable:
            yield Difference(at, "may be null now", wider=True)
        if was.nullable and not is_.nullable:
            yield Difference(at, "may no longer be null", narrower=True)
        if was.reference and is_.reference:
            if (was.reference, is_.reference) in self._seen:
                return
            self._seen.add((was.reference, is_.reference))
        if _type(was.schema) != _type(is_.schema):
            yield Difference(at, f"is {_type(is_.schema)}, was {_type(was.schema)}")
            return
        for keyword in sorted((was.schema.keys() | is_.schema.keys()) - ANNOTATIONS - _SEEN_ELSEWHERE):
            yield from self._keyword(keyword, was.schema, is_.schema, at)

    def _keyword(self, keyword: str, old: Schema, new: Schema, at: str) -> Iterator[Difference]:
        was, is_ = old.get(keyword), new.get(keyword)
        match keyword:
            case "properties":
                yield from self._fields(old, new, at)
            case "items" if isinstance(was, Mapping) and isinstance(is_, Mapping):
                yield from self._value(was, is_, f"{at}[]")
            case "additionalProperties" if isinstance(was, Mapping) and isinstance(is_, Mapping):
                yield from self._value(was, is_, f"{at}.*")
            case "anyOf" | "oneOf" | "prefixItems" if was and is_ and len(was) == len(is_):
                for one, other in zip(was, is_, strict=True):
                    yield from self._value(one, other, at)
            case _ if was == is_:
                return
            case "enum":
                yield from _choices(was, is_, at)
            case _ if keyword in LOWER_BOUNDS | UPPER_BOUNDS:
                wider = _is_wider(keyword, was, is_)
                yield Difference(at, _changed(keyword, was, is_), wider=wider, narrower=not wider)
            case _:
                yield Difference(at, _changed(keyword, was, is_))

    def _fields(self, old: Schema, new: Schema, at: str) -> Iterator[Difference]:
        was, is_ = ({name: _mapping(one) for name, one in side.get("properties", {}).items()} for side in (old, new))
        needed_before, needed = old.get("required", []), new.get("required", [])
        added = [name for name in is_ if name not in was]
        for name in was:
            field = f"{at}.{name}".lstrip(".")
            if name not in is_:
                heir = next((other for other in added if _bare(is_[other]) == _bare(was[name])), None)
                added = [other for other in added if other != heir]
                yield Difference(field, f"was renamed to {heir}, which others do not know" if heir else "was removed")
                continue
            if name in needed and name not in needed_before:
                yield Difference(field, "is required now", narrower=True)
            elif name in needed_before and name not in needed:
                yield Difference(field, "may be missing now", wider=True)
            elif was[name].get("default") != is_[name].get("default"):
                # What is valid is the same. What it means is not, to who leaves it out.
                change = _changed("default", was[name].get("default"), is_[name].get("default"))
                yield Difference(field, change, narrower=True)
            yield from self._value(was[name], is_[name], field)
        for name in added:
            field = f"{at}.{name}".lstrip(".")
            if name in needed:
                narrower = old.get("additionalProperties") is not False
                yield Difference(field, "was added and is required; an addition needs a default", narrower=narrower)
            elif old.get("additionalProperties") is False:
                yield Difference(field, "was added to an object that is closed to unknown fields", wider=True)


def _plain(schema: Schema | bool, root: Schema) -> _Plain:
    plain, nullable, reference = {**_mapping(schema)}, False, None
    while True:
        if "$ref" in plain:
            reference = plain.pop("$ref")
            plain = {**_at(reference, root), **plain}
        elif _NULL in plain.get("anyOf", []):
            nullable = True
            others = [one for one in plain.pop("anyOf") if one != _NULL]
            plain = {**others[0], **plain} if len(others) == 1 else {**plain, "anyOf": others}
        else:
            break
    if "const" in plain:
        plain["enum"] = [plain.pop("const")]
    return _Plain(plain, nullable, reference)


def _at(reference: str, root: Schema) -> Schema:
    found: Any = root
    for step in reference.removeprefix("#/").split("/"):
        found = found[step.replace("~1", "/").replace("~0", "~")]
    return _mapping(found)


def _mapping(schema: Schema | bool) -> Schema:
    """True stands for a schema that takes anything, False for one that takes nothing."""
    if isinstance(schema, bool):
        return {} if schema else {"not": {}}
    return schema


def _type(schema: Schema) -> str:
    if alternatives := schema.get("anyOf", schema.get("oneOf")):
        return f"one of {len(alternatives)} alternatives"
    kind = schema.get("type", "anything")
    return f"{kind} ({schema['format']})" if "format" in schema else str(kind)


def _choices(was: Sequence[Any] | None, is_: Sequence[Any] | None, at: str) -> Iterator[Difference]:
    if was is None or is_ is None:
        yield Difference(at, _changed("enum", was, is_), wider=is_ is None, narrower=was is None)
        return
    if lost := [choice for choice in was if choice not in is_]:
        yield Difference(at, f"may no longer be {_list(lost)}", narrower=True)
    if new := [choice for choice in is_ if choice not in was]:
        yield Difference(at, f"may also be {_list(new)} now", wider=True)


def _is_wider(keyword: str, was: float | None, is_: float | None) -> bool:
    if was is None or is_ is None:
        return is_ is None
    return is_ < was if keyword in LOWER_BOUNDS else is_ > was


def _changed(keyword: str, was: Any, is_: Any) -> str:
    new, old = ("not set" if value is None else json.dumps(value, ensure_ascii=False) for value in (is_, was))
    return f"{keyword} is {new}, was {old}"


def _list(choices: Sequence[Any]) -> str:
    return ", ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)


def _bare(schema: Schema) -> Schema:
    """Without what differs between two names for one thing."""
    return {keyword: schema[keyword] for keyword in schema if keyword not in ANNOTATIONS | {"default"}}
