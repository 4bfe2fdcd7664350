"""Read the messages of a service from its AsyncAPI document and specs/messages."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from fleet.errors import FleetError
from fleet.service import source
from fleet.service.service import Service

SPEC = "specs/asyncapi.json"
MESSAGES = "specs/messages/"
RETIRED = "specs/retired.txt"


@dataclass(frozen=True)
class Message:
    """A message that the service sends, receives, or both.

    `published` is the schema in specs/messages; None if there is no file. Only then `payload` is the schema in the document:
    the schema that the service expects of a message of another service.
    """

    name: str
    kind: str
    sent: bool
    received: bool
    line: int = 0
    published: dict[str, Any] | None = field(default=None, compare=False)
    payload: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def ours(self) -> bool:
        """Whether this service owns the schema: the publisher owns an event, and the service that processes a job owns the job."""
        return self.sent if self.kind == "event" else self.received

    def schema(self) -> dict[str, Any]:
        """Return the schema that the service promises for sent messages, or expects of received messages."""
        return self.published or self.payload


def path_of(name: str) -> str:
    """Return the path of a message's schema."""
    return f"{MESSAGES}{name}.json"


@lru_cache(maxsize=1)
def read(service: Service) -> list[Message] | None:
    """Read the messages of a service, sorted by name. Raises FleetError if the document is malformed.

    Return None if the code has messages and the document is missing, which event-document reports.
    """
    document = service.json(SPEC)
    if document is None:
        return None if _has_messages(service) else []
    try:
        return list(_messages(service, document))
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise FleetError(
            f"{SPEC} does not have the structure that `make specs` writes: {type(error).__name__} {error}"
        ) from None


def _messages(service: Service, document: dict[str, Any]) -> Iterator[Message]:
    lines = service.text(SPEC).splitlines()
    actions = {(one["action"], _last(named)) for one in document["operations"].values() for named in one["messages"]}
    for name, message in sorted(document["components"]["messages"].items()):
        published = service.json(path_of(name))
        yield Message(
            name,
            _kind(message["tags"][0]),
            ("send", name) in actions,
            ("receive", name) in actions,
            next((number for number, line in enumerate(lines, 1) if f'"{name}": {{' in line), 0),
            published,
            {} if published else _payload(document, message.get("payload", {})),
        )


def _payload(document: dict[str, Any], payload: dict[str, Any]) -> dict[str, Any]:
    """Return a schema as a document of its own, with the schemas that its references name."""
    schemas: dict[str, Any] = {}
    wanted = _references(payload)
    while wanted:
        name = wanted.pop()
        # The comparison with another schema reports a reference that leads nowhere.
        if name not in schemas and name in document["components"].get("schemas", {}):
            schemas[name] = document["components"]["schemas"][name]
            wanted |= _references(schemas[name])
    return {**payload, "components": {"schemas": schemas}}


def _references(node: Any) -> set[str]:
    """Return the names in components/schemas that a schema refers to."""
    found = {_last(node)} if isinstance(node, dict) and isinstance(node.get("$ref"), str) else set()
    for one in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        found |= _references(one)
    return found


def _has_messages(service: Service) -> bool:
    """Return whether a module below messaging/ has a line in its OUTGOING or INCOMING."""
    return any(
        isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.List) and node.value.elts
        for module in source.modules(service, "src/*/messaging/*.py")
        for node in module.tree.body
        if {"OUTGOING", "INCOMING"} & set(source.assigned(node))
    )


def _kind(tag: dict[str, str]) -> str:
    """Return the name of a tag, or of the tag that a reference points to."""
    return _last(tag) if "$ref" in tag else str(tag["name"])


def _last(reference: dict[str, str]) -> str:
    return reference["$ref"].rpartition("/")[2]


def retired(service: Service) -> set[str]:
    """Read the names in specs/retired.txt, which has a name and a reason on each line. Raises FleetError."""
    lines = [line.split(maxsplit=1) for line in service.text(RETIRED).splitlines()]
    entries = [line for line in lines if line and not line[0].startswith("#")]
    for entry in entries:
        if len(entry) == 1:
            raise FleetError(f"{RETIRED} has no reason why nobody needs {entry[0]} any more: write it after the name")
    return {entry[0] for entry in entries}
