"""Find the values that a writer's JSON Schema allows and a reader's schema refuses: all gates compare by this module.

The comparison reports a gap for each value that may be written but not read. A gap that is not `sure` means that the
rules here cannot judge the schemas. A writer sends no field that its schema does not name: an object with `properties`
and without `additionalProperties` is read so. tests/chassis/messaging/test_containment.py compares the
result with a validator, on random schemas.

This module needs only the standard library: fleet/schemas/containment.py is the same file, so that `fleet` judges a service by
the same rules.
"""

import math
from collections.abc import Iterator
from typing import Any

from . import normal_form
from .keyword_rules import (
    OF_ARRAY,
    OF_OBJECT,
    Gap,
    applies,
    choices,
    default_of,
    field_schemas,
    is_a,
    is_bounded,
    is_type,
    may_match,
    names_schema,
    required,
    rest_schema,
    type_names,
    unjudged,
    wanted_schemas,
)
from .normal_form import LOWER, UPPER, Schema, Unjudged, alternatives, demands, is_number, text

MOST_STEPS = 10_000
"""More comparisons than any contract needs. The bound keeps a malformed document from taking hours."""


def gaps(written: Any, read: Any, *, within: tuple[Schema, Schema] | None = None, strict: bool = False) -> list[Gap]:
    """Find all gaps. `within` are the documents that references point into; by default each schema is its own document.

    `strict` adds values that are valid but change their meaning: fields that the reader does not name ("unknown"), and
    changed defaults ("default").
    """
    roots = within or tuple(one if isinstance(one, dict) else {} for one in (written, read))
    try:
        found = _Comparison(*roots, strict=strict).between(written, read, "")
    except _TooMuch:
        return [unjudged("", "there is too much to compare")]
    return list({(gap.field, gap.keyword, text([gap.written, gap.read])): gap for gap in found}.values())


class _TooMuch(Exception):
    """The comparison of the two schemas needs more than MOST_STEPS."""


