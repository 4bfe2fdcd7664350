"""What one service's repository says of its neighbours. Small, and JSON, so that it can be kept for each commit."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from fleet.errors import FleetError
from fleet.map.calls import Client, clients
from fleet.map.databases import Database, databases
from fleet.service import asyncapi
from fleet.service.openapi import read as read_api
from fleet.service.service import Service

CATALOG = "catalog-info.yaml"


@dataclass(frozen=True)
class Message:
    """One that the service sends, takes, or both. `schema` is what it promises of what it sends, or expects to get."""

    name: str
    kind: str
    sent: bool
    taken: bool
    schema: dict[str, Any]
    line: int = 0


@dataclass(frozen=True)
class Waived:
    """What the service was allowed by a waiver with this `id`, until a day (2027-03-01), that day included."""

    id: str
    until: str
    told: str


@dataclass(frozen=True)
class Facts:
    """One service. `apis` are those that it provides, by name, with their type; `consumes` is what the catalogue says it uses."""

    name: str
    messages: tuple[Message, ...] = ()
    apis: dict[str, str] = field(default_factory=dict)
    consumes: tuple[str, ...] = ()
    clients: tuple[Client, ...] = ()
    databases: tuple[Database, ...] = ()
    # Of Resource entities in its catalogue, by name.
    resources: dict[str, str] = field(default_factory=dict)
    operations: int = 0
    # Its code has messages, and no document says which.
    is_silent: bool = False
    waivers: tuple[Waived, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> "Facts":
        """Of what `to_json` made. Raises KeyError or TypeError if it did not."""
        kinds = {"messages": Message, "clients": Client, "databases": Database, "waivers": Waived}
        lists: dict[str, Any] = {key: tuple(kind(**one) for one in written[key]) for key, kind in kinds.items()}
        whole: dict[str, Any] = written | lists | {"consumes": tuple(written["consumes"])}
        return cls(**whole)


def facts(service: Service) -> Facts:
    """Read them. Runs nothing of the service. Raises FleetError if a file is malformed."""
    entities = [one for one in service.yaml(CATALOG) if isinstance(one, dict)]
    messages = asyncapi.read(service)
    api = read_api(service)
    try:
        component = next((one for one in entities if one.get("kind") == "Component"), {})
        spec = component.get("spec") or {}
        # A provided API may be described elsewhere; then its type is not known.
        apis = dict.fromkeys(map(_last, spec.get("providesApis") or []), "") | _types(entities, "API")
        resources = _types(entities, "Resource")
        consumed = [_last(one) for one in spec.get("consumesApis") or []]
        depended = [_last(one) for one in spec.get("dependsOn") or [] if one.startswith("resource:")]
    except (AttributeError, KeyError, TypeError) as error:
        raise FleetError(f"{CATALOG} is not what Backstage reads: {type(error).__name__} {error}") from None
    return Facts(
        service.name,
        tuple(_messages(service, messages or [])),
        apis,
        tuple(dict.fromkeys(consumed)),
        tuple(clients(service)),
        (*databases(service), *(Database("resource", name, CATALOG) for name in depended)),
        resources,
        len(api.operations) if api else 0,
        messages is None,
        tuple(
            Waived(one.id, one.expires.isoformat(), f"{one.reason} (until {one.expires}, {one.approver})")
            for one in service.waivers.waivers
            if one.id
        ),
    )


def _types(entities: list[dict[str, Any]], kind: str) -> dict[str, str]:
    """The spec.type of every entity of a kind, by name."""
    return {str(one["metadata"]["name"]): str(one["spec"]["type"]) for one in entities if one.get("kind") == kind}


def _messages(service: Service, messages: list[asyncapi.Message]) -> Iterator[Message]:
    document = service.json(asyncapi.SPEC) or {}
    for one in messages:
        schema = one.published or _payload(document, one.name)
        yield Message(one.name, one.kind, one.sent, one.taken, schema, one.line)


def _payload(document: dict[str, Any], name: str) -> dict[str, Any]:
    """A message's schema with what its references name, and no more, as a document of its own."""
    payload = document["components"]["messages"][name]["payload"]
    schemas: dict[str, Any] = {}
    wanted = _references(payload)
    while wanted:
        named = wanted.pop()
        # One that leads nowhere is found out where the schema is compared with another.
        if named not in schemas and named in document["components"].get("schemas", {}):
            schemas[named] = document["components"]["schemas"][named]
            wanted |= _references(schemas[named])
    return {**payload, "components": {"schemas": schemas}}


def _references(node: Any) -> set[str]:
    """Of components/schemas, by name."""
    found = {node["$ref"].rpartition("/")[2]} if isinstance(node, dict) and isinstance(node.get("$ref"), str) else set()
    for one in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        found |= _references(one)
    return found


def _last(reference: str) -> str:
    """The name in Backstage's [kind:][namespace/]name."""
    return reference.rpartition(":")[2].rpartition("/")[2]
