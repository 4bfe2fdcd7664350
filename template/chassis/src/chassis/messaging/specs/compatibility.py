"""The gate for messages: every service that knows a version of a message can continue to use it.

A sent message keeps its shape within a version; only optional fields may be added. The gate also refuses a schema that
allows less than before: the broker keeps old messages for days, and a reader made for the new schema would refuse them. A
job that only other services send may allow more than before.

chassis.messaging.specs.containment compares the schemas, and a change that it cannot judge is refused. This module needs only the
standard library: fleet/schemas/compatibility.py is the same file, so that both judge a service by the same rules.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol

from .containment import Gap, gaps

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """A change at one field. `wider`: every value that was valid still is. `narrower`: no value is valid that was not before."""

    field: str
    change: str
    wider: bool = False
    narrower: bool = False
    keyword: str = ""

    def __str__(self) -> str:
        return f"{self.field or 'the message'}: {self.change}"


class Message(Protocol):
    """A message of the service as it is now. The chassis passes a Described."""

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
    """Return what breaks services that know the messages of `base`, by name; one text for each message, with the remedy."""
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
            f"{now.name} has changed in a way that breaks other services:",
            *(f"  {one}" for one in breaking),
            f"{rule} Restore the contract, and {does} {_next(contract, now.name, names)} in addition to {contract}.",
        ]
    )


def _gone(name: str, base: Mapping[str, Schema], now: Mapping[str, Message]) -> str:
    heirs = [other for other, one in now.items() if other not in base and not differences(base[name], one.schema())]
    renamed = f" ({heirs[0]} is alike, but others know it by its old name)" if heirs else ""
    contract = base[name].get("title", name)
    return (
        f"{name} is gone{renamed}.\n"
        f"Bring {contract} back, in addition to new contracts. Once no service uses {contract} any more, retire the message "
        f"by a line in specs/retired.txt: `{name} <why nobody needs it>`."
    )


def _next(contract: str, name: str, names: Iterable[str]) -> str:
    """Return the name of the contract with the first number that no version of the message has had."""
    family = name.rpartition(".v")[0]
    parts = (one.rpartition(".v") for one in names)
    numbers = [int(number) for stem, _, number in parts if stem == family and number.isdecimal()]
    return re.sub(r"V\d+$", f"V{max(numbers) + 1}", contract)


def differences(old: Schema, new: Schema, *, within: tuple[Schema, Schema] | None = None) -> list[Difference]:
    """Return the changes that matter to other services: all but added optional fields.

    `within` are the documents that references point into; by default each schema is its own document.
    """
    before, after = within or (old, new)
    lost = gaps(old, new, within=(before, after), strict=True)
    gained = gaps(new, old, within=(after, before))
    removed = {gap.field: gap for gap in lost if gap.keyword == "closed"}
    removed |= {gap.field: gap for gap in lost if gap.keyword == "unknown"}
    heirs = {".".join([*field.split(".")[:-1], gap.read]) for field, gap in removed.items() if gap.read}
    changes: dict[tuple[str, str], dict[bool, Gap]] = {}
    for is_lost, found in ((True, lost), (False, gained)):
        for gap in found:
            if gap.field not in heirs and (gap.field not in removed or gap is removed[gap.field]):
                changes.setdefault((gap.field, _change(gap, is_lost=is_lost)), {})[is_lost] = gap
    return [*_other_kind(old, new), *(_difference(*key, sides, key[0] in removed) for key, sides in changes.items())]


def _difference(field: str, change: str, sides: Mapping[bool, Gap], is_removed: bool) -> Difference:
    """Without a lost gap, every value that was valid still is. Without a gained gap, no new value is valid."""
    keyword = "removed" if is_removed else next(iter(sides.values())).keyword
    return Difference(field, change, True not in sides, False not in sides and not is_removed, keyword)


def _other_kind(old: Schema, new: Schema) -> Iterator[Difference]:
    was, is_ = old.get("x-kind"), new.get("x-kind")
    if was != is_:
        yield Difference("", f"it is of the kind {is_}, was {was}")


def _change(gap: Gap, *, is_lost: bool) -> str:
    """Describe the change. `is_lost`: valid values have become invalid; otherwise, invalid values have become valid."""
    was, is_ = (gap.written, gap.read) if is_lost else (gap.read, gap.written)
    match gap.keyword:
        case "type":
            return f"is {is_}, was {was}"
        case "null":
            return "may no longer be null" if is_lost else "may be null now"
        case "enum" if gap.written is not None:
            return f"may no longer be {_list(gap.written)}" if is_lost else f"may also be {_list(gap.written)} now"
        case "required" if not is_lost:
            return "may be missing now"
        case "required":
            return "is required now" if gap.written else "was added and is required; an addition needs a default"
        case "unknown":
            return f"was renamed to {gap.read}, which others do not know" if gap.read else "was removed"
        case "closed":
            return "was removed" if is_lost else "was added to an object that is closed to unknown fields"
        case "judgement":
            return f"cannot be compared: {gap.read}"
        case keyword if keyword != "enum" and (isinstance(was, dict | list) or isinstance(is_, dict | list)):
            return f"{keyword} has changed, and this gate cannot tell what that means"
        case keyword:
            return _changed(keyword, was, is_)


def _changed(keyword: str, was: Any, is_: Any) -> str:
    new, old = ("not set" if value is None else json.dumps(value, ensure_ascii=False) for value in (is_, was))
    return f"{keyword} is {new}, was {old}"


def _list(choices: Sequence[Any]) -> str:
    return ", ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
