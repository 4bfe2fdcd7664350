"""Random JSON Schemas, changes of them, and values, from a vocabulary so small that values often fit.

A `Random`, which Hypothesis provides, makes hundreds of thousands of choices. Choices by Hypothesis itself would take too
long.
"""

import copy
from collections.abc import Iterator
from random import Random
from typing import Any

from jsonschema import Draft202012Validator

NAMES = ("a", "b", "default")
DEFINITIONS = ("A", "B", "title")
SCALARS: list[Any] = [None, True, False, 0, 1, 2, 3, 1.5, "", "a", "b", "ab", "aba"]
PATTERNS = ("^a", "b$", "^a+$")
KINDS = ("string", "integer", "number", "boolean", "null", "object", "array")


class Maker:
    """A maker of random schemas, changes and values."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def document(self) -> dict[str, Any]:
        """Make a schema whose references lead to its own definitions."""
        root = self._keywords(3) if self._few() else self._object(3)
        return {**root, "$defs": {name: self.schema(2) for name in DEFINITIONS}}

    def changed(self, document: dict[str, Any]) -> dict[str, Any]:
        """Make the next version of a schema: a few changes, or a different schema."""
        new = copy.deepcopy(document)
        for _ in range(self._random.choice((0, 1, 1, 1, 2, 3))):
            holder, key = self._random.choice(_live(new))
            holder[key] = self._other(holder[key])
        if self._few():
            new = _renamed(new)
        return new

    def schema(self, depth: int) -> Any:
        if depth > 0 and not self._few():
            return self._keywords(depth - 1)
        if self._few():
            return self._random.random() < 0.8
        return self._random.choice((self._text, self._number, self._any, self._reference))(0)

    def _keywords(self, depth: int) -> dict[str, Any]:
        pick = self._random.choice
        found = pick(
            (self._text, self._number, self._object, self._object, self._array, self._any, self._logic, self._reference)
        )(depth)
        if self._few():
            found = {**self._any(depth), **found}
        if self._few():
            found = {**self._logic(depth), **found}
        return found

    def _few(self) -> bool:
        return self._random.random() < 0.15

    def _some(self, **keywords: Any) -> dict[str, Any]:
        return {key: value() for key, value in keywords.items() if self._random.random() < 0.3}

    def _small(self) -> int:
        return self._random.randint(0, 3)

    def _text(self, depth: int) -> dict[str, Any]:
        pattern = lambda: self._random.choice(PATTERNS)  # noqa: E731
        return {"type": "string", **self._some(minLength=self._small, maxLength=self._small, pattern=pattern)}

    def _number(self, depth: int) -> dict[str, Any]:
        bounds = dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), self._small)
        factor = lambda: self._random.randint(1, 3)  # noqa: E731
        return {"type": self._random.choice(("integer", "number")), **self._some(**bounds, multipleOf=factor)}

    def _object(self, depth: int) -> dict[str, Any]:
        inner = lambda: self.schema(depth)  # noqa: E731
        named = lambda: {name: self.schema(depth) for name in NAMES if self._random.random() < 0.6}  # noqa: E731
        found = self._some(
            required=lambda: self._random.sample(NAMES, self._random.randint(0, 2)),
            additionalProperties=inner,
            patternProperties=lambda: {pattern: inner() for pattern in self._random.sample(PATTERNS, 2)},
            propertyNames=lambda: self._random.choice(
                (inner(), {"enum": self._random.sample(("a", "b", "ab"), 2)}, {"pattern": "^a"}, {"maxLength": 1})
            ),
            minProperties=self._small,
            maxProperties=self._small,
        )
        if self._few():
            found |= self._some(dependentRequired=lambda: {"a": ["b"]}, dependentSchemas=named)
        if self._few():
            found |= self._some(unevaluatedProperties=inner)
        return {"type": "object", **({"properties": named()} if self._random.random() < 0.7 else {}), **found}

    def _array(self, depth: int) -> dict[str, Any]:
        inner = lambda: self.schema(depth)  # noqa: E731
        found = self._some(items=inner, prefixItems=lambda: [inner() for _ in range(self._random.randint(1, 2))])
        found |= self._some(minItems=self._small, maxItems=self._small, uniqueItems=self._few)
        if self._few():
            found |= self._some(contains=inner, minContains=self._small, maxContains=self._small)
        if self._few():
            found |= self._some(unevaluatedItems=inner)
        return {"type": "array", **found}

    def _any(self, depth: int) -> dict[str, Any]:
        pick = self._random
        return self._some(
            type=lambda: pick.sample(KINDS, pick.randint(1, 3)),
            enum=lambda: pick.sample(SCALARS, pick.randint(1, 4)),
            const=lambda: pick.choice(SCALARS),
            minimum=self._small,
            maxLength=self._small,
            description=lambda: "Words.",
            default=lambda: pick.choice(SCALARS),
        )

    def _logic(self, depth: int) -> dict[str, Any]:
        several = lambda: [self.schema(depth) for _ in range(self._random.randint(1, 3))]  # noqa: E731
        match self._random.randint(0, 8):
            case 0:
                return {"allOf": several()}
            case 1:
                return {"oneOf": several()}
            case 2 | 3:
                return {"anyOf": several()}
            case 4:
                return {"not": self.schema(depth)}
            case 5:
                return {
                    "if": self.schema(depth),
                    **self._some(**dict.fromkeys(("then", "else"), lambda: self.schema(depth))),
                }
        return self._reference(depth)

    def _reference(self, depth: int) -> dict[str, Any]:
        return {
            "$ref": self._random.choice(
                [*(f"#/$defs/{name}" for name in DEFINITIONS), "#"]
                if self._few()
                else [f"#/$defs/{name}" for name in DEFINITIONS]
            )
        }

    def _other(self, value: Any) -> Any:
        pick = self._random
        match value:
            case bool():
                return self.schema(1)
            case int() | float():
                return self._small()
            case str():
                return pick.choice((*PATTERNS, "a", "b", *KINDS))
            case list():
                return pick.choice((value[1:], [*value, *value[:1]], value[::-1], [*value, pick.choice(SCALARS)]))
            case dict():
                without = pick.choice([*value, ""])
                fewer = {key: value[key] for key in value if key != without}
                return pick.choice((self.schema(2), {**value, **self._keywords(1)}, fewer, fewer, {"allOf": [value]}))
        return pick.choice(SCALARS)

    def value(self, depth: int = 3) -> Any:
        """Make any value."""
        kind = self._random.random()
        if depth == 0 or kind < 0.4:
            return self._random.choice(SCALARS)
        if kind < 0.55:
            return [self.value(depth - 1) for _ in range(self._random.randint(0, 3))]
        return {name: self.value(depth - 1) for name in (*NAMES, "ab") if self._random.random() < 0.5}

    def value_of(self, schema: Any, root: dict[str, Any], depth: int = 4) -> Any:
        """Make a value that is likely to be valid."""
        if not isinstance(schema, dict) or depth == 0 or self._few():
            return self.value(min(depth, 2))
        inner = [schema[key] for key in ("not",) if self._few() and key in schema]
        for key in ("allOf", "anyOf", "oneOf"):
            inner += schema.get(key, [])
        inner += [schema[key] for key in ("then", "else") if key in schema]
        if "$ref" in schema:
            inner.append(_end(schema["$ref"], root))
        if schema.get("enum") or "const" in schema:
            return self._random.choice([*schema.get("enum", []), *([schema["const"]] if "const" in schema else [])])
        found = [self.value_of(one, root, depth - 1) for one in inner]
        if "type" in schema or not found:
            found.append(self._typed(schema, root, depth))
        if found and all(isinstance(one, dict) for one in found):
            return {key: value for one in found for key, value in one.items()}
        return self._random.choice(found)

    def _typed(self, schema: dict[str, Any], root: dict[str, Any], depth: int) -> Any:
        kind = schema.get("type")
        match self._random.choice(kind) if isinstance(kind, list) and kind else kind:
            case "object":
                return self._an_object(schema, root, depth)
            case "array":
                first = [self.value_of(one, root, depth - 1) for one in schema.get("prefixItems", [])]
                rest = schema.get("items", True)
                more = [self.value_of(rest, root, depth - 1) for _ in range(self._random.randint(0, 2))]
                return (first + more)[: self._random.randint(1, 4)]
            case str(name):
                return self._random.choice(
                    [one for one in SCALARS if Draft202012Validator({"type": name}).is_valid(one)]
                )
        return self.value(min(depth, 2))

    def _an_object(self, schema: dict[str, Any], root: dict[str, Any], depth: int) -> dict[str, Any]:
        properties, rest = schema.get("properties", {}), schema.get("additionalProperties")
        wanted = [*schema.get("required", []), *(name for name in properties if self._random.random() < 0.7)]
        found = {name: self.value_of(properties.get(name, rest), root, depth - 1) for name in wanted}
        if rest is not False and ("additionalProperties" in schema or "properties" not in schema):
            names = (name for name in ("ab", *NAMES) if name not in properties and self._random.random() < 0.4)
            found |= {name: self.value_of(rest, root, depth - 1) for name in names}
        return found


def _live(document: dict[str, Any]) -> list[tuple[Any, Any]]:
    """List the places of the schema itself and of the definitions that it refers to directly: changes there often matter."""
    body = {key: value for key, value in document.items() if key != "$defs"}
    used = [one for name, one in document["$defs"].items() if f"#/$defs/{name}" in str(body)]
    found = [(document if holder is body else holder, key) for holder, key in _places(body)]
    return [*found, *(place for one in used for place in _places(one))] or [(document["$defs"], "A")]


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place of a value in objects and lists: (container, key)."""
    inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inside:
        if key not in ("$defs", "$ref", "type") and node is not value:
            yield node, key
        yield from _places(value)


