"""Whether what one service sends is what another expects. Two schemas of one message, as Pydantic writes them.

Not fleet.compatibility: that asks whether anything at all has changed, and a consumer names only what it uses of a message.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]

# What says nothing about which values are valid, and what is seen elsewhere than by its name.
_SILENT = {"$comment", "$defs", "$id", "$schema", "components", "default", "deprecated", "description", "examples"}
_SILENT |= {"title", "x-kind"}
_SEEN = {"$ref", "additionalProperties", "anyOf", "const", "enum", "format", "items", "oneOf", "properties", "required"}
_SEEN |= {"type"}
_LOWER = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
_UPPER = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}


@dataclass(frozen=True)
class Unmet:
    """One expectation. `sure`: some message that may be sent will be refused; else that cannot be told from the schemas."""

    field: str
    what: str
    sure: bool = True

    def __str__(self) -> str:
        return f"{self.field or 'the message'} {self.what}"


def unmet(expected: Schema, sent: Schema) -> list[Unmet]:
    """What the sender may send and the receiver does not expect. Raises KeyError if a reference leads nowhere."""
    return list(_Comparison(expected, sent).value(expected, sent, ""))


class _Comparison:
    def __init__(self, expected: Schema, sent: Schema) -> None:
        self._expected = expected
        self._sent = sent
        # What is being compared further up: a schema may hold itself.
        self._open: set[tuple[int, int]] = set()

    def value(self, expected: Any, sent: Any, at: str) -> Iterator[Unmet]:
        pair = (id(expected), id(sent))
        if pair in self._open:
            return
        self._open.add(pair)
        taken = _alternatives(expected, self._expected)
        for one in _alternatives(sent, self._sent):
            tried = [list(self._plain(other, one, at)) for other in taken]
            if [] not in tried:
                # Of several, one of the same type is the one that was meant.
                same = [problems for other, problems in zip(taken, tried, strict=True) if _type(other) == _type(one)]
                yield from (same[0] if same else [Unmet(at, f"may be {_type(one)}, expected {_types(taken)}")])
        self._open.discard(pair)

    def _plain(self, expected: Schema, sent: Schema, at: str) -> Iterator[Unmet]:
        if not _is_a(sent, expected):
            yield Unmet(at, f"is {_type(sent)}, expected {_type(expected)}")
            return
        choices, sends = (one.get("enum", [one["const"]] if "const" in one else None) for one in (expected, sent))
        if choices is not None:
            strange = ["anything"] if sends is None else [repr(one) for one in sends if one not in choices]
            if strange:
                yield Unmet(at, f"may be {', '.join(strange)}, expected {', '.join(map(repr, choices))}")
        yield from self._fields(expected, sent, at)
        if isinstance(expected.get("items"), Mapping):
            yield from self.value(expected["items"], sent.get("items", True), f"{at}[]")
        if isinstance(expected.get("additionalProperties"), Mapping) and "properties" not in expected:
            yield from self.value(expected["additionalProperties"], sent.get("additionalProperties", True), f"{at}.*")
        # Whoever sends one of few values sends them in the bounds, or choices would have said so.
        for keyword in sorted(expected.keys() - _SILENT - _SEEN) if sends is None else ():
            yield from _keyword(keyword, expected[keyword], sent.get(keyword), at)

    def _fields(self, expected: Schema, sent: Schema, at: str) -> Iterator[Unmet]:
        known, given = expected.get("properties", {}), sent.get("properties", {})
        always = sent.get("required", [])
        for name in expected.get("required", []):
            if name not in given:
                yield Unmet(f"{at}.{name}".lstrip("."), "is required, and is not sent")
            elif name not in always:
                yield Unmet(f"{at}.{name}".lstrip("."), "is required, and may be missing")
        for name in given:
            if name in known:
                yield from self.value(known[name], given[name], f"{at}.{name}".lstrip("."))
            elif expected.get("additionalProperties") is False:
                yield Unmet(
                    f"{at}.{name}".lstrip("."), "is sent, and the receiver takes no field that it does not know"
                )


def _alternatives(schema: Any, root: Schema) -> list[Schema]:
    """Without references, and one type each: null is one."""
    if isinstance(schema, bool):
        return [{}] if schema else []
    if "$ref" in schema:
        found: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step.replace("~1", "/").replace("~0", "~")]
        return _alternatives({**found, **{key: value for key, value in schema.items() if key != "$ref"}}, root)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            rest = {key: value for key, value in schema.items() if key != keyword}
            return [one for inner in schema[keyword] for one in _alternatives({**rest, **inner}, root)]
    if isinstance(schema.get("type"), list):
        return [{**schema, "type": one} for one in schema["type"]]
    return [schema]


def _is_a(sent: Schema, expected: Schema) -> bool:
    if "type" not in expected:
        return True
    if sent.get("type") == "integer" and expected["type"] == "number":
        return True
    return sent.get("type") == expected["type"] and expected.get("format") in (None, sent.get("format"))


def _keyword(keyword: str, expected: Any, sent: Any, at: str) -> Iterator[Unmet]:
    if sent == expected:
        return
    if keyword in _LOWER | _UPPER:
        if sent is None or (sent < expected if keyword in _LOWER else sent > expected):
            yield Unmet(at, f"has {keyword} {'unset' if sent is None else sent}, expected {expected}")
    else:
        yield Unmet(at, f"has another {keyword}" if sent is not None else f"has no {keyword}, expected one", sure=False)


def _type(schema: Schema) -> str:
    kind = str(schema.get("type", "anything"))
    return f"{kind} ({schema['format']})" if "format" in schema else kind


def _types(schemas: list[Schema]) -> str:
    return " or ".join(dict.fromkeys(_type(one) for one in schemas)) or "nothing"
