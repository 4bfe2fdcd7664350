"""Compare single keywords of two schemas for containment.py: an alternative of a writer, and a demand of a reader.

normal_form.py explains alternatives and demands.

This module needs only the standard library, because fleet/schemas/keyword_rules.py is the same file.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from . import normal_form
from .normal_form import LOWER, UPPER, Schema, Unjudged, is_number, kind_of, text

OF_OBJECT = {"additionalProperties", "patternProperties", "properties"}
OF_ARRAY = {"items", "prefixItems"}
_OF_TYPE: dict[str, set[str]] = {
    "string": {"maxLength", "minLength", "pattern"},
    "number": {"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"},
    "array": {"contains", "maxContains", "maxItems", "minContains", "minItems", "uniqueItems", *OF_ARRAY},
    "object": {"dependentRequired", "maxProperties", "minProperties", "propertyNames", "required", *OF_OBJECT},
}


@dataclass(frozen=True)
class Gap:
    """One way in which a written value may be unreadable. `written` and `read` are the demands of the two schemas."""

    field: str
    keyword: str
    written: Any = None
    read: Any = None
    sure: bool = True


def unjudged(at: str, reason: str) -> Gap:
    return Gap(at, "judgement", read=reason, sure=False)


def is_type(gap: Gap, at: str) -> bool:
    return gap.field == at and gap.keyword in ("type", "null")


def is_a(way: Schema, read: Schema) -> bool:
    """Return whether type and format fit the read schema."""
    taken = read.get("type")
    if taken is not None:
        kinds = taken if isinstance(taken, list) else [taken]
        if way.get("type") not in kinds and not (way.get("type") == "integer" and "number" in kinds):
            return False
    return "format" not in read or way.get("format") == read["format"] or way.get("type") == "null"


def type_names(ways: list[dict[str, Any]]) -> str:
    return " or ".join(dict.fromkeys(map(type_name, ways))) or "nothing"


def type_name(way: Schema) -> str:
    kind = str(way.get("type", "anything"))
    return f"{kind} ({way['format']})" if "format" in way else kind


def applies(keyword: str, kind: str | None) -> bool:
    kind = "number" if kind == "integer" else kind
    return kind is None or not any(keyword in keywords for of, keywords in _OF_TYPE.items() if of != kind)


def choices(way: Schema, wanted: list[Any], at: str) -> Iterator[Gap]:
    if "enum" not in way:
        yield Gap(at, "enum", None, wanted)
        return
    known = {text(value) for value in wanted}
    if strange := [value for value in way["enum"] if text(value) not in known]:
        yield Gap(at, "enum", strange, wanted)


def required(way: Schema, wanted: list[str], at: str) -> Iterator[Gap]:
    for name in wanted:
        if name not in way.get("required", []):
            yield Gap(f"{at}.{name}".lstrip("."), "required", name in way.get("properties", {}))


def field_schemas(way: Schema) -> dict[str, Any]:
    """Return the fields that the schema names, each with its schema."""
    properties, patterns = way.get("properties", {}), way.get("patternProperties", {})
    names = dict.fromkeys([*properties, *way.get("required", [])])
    return {name: field_schema(name, properties, patterns, way.get("additionalProperties", True)) for name in names}


def field_schema(name: str, properties: Schema, patterns: Schema, rest: Any) -> Any:
    found = [*([properties[name]] if name in properties else []), *matching(patterns, name)]
    return normal_form.merged(found) if len(found) > 1 else found[0] if found else rest


def rest_schema(way: Schema) -> Any:
    """Return the schema of the fields that the schema does not name; False if there are none."""
    if "additionalProperties" in way:
        return way["additionalProperties"]
    return "properties" not in way or bool(normal_form.NAMES_FIELDS_ELSEWHERE & way.keys())


def names_schema(way: Schema) -> Schema:
    """Return the schema of the names of its fields."""
    if "propertyNames" in way:
        return {"allOf": [{"type": "string"}, way["propertyNames"]]}
    if rest_schema(way) is False and "patternProperties" not in way:
        return {"enum": list(field_schemas(way))}
    return {"type": "string"}


def matching(patterns: Schema, name: str) -> list[Any]:
    return [schema for pattern, schema in patterns.items() if may_match(pattern, name)]


def wanted_schemas(read: Schema, name: str) -> list[Any]:
    """Return the schemas that all hold for a field; empty if the reader does not name the field."""
    properties = read.get("properties", {})
    return [*([properties[name]] if name in properties else []), *matching(read.get("patternProperties", {}), name)]


def default_of(schema: Any) -> Any:
    return schema.get("default") if isinstance(schema, dict) else None


def may_match(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        raise Unjudged(f"the pattern {pattern} is not a regular expression of Python") from None


def is_bounded(way: Schema, keyword: str, bound: float) -> bool:
    if "enum" in way:
        return all(keeps(value, keyword, bound) for value in way["enum"])
    lower = keyword in LOWER
    if keyword in ("minLength", "minItems", "minProperties") and bound <= 0:
        return True
    own = way.get(keyword)
    if is_number(own) and (own >= bound if lower else own <= bound):
        return True
    if not keyword.lower().endswith("imum"):
        return False
    # A writer's exclusiveMinimum of at least the reader's minimum keeps that minimum. A writer's minimum has to be greater
    # than the reader's exclusiveMinimum to keep it. Maximums work the other way round.
    exclusive = f"exclusive{keyword.capitalize()}"
    if exclusive in (LOWER | UPPER):
        other = way.get(exclusive)
        return is_number(other) and (other >= bound if lower else other <= bound)
    other = way.get(keyword.removeprefix("exclusive").lower())
    return is_number(other) and (other > bound if lower else other < bound)


def keeps(value: Any, keyword: str, bound: float) -> bool:
    match keyword:
        case "minimum":
            return not is_number(value) or value >= bound
        case "maximum":
            return not is_number(value) or value <= bound
        case "exclusiveMinimum":
            return not is_number(value) or value > bound
        case "exclusiveMaximum":
            return not is_number(value) or value < bound
    kind = {"Length": "string", "Items": "array", "Properties": "object"}[keyword[3:]]
    if kind_of(value) != kind:
        return True
    return len(value) >= bound if keyword in LOWER else len(value) <= bound