def _renamed(document: Any) -> Any:
    """Swap the name of one definition for another, at the definition and in references."""
    swap = {"A": "B", "B": "A"}
    if isinstance(document, list):
        return [_renamed(one) for one in document]
    if not isinstance(document, dict):
        return document
    found = {key: _renamed(value) for key, value in document.items()}
    if isinstance(reference := found.get("$ref"), str):
        end = reference.rpartition("/")[2]
        found["$ref"] = f"#/$defs/{swap[end]}" if end in swap else reference
    if "$defs" in found:
        found["$defs"] = {swap.get(name, name): one for name, one in found["$defs"].items()}
    return found


def is_schema(document: Any) -> bool:
    try:
        Draft202012Validator.check_schema(document)
    except Exception:
        return False
    return True


def is_endless(document: dict[str, Any]) -> bool:
    """Return whether a schema refers to itself for the same value, so that a validator would never end."""
    return any(_is_endless(one, document, ()) for one in (document, *document["$defs"].values()))


def _is_endless(schema: Any, root: dict[str, Any], references: tuple[str, ...]) -> bool:
    if not isinstance(schema, dict):
        return False
    if reference := schema.get("$ref"):
        if reference in references:
            return True
        if _is_endless(_end(reference, root), root, (*references, reference)):
            return True
    inner = [schema[key] for key in ("not", "if", "then", "else") if key in schema]
    inner += [one for key in ("allOf", "anyOf", "oneOf") for one in schema.get(key, [])]
    inner += schema.get("dependentSchemas", {}).values()
    return any(_is_endless(one, root, references) for one in inner)