class _Comparison:
    def __init__(self, written_root: Schema, read_root: Schema, *, strict: bool) -> None:
        self._written_root = written_root
        self._read_root = read_root
        self._strict = strict
        self._steps = 0
        # Pairs without a known gap. A pair that is still being compared is among them, because a schema may be
        # recursive.
        self._fitting: dict[tuple[str, str], None] = {}

    def between(self, written: Any, read: Any, at: str, here: frozenset[tuple[str, str]] = frozenset()) -> list[Gap]:
        """`here` are the pairs that are being compared for the same value: comparing one of them again would never
        end."""
        pair = (text(written), text(read))
        if pair in here:
            return [unjudged(at, "a schema refers to itself")]
        if pair in self._fitting:
            return []
        mark = len(self._fitting)
        self._fitting[pair] = None
        found = self._judged(written, read, at, here | {pair})
        while found and len(self._fitting) > mark:
            self._fitting.popitem()
        return found

    def _judged(self, written: Any, read: Any, at: str, here: frozenset[tuple[str, str]]) -> list[Gap]:
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise _TooMuch
        try:
            if normal_form.alike(written, read, self._written_root, self._read_root):
                return []
            ways = alternatives(written, self._written_root)
            return [gap for way in ways for gap in self._alternative(way, read, at, here, ways)]
        except Unjudged as error:
            return [unjudged(at, str(error))]

    def _alternative(
        self, way: Schema, read: Any, at: str, here: frozenset[tuple[str, str]], ways: list[dict[str, Any]]
    ) -> list[Gap]:
        """Return the gaps between one alternative of the written schema and the read schema."""
        wanted = demands(read, self._read_root)
        found = [gap for one in wanted for gap in self._demand(way, one, at, here)]
        if not any(is_type(gap, at) for gap in found):
            return [*found, *(self._other_meaning(way, wanted, at) if self._strict else ())]
        taken = type_names(alternatives(read, self._read_root))
        return [Gap(at, "null" if way.get("type") == "null" else "type", type_names(ways), taken)]

    def _demand(self, way: Schema, read: Schema | bool, at: str, here: frozenset[tuple[str, str]]) -> Iterator[Gap]:
        if isinstance(read, bool) or not is_a(way, read):
            yield Gap(at, "type")
            return
        seen: set[str] = set()
        for keyword in read:
            if keyword in seen or normal_form.is_annotation(keyword) or not applies(keyword, way.get("type")):
                continue
            seen |= next((group for group in (*normal_form.GROUPS, OF_OBJECT, OF_ARRAY) if keyword in group), {keyword})
            yield from self._keyword(keyword, way, read, at, here)

    def _keyword(
        self, keyword: str, way: Schema, read: Schema, at: str, here: frozenset[tuple[str, str]]
    ) -> Iterator[Gap]:
        wanted = read[keyword]
        match keyword:
            case "type" | "format" | "default":
                return  # `is_a` compares types and formats, and a default affects no valid value
            case "const":
                yield from choices(way, [wanted], at)
            case "enum":
                yield from choices(way, wanted, at)
            case "anyOf":
                yield from self._one_of(way, wanted, at, here)
            case "oneOf":
                yield from self._exactly_one_of(way, wanted, at, here)
            case "required":
                yield from required(way, wanted, at)
            case "propertyNames":
                yield from self.between(
                    names_schema(way), {"allOf": [{"type": "string"}, wanted]}, f"{at}.<name>".lstrip(".")
                )
            case _ if keyword in OF_OBJECT:
                yield from self._object(way, read, at)
            case _ if keyword in OF_ARRAY:
                yield from self._array(way, read, at)
            case _ if keyword in LOWER | UPPER and "Contains" not in keyword:
                if not is_number(wanted):
                    yield Gap(at, keyword, way.get(keyword), wanted, sure=False)
                elif not is_bounded(way, keyword, wanted):
                    yield Gap(at, keyword, way.get(keyword), wanted)
            case "uniqueItems" if wanted is False:
                return
            case _:
                if not self._is_same(keyword, way, read):
                    yield Gap(at, keyword, way.get(keyword), wanted, sure=False)

    def _is_same(self, keyword: str, way: Schema, read: Schema) -> bool:
        """Return whether both schemas have an equal value for a keyword that has no rule of its own."""
        if keyword.startswith(("unevaluated", "$")):
            return False  # their meaning depends on the keywords next to them
        group = next((one for one in normal_form.GROUPS if keyword in one), {keyword})
        roots = (self._written_root, self._read_root)
        return group & way.keys() == group & read.keys() and all(
            normal_form.keyword_alike(key, way[key], read[key], *roots) for key in group & read.keys()
        )

    # --- unions ---------------------------------------------------------------------------------------------------

    def _one_of(self, way: Schema, members: list[Any], at: str, here: frozenset[tuple[str, str]]) -> list[Gap]:
        """If no member fits, report the gaps to the nearest member of the same type, which is probably the one
        meant."""
        tried = [self.between(way, member, at, here) for member in members]
        if [] in tried:
            return []
        near = [found for found in tried if not any(is_type(gap, at) for gap in found)]
        return min(near, key=len) if near else [Gap(at, "type")]

    def _exactly_one_of(self, way: Schema, members: list[Any], at: str, here: frozenset[tuple[str, str]]) -> list[Gap]:
        tried = [self.between(way, member, at, here) for member in members]
        for fitting, found in enumerate(tried):
            others = [member for place, member in enumerate(members) if place != fitting]
            if not found and all(self._excludes(way, other) for other in others):
                return []
        if [] in tried:
            return [Gap(at, "oneOf", sure=False)]
        return self._one_of(way, members, at, here)

    def _excludes(self, way: Schema, member: Any) -> bool:
        """Return whether no value is valid by both."""
        return all(self._disjoint(way, other) for other in alternatives(member, self._read_root))

    def _disjoint(self, way: Schema, other: Schema) -> bool:
        kinds = {way.get("type"), other.get("type")}
        if None not in kinds and len(kinds) == 2 and kinds != {"integer", "number"}:
            return True
        if "enum" in way and "enum" in other:
            return not {text(one) for one in way["enum"]} & {text(one) for one in other["enum"]}
        if way.get("type") != "object" or other.get("type") != "object":
            return False
        shared = way.get("properties", {}).keys() & other.get("properties", {}).keys()
        return any(
            self._tells_apart(way["properties"][name], other["properties"][name])
            for name in shared & {*way.get("required", []), *other.get("required", [])}
        )

    def _tells_apart(self, one: Any, other: Any) -> bool:
        """Return whether some field has different values in each, like `kind` in a tagged union."""
        values = [
            {text(value) for way in alternatives(side, root) for value in way.get("enum", [None])}
            if all("enum" in way for way in alternatives(side, root))
            else None
            for side, root in ((one, self._written_root), (other, self._read_root))
        ]
        return values[0] is not None and values[1] is not None and not values[0] & values[1]

    # --- objects and arrays ---------------------------------------------------------------------------------------

    def _object(self, way: Schema, read: Schema, at: str) -> Iterator[Gap]:
        for name, value in field_schemas(way).items():
            field = f"{at}.{name}".lstrip(".")
            wanted = wanted_schemas(read, name) or [read.get("additionalProperties", True)]
            if wanted == [False] and not self._nothing(value):
                yield Gap(field, "closed")
            else:
                yield from (gap for one in wanted for gap in self.between(value, one, field))
        yield from self._unnamed(way, read, at)

    def _unnamed(self, way: Schema, read: Schema, at: str) -> Iterator[Gap]:
        """Yield a gap for each field that the writer allows without naming the field, and that the reader refuses.

        The entries of a mapping are such fields.
        """
        known, patterns = read.get("properties", {}), read.get("patternProperties", {})
        rest, given = read.get("additionalProperties", True), field_schemas(way)
        ways: list[tuple[str | None, Any]] = [(None, rest_schema(way)), *way.get("patternProperties", {}).items()]
        for pattern, value in ways:
            if self._nothing(value):
                continue
            for name in known:
                if name not in given and (pattern is None or may_match(pattern, name)):
                    yield from self.between(value, known[name], f"{at}.{name}".lstrip("."))
            for one in patterns.values() if pattern not in patterns else [patterns[pattern]]:
                yield from self.between(value, one, f"{at}.*".lstrip("."))
            if pattern not in patterns:
                if rest is False:
                    yield Gap(f"{at}.*".lstrip("."), "closed")
                else:
                    yield from self.between(value, rest, f"{at}.*".lstrip("."))

    def _other_meaning(self, way: Schema, wanted: list[Schema | bool], at: str) -> Iterator[Gap]:
        """Yield the gaps of fields that the reader does not name, or for which it has another default."""
        readers = [one for one in wanted if isinstance(one, dict)]
        if any(keyword in one for one in readers for keyword in ("anyOf", "oneOf")):
            return  # the members are compared one by one
        known = {name: schema for one in readers for name, schema in one.get("properties", {}).items()}
        given = way.get("properties", {})
        always = {*way.get("required", []), *(name for one in readers for name in one.get("required", []))}
        heirs = [name for name in known if name not in given]
        for name, value in given.items():
            field = f"{at}.{name}".lstrip(".")
            if name in known:
                if name not in always and text(default_of(value)) != text(default_of(known[name])):
                    yield Gap(field, "default", default_of(value), default_of(known[name]))
            elif not any(
                wanted_schemas(one, name) or isinstance(one.get("additionalProperties"), dict) for one in readers
            ):
                heir = next((one for one in heirs if self._renamed(value, known[one])), None)
                heirs = [one for one in heirs if one != heir]
                yield Gap(field, "unknown", read=heir)

    def _renamed(self, value: Any, other: Any) -> bool:
        bare = [{key: one[key] for key in one if key != "default"} for one in (value, other) if isinstance(one, dict)]
        return len(bare) == 2 and normal_form.alike(*bare, self._written_root, self._read_root)

    def _nothing(self, value: Any) -> bool:
        return not alternatives(value, self._written_root)

    def _array(self, way: Schema, read: Schema, at: str) -> Iterator[Gap]:
        first, firsts = way.get("prefixItems", []), read.get("prefixItems", [])
        longest, most = max(len(first), len(firsts)), way.get("maxItems", math.inf)
        for place in range(longest):
            if place >= most:
                return
            one = first[place] if place < len(first) else way.get("items", True)
            other = firsts[place] if place < len(firsts) else read.get("items", True)
            yield from self.between(one, other, f"{at}[{place}]")
        if most > longest:
            yield from self.between(way.get("items", True), read.get("items", True), f"{at}[]")
