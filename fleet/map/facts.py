"""Read the facts about a service's neighbours from its repository, as small JSON that is cached for each commit."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

from fleet.errors import FleetError
from fleet.map.clients import Client, clients
from fleet.map.databases import Database, databases
from fleet.policy.approval import Approval
from fleet.policy.traits import find_traits
from fleet.service import asyncapi
from fleet.service.asyncapi import Message
from fleet.service.openapi import read as read_api
from fleet.service.service import Service
from fleet.service.waivers import ABSENT

CATALOG = "catalog-info.yaml"
USES = "specs/uses/"


@dataclass(frozen=True)
class MapWaiver:
    """A waiver of a convention, valid up to and including the day `until` (2027-03-01).

    The waiver is for one file of the service if there is a path, otherwise for the whole service.
    """

    id: str
    until: str
    description: str
    approver: str = ""
    path: str = ""

    def counts(self, approval: Approval, day: date) -> bool:
        """Return whether the waiver is valid on a day, by its own end and by the policy."""
        until = date.fromisoformat(self.until)
        is_void = approval.counts_on(day) and approval.object_to(self.approver, until, day)
        return until >= day and not is_void


@dataclass(frozen=True)
class Facts:
    """One service. `apis` are the types of the provided APIs by name; `consumes` are the consumed APIs in the catalogue."""

    name: str
    messages: tuple[Message, ...] = ()
    apis: dict[str, str] = field(default_factory=dict)
    consumes: tuple[str, ...] = ()
    clients: tuple[Client, ...] = ()
    databases: tuple[Database, ...] = ()
    # The types of the Resource entities in the catalogue, by name.
    resources: dict[str, str] = field(default_factory=dict)
    operations: int = 0
    # Whether the code has messages, and the document is missing.
    is_silent: bool = False
    waivers: tuple[MapWaiver, ...] = ()
    # The parts of other services' API documents that the service uses, by the names of these services.
    uses: dict[str, Any] = field(default_factory=dict)
    domain: str = ""
    owner: str = ""
    # The address of the template, whose policy decides about waivers.
    template: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> "Facts":
        """Read the output of `to_json`. Raises KeyError or TypeError for anything else."""
        kinds = {"messages": Message, "clients": Client, "databases": Database, "waivers": MapWaiver}
        lists: dict[str, Any] = {key: tuple(kind(**one) for one in written[key]) for key, kind in kinds.items()}
        whole: dict[str, Any] = written | lists | {"consumes": tuple(written["consumes"])}
        return cls(**whole)


def facts(service: Service) -> Facts:
    """Read the facts of a service without running its code. Raises FleetError if a file is malformed."""
    entities = [one for one in service.yaml(CATALOG) if isinstance(one, dict)]
    messages = asyncapi.read(service)
    api = read_api(service)
    try:
        component = next((one for one in entities if one.get("kind") == "Component"), {})
        spec = component.get("spec") or {}
        # The entity of a provided API may be in another repository, and then the type is not known.
        apis = dict.fromkeys(map(_last, spec.get("providesApis") or []), "") | _types(entities, "API")
        resources = _types(entities, "Resource")
        consumed = [_last(one) for one in spec.get("consumesApis") or []]
        depended = [_last(one) for one in spec.get("dependsOn") or [] if one.startswith("resource:")]
    except (AttributeError, KeyError, TypeError) as error:
        raise FleetError(f"{CATALOG} is not a catalogue of Backstage: {type(error).__name__} {error}") from None
    # The traits come from the recorded answers, because the map is read without the template.
    traits = find_traits(service.answers.values, entities, service.name)
    return Facts(
        service.name,
        tuple(messages or ()),
        apis,
        tuple(dict.fromkeys(consumed)),
        tuple(clients(service)),
        (*databases(service), *(Database("resource", name, CATALOG) for name in depended)),
        resources,
        len(api.operations) if api else 0,
        messages is None,
        tuple(_waivers(service)),
        {path.removeprefix(USES).removesuffix(".json"): service.json(path) for path in service.files(f"{USES}*.json")},
        traits.domain,
        traits.owner,
        service.answers.source,
    )


def _waivers(service: Service) -> Iterator[MapWaiver]:
    """Yield the waivers of conventions, without waivers that were granted for other content of their file."""
    for one in service.written_waivers.waivers:
        entry = service.tree.get(one.path)
        if one.id and (not one.path or one.content == (entry.blob if entry else ABSENT)):
            description = f"{one.reason} (until {one.expires}, {one.approver})"
            yield MapWaiver(one.id, one.expires.isoformat(), description, one.approver, one.path)


def _types(entities: list[dict[str, Any]], kind: str) -> dict[str, str]:
    """Return the spec.type of every entity of a kind, by name."""
    return {str(one["metadata"]["name"]): str(one["spec"]["type"]) for one in entities if one.get("kind") == kind}


def _last(reference: str) -> str:
    """Return the name in Backstage's [kind:][namespace/]name."""
    return reference.rpartition(":")[2].rpartition("/")[2]
