"""The messages of a service, as checks read them from its AsyncAPI document."""

import ast
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
    """One message that the service sends, takes, or both. `published` is its schema in specs/messages; None without."""

    name: str
    kind: str
    sent: bool
    taken: bool
    line: int
    published: dict[str, Any] | None = field(default=None, compare=False)

    @property
    def ours(self) -> bool:
        """Others hold us to its schema: the publisher owns an event, and who does a job owns that."""
        return self.sent if self.kind == "event" else self.taken

    def schema(self) -> dict[str, Any]:
        """What others know of it."""
        return self.published or {}


def path_of(name: str) -> str:
    """Where the schema of a message is."""
    return f"{MESSAGES}{name}.json"


@lru_cache(maxsize=1)
def read(service: Service) -> list[Message] | None:
    """The messages of the service, by name. None if its code has some and no document says which: event-document tells.

    Raises FleetError if the document is malformed.
    """
    document = service.json(SPEC)
    if document is None:
        return None if _has_messages(service) else []
    lines = service.text(SPEC).splitlines()
    try:
        done = [(one["action"], _last(named)) for one in document["operations"].values() for named in one["messages"]]
        return [
            Message(
                name,
                _kind(message["tags"][0]),
                ("send", name) in done,
                ("receive", name) in done,
                next((number for number, line in enumerate(lines, 1) if f'"{name}": {{' in line), 0),
                service.json(path_of(name)),
            )
            for name, message in sorted(document["components"]["messages"].items())
        ]
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise FleetError(f"{SPEC} is not what `make specs` writes: {type(error).__name__} {error}") from None


def _has_messages(service: Service) -> bool:
    """Whether a module below messaging/ has a line in its OUTGOING or INCOMING."""
    return any(
        isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.List) and node.value.elts
        for module in source.modules(service, "src/*/messaging/*.py")
        for node in module.tree.body
        if {"OUTGOING", "INCOMING"} & set(source.assigned(node))
    )


def _kind(tag: dict[str, str]) -> str:
    """The name of a tag, or of the tag that a reference points to."""
    return _last(tag) if "$ref" in tag else str(tag["name"])


def _last(reference: dict[str, str]) -> str:
    return reference["$ref"].rpartition("/")[2]


def retired(service: Service) -> set[str]:
    """The names in specs/retired.txt, which has a name and a reason on each line. Raises FleetError."""
    lines = [line.split(maxsplit=1) for line in service.text(RETIRED).splitlines()]
    entries = [line for line in lines if line and not line[0].startswith("#")]
    for entry in entries:
        if len(entry) == 1:
            raise FleetError(f"{RETIRED} does not say why nobody needs {entry[0]} any more")
    return {entry[0] for entry in entries}
