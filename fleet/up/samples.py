"""Make an answer of an API from its document: from an example, or else from the schema. Documents may be hostile."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fleet.service.openapi import Document, Node, Operation

MAX_VALUES = 1000
"""The most values of one answer. A schema may double itself at every level."""
MAX_DEPTH = 12
OPTIONAL_DEPTH = 4
"""Deeper objects have only the properties that they need, and deeper arrays no items, because schemas may recur."""
MAX_ITEMS = 3
MAX_CHARACTERS = 1000
MAX_TEXT_BYTES = 2**20
FORMATS = {
    "uuid": "0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d",
    "date-time": "2027-01-31T12:00:00Z",
    "date": "2027-01-31",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uri-reference": "/",
    "byte": "AA==",
}
JSON_TYPE = re.compile(r"application/([\w.+-]+\+)?json", re.ASCII)
TEXT_TYPE = re.compile(r"[\w.+-]{1,100}/[\w.+-]{1,100}", re.ASCII)
OF_THE_SERVER = {"connection", "content-length", "content-type", "date", "keep-alive", "server", "transfer-encoding"}
WRONG = (AttributeError, LookupError, TypeError, ValueError, OverflowError)
"""The errors of code that reads a document whose parts have other types than OpenAPI says."""


def answer(document: Document, operation: Operation, wanted: str = "") -> tuple[int, str, Any]:
    """Return the status, the media type and the content of an answer: JSON, or the text of an example, as bytes.

    `wanted` is a status; otherwise it is the first success. The type is empty if the answer has neither.
    """
    status = wanted if wanted in operation.responses else _success(operation.responses)
    number = int(status) if re.fullmatch("[2-5][0-9]{2}", status) else 200
    content = operation.responses.get(status, {}).get("content")
    bodies = content if isinstance(content, dict) and number not in (204, 304) else {}
    bodies = {media.partition(";")[0].strip(): body for media, body in bodies.items()}
    for media, body in bodies.items():
        if JSON_TYPE.fullmatch(media):
            return number, media, Samples(document).of_body(body)
    for media, body in bodies.items():
        if TEXT_TYPE.fullmatch(media) and isinstance(text := Samples(document).of_body(body), str):
            return number, media, text.encode(errors="replace")[:MAX_TEXT_BYTES]
    return number, "", None


def headers(document: Document, operation: Operation, status: int) -> dict[str, str]:
    """Return the headers that the answer with this status has, such as ETag."""
    found = {}
    named = operation.responses.get(str(status), {}).get("headers", {})
    for name, header in named.items() if isinstance(named, dict) else ():
        text = str(Samples(document).of_body(header))
        is_known = re.fullmatch(r"[A-Za-z0-9-]{1,100}", name) and re.fullmatch(r"[\x20-\x7e]{1,1000}", text)
        if is_known and name.lower() not in OF_THE_SERVER:
            found[name] = text
    return found


def _success(responses: Mapping[str, Node]) -> str:
    return next((status for status in sorted(responses) if status.startswith("2")), next(iter(responses), ""))


class Samples:
    """Values for the schemas of one answer."""

    def __init__(self, document: Document) -> None:
        self._document, self._left = document, MAX_VALUES

    def of_body(self, body: Node) -> Any:
        """Return the example of a body or a header, or else a value for its schema."""
        try:
            body = self._document.resolved(body)
            if "example" in body:
                return body["example"]
            for example in body.get("examples", {}).values():
                return self._document.resolved(example)["value"]
        except WRONG:
            pass
        try:
            return self.of(body["schema"])
        except (*WRONG, RecursionError):
            return None

    def of(self, schema: Any, depth: int = 0) -> Any:
        """Return a value for a schema. A part that is malformed or nests too deeply becomes null."""
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH or not isinstance(schema, dict):
            return None
        try:
            return self._of(self._document.resolved(schema), depth)
        except WRONG:
            return None

    def _of(self, schema: Node, depth: int) -> Any:
        for key in ("example", "const", "default"):
            if key in schema and not (key == "default" and schema[key] is None):
                return schema[key]
        for key in ("examples", "enum"):
            if isinstance(schema.get(key), list) and schema[key]:
                return schema[key][0]
        for key in ("anyOf", "oneOf"):
            if choices := schema.get(key):
                return self.of(next((one for one in choices if one.get("type") != "null"), None), depth + 1)
        if parts := schema.get("allOf"):
            made = [self.of(part, depth + 1) for part in [*parts, {**schema, "allOf": None}]]
            objects = [part for part in made if isinstance(part, dict)]
            return {name: value for part in objects for name, value in part.items()} if objects else made[0]
        named = schema.get("type", "object" if "properties" in schema else None)
        kinds = [named] if isinstance(named, str) else [kind for kind in named or () if kind != "null"]
        return self._of_type(kinds[0] if kinds else "", schema, depth)

    def _of_type(self, kind: str, schema: Node, depth: int) -> Any:
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array" if depth > OPTIONAL_DEPTH and not schema.get("minItems"):
                return []
            case "array":
                count = min(max(schema.get("minItems", 1), 1), schema.get("maxItems", MAX_ITEMS), MAX_ITEMS)
                items = [self.of(schema.get("items"), depth + 1) for _ in range(count)]
                return [] if items == [None] * count and not schema.get("minItems") else items
            case "string":
                return _text(schema)
            case "integer" | "number":
                return _number(schema, kind)
            case "boolean":
                return True
        return None

    def _object(self, schema: Node, depth: int) -> Node:
        made = {}
        required = set(schema.get("required", ()))
        for name, part in schema.get("properties", {}).items():
            if self._left <= 0:
                break
            if depth > OPTIONAL_DEPTH and name not in required:
                continue
            value = self.of(part, depth + 1)
            if value is not None or name in required:
                made[name] = value
        return made


def _text(schema: Node) -> str:
    text = FORMATS.get(schema.get("format", ""), "sample")
    if text != "sample":
        return text
    least, most = schema.get("minLength", 0), schema.get("maxLength", MAX_CHARACTERS)
    return text.ljust(min(least, MAX_CHARACTERS), "x")[: max(0, min(most, MAX_CHARACTERS))]


def _number(schema: Node, kind: str) -> int | float:
    step: float = schema.get("multipleOf", 1 if kind == "integer" else 0.01)
    low: float | None = schema.get("minimum", schema.get("exclusiveMinimum"))
    high: float | None = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None:
        low = 1 if high is None else min(1, high - ("exclusiveMaximum" in schema) * step)
    elif "minimum" not in schema:
        low += step
    number = -(-low // step) * step if step else low  # the smallest multiple that is not below the minimum
    return int(number) if kind == "integer" else float(number)


def matching(document: Document, method: str, path: str) -> tuple[Operation | None, Sequence[str]]:
    """Return the operation for a request, or else the methods that the path has. Plain steps win over parameters."""
    steps = path.split("/")
    fitting = sorted(
        (one for one in document.operations if _fits(one.path.split("/"), steps)), key=lambda one: one.path.count("{")
    )
    best = [one for one in fitting if one.path == fitting[0].path]
    found = next((one for one in best if one.method == method), None)
    if found is None and method == "head":
        found = next((one for one in best if one.method == "get"), None)
    return found, [one.method.upper() for one in best]


def _fits(pattern: Sequence[str], steps: Sequence[str]) -> bool:
    """Compare step by step: a parameter fits any step that is not empty."""
    return len(pattern) == len(steps) and all(
        one == other or ("{" in one and "}" in one and other != "") for one, other in zip(pattern, steps, strict=True)
    )
