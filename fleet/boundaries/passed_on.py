"""Find services that receive fields from one neighbour and send them on unchanged to another one, by their contracts."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from fleet.boundaries.decision import DATA
from fleet.boundaries.past import Past
from fleet.boundaries.questions import Evidence, Question, records
from fleet.map.facts import USES
from fleet.map.model import Kind, Map
from fleet.service.asyncapi import SPEC

FEWEST_FIELDS = 3
LEAST_SHARE = 0.5
"""The share of the received fields, in one message or answer, that the service has to send on unchanged."""

MOST_SERVICES = 4
MOST_SHARE = 0.1
"""A field does not count if the contracts of more than MOST_SERVICES services, and of more than this share of all, have it."""

REFERENCES = ("_id", "_at", "_version")
ENVELOPE = {"id", "version", "status", "occurred_at", "created_at", "updated_at", "items", "next_cursor"}
"""Names that a service needs to refer to something, and to know when it happened."""

ASK = (
    "Does {name} need these fields for a decision of its own? If not, could {target} have them from {source} directly, and is the data "
    "then on the right side?"
)
MOST_DEPTH = 20

MOST_BODIES = 1000
"""The most received bodies, and the most sent bodies, to compare for one service: a document may have a hundred thousand."""


@dataclass(frozen=True)
class Body:
    """The fields of a message or of an HTTP body, each as its name with its schema, between two services."""

    source: str
    target: str
    what: str
    path: str
    fields: frozenset[str]


def passed_on(map_: Map, pasts: Mapping[str, Past]) -> Iterator[Question]:
    """Find the services, most fields first; one question for each source and target."""
    bodies = list(dict.fromkeys(_bodies(map_)))
    users: dict[str, set[str]] = defaultdict(set)
    for body in bodies:
        for one in body.fields:
            users[one] |= {body.source, body.target}
    most = max(MOST_SERVICES, MOST_SHARE * len(map_.services))
    common = {one for one, names in users.items() if len(names) > most}
    best: dict[tuple[str, str, str], tuple[set[str], Body, Body]] = {}
    for received, sent in _pairs(bodies):
        if sent.target != received.source:
            own = received.fields - common
            same = own & sent.fields
            key = received.source, received.target, sent.target
            enough = len(same) >= FEWEST_FIELDS and len(same) >= LEAST_SHARE * len(own)
            if enough and len(same) > len(best.get(key, ((),))[0]):
                best[key] = set(same), received, sent
    for (source, name, target), found in sorted(best.items(), key=lambda item: (-len(item[1][0]), item[0])):
        if name in pasts:
            yield _question(source, name, target, found, pasts[name])


def _pairs(bodies: list[Body]) -> Iterator[tuple[Body, Body]]:
    """Yield each received body of a service with each sent body, without bodies of fewer than FEWEST_FIELDS fields."""
    received, sent = (defaultdict[str, dict[str, list[Body]]](dict) for _ in range(2))
    for body in (one for one in bodies if len(one.fields) >= FEWEST_FIELDS):
        received[body.target].setdefault(body.source, []).append(body)
        sent[body.source].setdefault(body.target, []).append(body)
    for name, by_source in received.items():
        yield from product(_compared(by_source), _compared(sent[name]))


def _compared(by_neighbour: Mapping[str, list[Body]]) -> list[Body]:
    """Return the first bodies of each neighbour: the same number for each, and about MOST_BODIES together."""
    most = max(MOST_BODIES // max(len(by_neighbour), 1), 1)
    return [one for bodies in by_neighbour.values() for one in bodies[:most]]


def _question(source: str, name: str, target: str, found: tuple[set[str], Body, Body], past: Past) -> Question:
    same, received, sent = found
    fields = ", ".join(sorted(one.partition(":")[0] for one in same))
    return Question(
        "boundary-passed-on",
        (name, source, target),
        f"{name} receives {len(same)} fields from {source} and sends them on to {target} with the same names and types: {fields}",
        f"at least {FEWEST_FIELDS} fields, and {LEAST_SHARE:.0%} of those received; ids, times and fields that many services have are left "
        "out; the contracts were compared, and not the code between them",
        ASK.format(name=name, source=source, target=target),
        (
            tuple(
                Evidence(name, "", past.newest[:10], f"{body.path}: {verb} {body.what}")
                for verb, body in (("receives", received), ("sends", sent))
            ),
        ),
        None,
        records((past,), DATA),
    )


def _bodies(map_: Map) -> Iterator[Body]:
    """Yield the bodies that the documents of services describe: of messages, and of the requests and answers of calls."""
    for edge in (*map_.of(Kind.EVENT), *map_.of(Kind.JOB)):
        for name in (edge.source, edge.target):
            if name in map_.services and not edge.is_open:
                schema = map_.message(name, edge.name).schema()
                yield Body(edge.source, edge.target, edge.name, SPEC, _fields(schema, schema))
    for caller in map_.services.values():
        for used_name, used in caller.uses.items():
            provider = map_.service_of(used_name)
            if provider and provider != caller.name and isinstance(used, dict):
                yield from _calls(caller.name, provider, f"{USES}{used_name}.json", used)


def _calls(caller: str, provider: str, path: str, used: dict[str, Any]) -> Iterator[Body]:
    for route, item in _items(used.get("paths")):
        for method, operation in _items(item):
            if not isinstance(operation, dict):
                continue
            what = f"{method.upper()} {route}"
            request = _fields(_content(operation.get("requestBody")), used)
            yield Body(caller, provider, what, path, request)
            for status, answer in _items(operation.get("responses")):
                if str(status).startswith("2"):
                    yield Body(provider, caller, what, path, _fields(_content(answer), used))


def _items(node: Any) -> list[tuple[str, Any]]:
    return list(node.items()) if isinstance(node, dict) else []


def _content(node: Any) -> Any:
    content = node.get("content") if isinstance(node, dict) else None
    media = content.get("application/json") if isinstance(content, dict) else None
    return media.get("schema") if isinstance(media, dict) else None


def _fields(schema: Any, document: Any) -> frozenset[str]:
    """Return the fields of an object, each as its name with its type. A malformed schema has no fields."""
    properties = _resolved(schema, document).get("properties")
    return frozenset(
        f"{name}:{_type(one, document)}"
        for name, one in _items(properties)
        if name not in ENVELOPE and not name.endswith(REFERENCES)
    )


def _type(schema: Any, document: Any) -> str:
    """Return what has to be equal for a field to be the same: type, format and values, and not its description."""
    node = _resolved(schema, document)
    known = {key: node[key] for key in ("type", "format", "enum", "items", "properties", "anyOf") if key in node}
    return json.dumps(known, sort_keys=True, default=str)


def _resolved(node: Any, document: Any) -> dict[str, Any]:
    for _ in range(MOST_DEPTH):
        if not isinstance(node, dict):
            return {}
        reference = node.get("$ref")
        if not isinstance(reference, str):
            return node
        node = document
        for step in reference.removeprefix("#/").split("/"):
            node = node.get(step) if isinstance(node, dict) else None
    return {}