def _end(reference: str, root: dict[str, Any]) -> Any:
    return root if reference == "#" else root["$defs"][reference.rpartition("/")[2]]


def valid(document: dict[str, Any], values: list[Any]) -> list[bool]:
    validator = Draft202012Validator(document)
    return [validator.is_valid(value) for value in values]


def as_written(document: dict[str, Any]) -> dict[str, Any]:
    """Return the same schema for a writer, who sends no field that the schema does not name."""
    return {
        **_closed(document, document),
        "$defs": {name: _closed(one, document, inside=True) for name, one in document["$defs"].items()},
    }


def _closed(schema: Any, root: dict[str, Any], *, inside: bool = False) -> Any:
    """Return the schema whose objects forbid the fields that they do not name.

    With `inside`, the schema is a part of `allOf` or the like. Other parts name further fields of the same value, so this
    part stays open.
    """
    if not isinstance(schema, dict):
        return schema
    found = dict(schema)
    for key in ("items", "additionalProperties", "contains"):
        if key in found:
            found[key] = _closed(found[key], root)
    for key in ("properties", "patternProperties"):
        if key in found:
            found[key] = {name: _closed(one, root) for name, one in found[key].items()}
    if "prefixItems" in found:
        found["prefixItems"] = [_closed(one, root) for one in found["prefixItems"]]
    for key in ("allOf", "anyOf", "oneOf"):
        if key in found:
            found[key] = [_closed(one, root, inside=True) for one in found[key]]
    if not inside and "unevaluatedProperties" not in found and _names_fields(schema, root, ()):
        found["unevaluatedProperties"] = False
    return found


def _names_fields(schema: Any, root: dict[str, Any], references: tuple[str, ...]) -> bool:
    if not isinstance(schema, dict):
        return False
    if "properties" in schema:
        return True
    inner = [one for key in ("allOf", "anyOf", "oneOf") for one in schema.get(key, [])]
    if (reference := schema.get("$ref")) and reference not in references:
        references = (*references, reference)
        inner.append(_end(reference, root))
    return any(_names_fields(one, root, references) for one in inner)


def open_to_all(document: Any, *, names: bool = False) -> Any:
    """Return the same schema without objects that forbid unnamed fields."""
    if isinstance(document, list):
        return [open_to_all(one) for one in document]
    if not isinstance(document, dict):
        return document
    named = ("properties", "patternProperties", "dependentSchemas", "$defs")
    return {
        key: open_to_all(value, names=not names and key in named)
        for key, value in document.items()
        if names or key != "additionalProperties" or value is not False
    }
