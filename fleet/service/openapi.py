"""The API document of a service, as checks read it."""

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

Node = dict[str, Any]


@dataclass(frozen=True)
class Operation:
    """One method of one path, its references resolved. `line` is where the document has it; 0 if that is not known."""

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
        """A parameter by its name and where it is: path, query, header, cookie."""
        return next((one for one in self.parameters if (one["name"], one["in"]) == (name, place)), None)


class Document:
    """An OpenAPI document. Raises FleetError if it is none."""

    def __init__(self, content: Any, text: str = "") -> None:
        self.content: Node = content
        self._lines = text.splitlines()
        try:
            self.version = str(content["openapi"])
            self.operations = list(self._operations())
        except (AttributeError, KeyError, TypeError) as error:
            raise FleetError(f"{SPEC} is not an OpenAPI document: {type(error).__name__} {error}") from None

    @cached_property
    def collections(self) -> set[str]:
        """The paths that stand for many things: below them one is addressed by its id, or their GET answers a list."""
        paths = {operation.path for operation in self.operations}
        addressed = {path.rpartition("/")[0] for path in paths if path.endswith("}")}
        listed = {one.path for one in self.operations if one.method == "get" and _is_list(self.answer(one))}
        return (addressed & paths) | {path for path in listed if not path.endswith("}")}

    def answer(self, operation: Operation) -> Node:
        """The schema of the JSON that the operation answers with 200; empty if it answers none."""
        content = operation.responses.get("200", {}).get("content", {})
        return self.resolved(content.get(JSON, {}).get("schema", {}))

    def resolved(self, node: Node) -> Node:
        """What a reference stands for; anything else as it is. Raises KeyError if it leads nowhere."""
        for _ in range(20):  # a chain that is longer goes round in circles
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
        # What an operation says of a parameter counts more than what its path says.
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
        """As `make specs` writes it: one key a line."""
        keys = [re.compile(rf'\s*"{re.escape(key)}": \{{') for key in (path, method)]
        for number, line in enumerate(self._lines, 1):
            if keys[0].match(line):
                keys.pop(0)
                if not keys:
                    return number
        return 0


# Of a service and its base: every rule about the API wants it.
@lru_cache(maxsize=2)
def read(service: Service) -> Document | None:
    """The document of the service; None if it has none, which http-document tells. Raises FleetError."""
    content = service.json(SPEC)
    return None if content is None else Document(content, service.text(SPEC))


def _is_list(schema: Node) -> bool:
    return schema.get("type") == "array" or "items" in schema.get("properties", {})
