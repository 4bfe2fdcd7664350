"""Take JSON Schemas apart, so that two schemas can be compared keyword by keyword.

`alternatives` turns a writer's schema into schemas without references and unions, each of one type where the type is
known; a value is valid by at least one of them. `demands` turns a reader's schema into schemas that all have to hold.
This module needs only the standard library.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from typing import Any, TypeGuard

Schema = Mapping[str, Any]

ANNOTATIONS = {
    "$anchor",
    "$comment",
    "$defs",
    "$id",
    "$schema",
    "components",
    "definitions",
    "deprecated",
    "description",
}
ANNOTATIONS |= {"discriminator", "example", "examples", "externalDocs", "title"}
"""Keywords that do not affect which values are valid: descriptions, and targets of references. `x-…` is ignored too."""
LOWER = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains"}
UPPER = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains"}
HOLDS_ONE = {"additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames", "then"}
HOLDS_ONE |= {"unevaluatedItems", "unevaluatedProperties"}
HOLDS_LIST = {"allOf", "anyOf", "oneOf", "prefixItems"}
HOLDS_NAMED = {"dependentSchemas", "patternProperties", "properties"}
UNORDERED = {"enum", "required", "type"}
NAMES_FIELDS_ELSEWHERE = {"$dynamicRef", "dependentSchemas", "else", "if", "then"}
NAMES_FIELDS_ELSEWHERE |= {"unevaluatedItems", "unevaluatedProperties"}
"""Keywords with which an object may have fields that its `properties` do not name."""
GROUPS = ({"contains", "minContains", "maxContains"}, {"if", "then", "else"})
"""Keywords that have a meaning only together."""
MOST_ALTERNATIVES = 200
TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


class Unjudged(Exception):
    """Two schemas cannot be compared. The text is the reason."""


def text(value: Any) -> str:
    """Return equal texts for equal JSON values. (In Python, True equals 1.)"""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def alternatives(schema: Any, root: Schema, references: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return alternatives of a schema: each of its values is valid by one of them. Raises Unjudged."""
    if isinstance(schema, bool):
        return [{}] if schema else []
    items = _checked(schema, root).items()
    plain = {key: value for key, value in items if key not in _TAKEN_APART and not is_annotation(key)}
    found = [plain]
    for options in _options(schema):
        taken = [one for option in options for one in _of(option, root, references)]
        merged = (_both(one, other) for one in found for other in taken)
        found = [one for one in merged if one is not None]
        if len(found) > MOST_ALTERNATIVES:
            raise Unjudged(f"it has more than {MOST_ALTERNATIVES} alternatives")
    return found


_TAKEN_APART = {"$ref", "allOf", "anyOf", "const", "enum", "oneOf", "type"}


def _of(option: Any, root: Schema, references: tuple[str, ...]) -> list[dict[str, Any]]:
    if isinstance(option, _Alternative):
        return [dict(option)]
    if isinstance(option, _Reference):
        if option in references:
            raise Unjudged(f"the reference {option} leads to itself")
        return alternatives(resolved(option, root), root, (*references, option))
    return alternatives(option, root, references)


class _Alternative(dict[str, Any]):
    """A schema that has been taken apart."""


class _Reference(str):
    __slots__ = ()


def _options(schema: Schema) -> Iterator[list[Any]]:
    """Yield lists of alternatives: a value is valid by at least one member of each list."""
    if "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        yield [_Alternative(type=kind) for kind in kinds]
    for values in ([schema["const"]] if "const" in schema else None, schema.get("enum")):
        if values is not None:
            kinds = dict.fromkeys(kind_of(value) for value in values)
            yield [_Alternative(type=kind, enum=[one for one in values if kind_of(one) == kind]) for kind in kinds]
    if "$ref" in schema:
        yield [_Reference(schema["$ref"])]
    yield from ([one] for one in schema.get("allOf", []))
    yield from (schema[keyword] for keyword in ("anyOf", "oneOf") if keyword in schema)


def demands(schema: Any, root: Schema, references: tuple[str, ...] = ()) -> list[Schema | bool]:
    """Return schemas that all have to hold, without references and `allOf`. Raises Unjudged."""
    if isinstance(schema, bool):
        return [] if schema else [False]
    found: list[Schema | bool] = [
        {key: value for key, value in _checked(schema, root).items() if key not in ("$ref", "allOf")}
    ]
    if "$ref" in schema:
        if schema["$ref"] in references:
            raise Unjudged(f"the reference {schema['$ref']} leads to itself")
        found += demands(resolved(schema["$ref"], root), root, (*references, schema["$ref"]))
    for one in schema.get("allOf", []):
        found += demands(one, root, references)
    return found


def resolved(reference: Any, root: Schema) -> Any:
    """Return the schema that a reference points to. Raises Unjudged if it points out of the document, or to nothing."""
    found: Any = root
    if not isinstance(reference, str) or (reference != "#" and not reference.startswith("#/")):
        raise Unjudged(f"the reference {reference} leads to another document or an anchor")
    try:
        for step in reference.split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            found = found[int(step)] if isinstance(found, list) else found[step]
    except (KeyError, IndexError, TypeError, ValueError):
        raise Unjudged(f"the reference {reference} leads nowhere") from None
    return found


