"""Read the API document of a service."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from fleet.errors import FleetError
from fleet.service.service import Service

SPEC = "specs/openapi.json"
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
JSON = "application/json"
FLAGS = {"exclusiveMaximum", "exclusiveMinimum", "nullable"}
"""Keywords of schemas that are true or false in OpenAPI 3.0 only."""
VALUES = {"const", "default", "enum", "example", "examples"}

Node = dict[str, Any]


@dataclass(frozen=True)
class Operation:
    """One method of one path, with references resolved. `line` is its line in the document; 0 if the line is not known."""

    path: str
    method: str
    content: Node
    parameters: tuple[Node, ...]
    body: Node | None
    responses: dict[str, Node]
    line: int
    item: Node = field(default_factory=dict)
    """The path with all its operations."""

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"

    def parameter(self, name: str, place: str) -> Node | None:
        """Return a parameter by its name and where it is: path, query, header, cookie."""
        return next((one for one in self.parameters if (one["name"], one["in"]) == (name, place)), None)


class Document:
    """An OpenAPI document."""

    def __init__(self, content: Any, text: str = "") -> None:
        """Read a document from its parsed content and its text. Raises FleetError if it is not an OpenAPI document."""
        self.content: Node = content
        self._lines = text.splitlines()
        try:
            self.version = str(content["openapi"])
            self.operations = list(self._operations())
        except (AttributeError, KeyError, TypeError) as error:
            raise FleetError(f"{SPEC} is not an OpenAPI document: {type(error).__name__} {error}") from None

    @cached_property
    def collections(self) -> set[str]:
        """The paths of collections: a path with an id follows them, or their GET answers a list."""
        paths = {operation.path for operation in self.operations}
        addressed = {path.rpartition("/")[0] for path in paths if path.endswith("}")}
        listed = {one.path for one in self.operations if one.method == "get" and _is_list(self.answer(one))}
        return (addressed & paths) | {path for path in listed if not path.endswith("}")}

    def answer(self, operation: Operation) -> Node:
        """Return the schema of the JSON that the operation answers with 200; empty without JSON."""
        content = operation.responses.get("200", {}).get("content", {})
        return self.resolved(content.get(JSON, {}).get("schema", {}))

    def resolved(self, node: Node) -> Node:
        """Follow a reference; return any other node as it is. Raises KeyError if the reference leads nowhere."""
        for _ in range(20):  # a longer chain of references is a cycle
            if "$ref" not in node:
                return node
            reference, node = node["$ref"], self.content
            for step in reference.removeprefix("#/").split("/"):
                node = node[step.replace("~1", "/").replace("~0", "~")]
        raise KeyError("a reference to itself")

    def _operations(self) -> Iterator[Operation]:
        for path, item in ((path, self.resolved(item)) for path, item in self.content.get("paths", {}).items()):
            for method in METHODS:
                if method in item:
                    yield self._operation(path, method, item)

    def _operation(self, path: str, method: str, item: Node) -> Operation:
        content = item[method]
        # A parameter of an operation replaces a parameter of its path with the same name and place.
        parameters = [self.resolved(one) for one in (*item.get("parameters", []), *content.get("parameters", []))]
        named = {(one["name"], one["in"]): one for one in parameters}
        return Operation(
            path,
            method,
            content,
            tuple(named.values()),
            self.resolved(content["requestBody"]) if "requestBody" in content else None,
            {str(status): self.resolved(response) for status, response in content["responses"].items()},
            self._line(path, method),
            item,
        )

    def _line(self, path: str, method: str) -> int:
        """Return the line of an operation in a document that `make specs` wrote, with one key on each line."""
        keys = [re.compile(rf'\s*"{re.escape(key)}": \{{') for key in (path, method)]
        for number, line in enumerate(self._lines, 1):
            if keys[0].match(line):
                keys.pop(0)
                if not keys:
                    return number
        return 0


def as_3_1(content: Any) -> Any:
    """Return a document of OpenAPI 3.0 as OpenAPI 3.1, with the schemas of JSON Schema; any other document as it is."""
    if not isinstance(content, dict) or not str(content.get("openapi", "")).startswith("3.0"):
        return content
    return {**_as_3_1(content), "openapi": "3.1.0"}


def _as_3_1(node: Any) -> Any:
    if isinstance(node, list):
        return [_as_3_1(one) for one in node]
    if not isinstance(node, dict):
        return node
    # A value that is not a bool is kept, because a property may have the name of a flag, such as `nullable`.
    made = {
        key: value if key in VALUES else _as_3_1(value)
        for key, value in node.items()
        if type(value) is not bool or key not in FLAGS
    }
    for bound in ("minimum", "maximum"):
        if node.get(f"exclusive{bound.capitalize()}") is True and bound in made:
            made[f"exclusive{bound.capitalize()}"] = made.pop(bound)
    if node.get("nullable") is not True or "$ref" in node:  # next to a reference, OpenAPI 3.0 ignores other keywords
        return made
    if isinstance(made.get("type"), str):
        values = (
            {"enum": [*made["enum"], None]} if isinstance(made.get("enum"), list) and None not in made["enum"] else {}
        )
        return {**made, "type": [made["type"], "null"], **values}
    return {"anyOf": [made, {"type": "null"}]} if made.keys() & {"allOf", "anyOf", "oneOf"} else made


# The documents of a service and its base, which every rule about the API reads.
@lru_cache(maxsize=2)
def read(service: Service) -> Document | None:
    """Read the document of a service; None if it is missing, which http-document reports. Raises FleetError."""
    content = service.json(SPEC)
    return None if content is None else Document(content, service.text(SPEC))


def _is_list(schema: Node) -> bool:
    return schema.get("type") == "array" or "items" in schema.get("properties", {})
