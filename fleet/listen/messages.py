"""Read a message of another service from its AsyncAPI document."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from fleet.client import uses
from fleet.client.sources import Source, nearest, parse
from fleet.errors import FleetError
from fleet.service.asyncapi import SPEC
from fleet.service.openapi import Document, Node

_WORDS = r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*"
NAME = re.compile(rf"(?P<service>{_WORDS})(?:--(?P<queue>{_WORDS}))?\.(?P<words>{_WORDS})\.v(?P<version>[1-9][0-9]*)")


@dataclass(frozen=True)
class Message:
    """A message of the document. `sent`: the service of the document sends it. `example` is an agreed body, if there is one."""

    name: str
    kind: str
    sent: bool
    payload: Any
    example: Any = None


def read(source: Source, name: str) -> tuple[Document, Message]:
    """Read the document of a source, and the message `name` in it. Raises FleetError."""
    where, content = source.document(SPEC, "AsyncAPI")
    read = parse(where, content, "AsyncAPI")
    version = str(read.get("asyncapi", "")) if isinstance(read, dict) else ""
    if not version.startswith("3."):
        is_older = f"is of AsyncAPI {version}: convert it to AsyncAPI 3" if version else "is not an AsyncAPI document"
        raise FleetError(f"{where} {is_older}")
    document = Document({**read, "openapi": "3.1.0", "paths": {}})
    try:
        known = _messages(document)
    except uses.MALFORMED as error:
        raise FleetError(f"{where} is malformed: {error!r}. Correct it, or name another file") from None
    if name not in known:
        raise FleetError(
            f"{source.shown} has no message {name}{nearest(name, (one.name for one in known.values() if one.sent))}"
        )
    return document, known[name]


def _messages(document: Document) -> dict[str, Message]:
    found: dict[str, Message] = {}
    for action, name, content in _listed(document):
        tags = [document.resolved(one).get("name") for one in content.get("tags", ())]
        examples = [one["payload"] for one in content.get("examples", ()) if "payload" in one]
        message = Message(
            name,
            "job" if "job" in tags else "event",
            action == "send",
            content.get("payload", {}),
            examples[0] if examples else None,
        )
        found[name] = replace(message, sent=message.sent or (name in found and found[name].sent))
    return found


def _listed(document: Document) -> Iterator[tuple[str, str, Node]]:
    """Yield the action, the name and the content of each message of each operation."""
    for operation in document.content.get("operations", {}).values():
        operation = document.resolved(operation)
        channel = document.resolved(operation["channel"])
        named = channel.get("messages", {}).values()
        for message in operation.get("messages") or named:
            key = str(message.get("$ref", "")).rpartition("/")[2]
            content = document.resolved(message)
            yield operation["action"], str(content.get("name") or key), content