def _checked(schema: Any, root: Schema) -> Schema:
    if not isinstance(schema, Mapping):
        raise Unjudged(f"{text(schema)} is no schema")
    if isinstance(schema.get("items"), list):
        raise Unjudged("`items` is a list, as before JSON Schema 2020-12")
    if "$id" in schema and schema is not root and any(key in text(schema) for key in ('"$ref"', '"$dynamicRef"')):
        raise Unjudged("a schema in it has an $id, so that references inside lead elsewhere")
    return schema


def kind_of(value: Any) -> str:
    """Return the type of a value, as schemas name it."""
    return "null" if value is None else TYPES[type(value)]


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- both of two schemas --------------------------------------------------------------------------------------------


def _both(one: Schema, other: Schema) -> dict[str, Any] | None:
    """Return a schema that allows at least the values valid by both, or None without such values. It keeps all field names."""
    for group in GROUPS:
        if group & one.keys() and group & other.keys():
            other = {key: value for key, value in other.items() if key not in group}
    merged = {**other, **one}
    for key in one.keys() & other.keys():
        merged[key] = _keyword_of_both(key, one[key], other[key])
    if merged.get("type", "") is None or merged.get("enum", True) == []:
        return None
    if (
        {"items", "prefixItems"} & one.keys()
        and "prefixItems" in {*one, *other}
        and {"items", "prefixItems"} & {*other}
    ):
        raise Unjudged("two of its parts have prefixItems and items")
    return merged


def _keyword_of_both(key: str, one: Any, other: Any) -> Any:
    if text(one) == text(other):
        return one
    if key == "type":
        return "integer" if {one, other} == {"integer", "number"} else None
    if key == "enum":
        known = {text(value) for value in other}
        return [value for value in one if text(value) in known]
    if key == "required":
        return list(dict.fromkeys([*one, *other]))
    if key in HOLDS_NAMED:
        return {**other, **one, **{name: _all_of(one[name], other[name]) for name in one.keys() & other.keys()}}
    if key in ("items", "additionalProperties", "propertyNames"):
        return _all_of(one, other)
    if key in LOWER | UPPER and is_number(one) and is_number(other):
        return max(one, other) if key in LOWER else min(one, other)
    return one


def _all_of(one: Any, other: Any) -> Any:
    """Both schemas, without repeated parts: a recursive schema would grow without end."""
    parts = (part for side in (one, other) for part in _parts(side))
    found = list({text(part): part for part in parts}.values())
    return found[0] if len(found) == 1 else {"allOf": found}


def _parts(schema: Any) -> Iterable[Any]:
    return schema["allOf"] if isinstance(schema, Mapping) and schema.keys() == {"allOf"} else [schema]


# --- equal in meaning ------------------------------------------------------------------------------------------------


def alike(one: Any, other: Any, one_root: Schema, other_root: Schema) -> bool:
    """Return whether two schemas mean the same, apart from names of references and descriptions. Raises Unjudged."""
    return _Alike(one_root, other_root).schemas(one, other)


def keyword_alike(keyword: str, one: Any, other: Any, one_root: Schema, other_root: Schema) -> bool:
    return _Alike(one_root, other_root).keyword(keyword, one, other)


class _Alike:
    def __init__(self, one_root: Schema, other_root: Schema) -> None:
        self._roots = (one_root, other_root)
        self._assumed: set[tuple[str, str]] = set()

    def schemas(self, one: Any, other: Any) -> bool:
        pair = (text(one), text(other))
        if pair in self._assumed:
            return True
        self._assumed.add(pair)
        was, is_ = (_keywords(side, root) for side, root in zip((one, other), self._roots, strict=True))
        return was.keys() == is_.keys() and all(self.keyword(key, was[key], is_[key]) for key in was)

    def keyword(self, key: str, one: Any, other: Any) -> bool:
        if key == "$ref":
            ends = (resolved(side, root) for side, root in zip((one, other), self._roots, strict=True))
            return self.schemas(*ends)
        if key == "$dynamicRef":
            return False
        if key in HOLDS_ONE:
            return self.schemas(one, other)
        if key in HOLDS_LIST:
            return len(one) == len(other) and all(map(self.schemas, one, other))
        if key in HOLDS_NAMED:
            return one.keys() == other.keys() and all(self.schemas(one[name], other[name]) for name in one)
        if key in UNORDERED and isinstance(one, list) and isinstance(other, list):
            return {text(value) for value in one} == {text(value) for value in other}
        return text(one) == text(other)


def _keywords(schema: Any, root: Schema) -> dict[str, Any]:
    """Return the keywords that affect which values are valid, with `const` as `enum`; a mere reference is followed."""
    for _ in range(50):
        if isinstance(schema, bool):
            return {} if schema else {"not": {}}
        found = {key: value for key, value in _checked(schema, root).items() if not is_annotation(key)}
        if "const" in found and "enum" not in found:
            found["enum"] = [found.pop("const")]
        if found.keys() != {"$ref"}:
            return found
        schema = resolved(found["$ref"], root)
    raise Unjudged(f"the reference {schema} leads to itself")


def is_annotation(keyword: str) -> bool:
    return keyword in ANNOTATIONS or keyword.startswith("x-")


def merged(schemas: Iterable[Any]) -> Any:
    """Merge the schemas into one schema, which demands what each of them demands."""
    return reduce(_all_of, schemas, True)
