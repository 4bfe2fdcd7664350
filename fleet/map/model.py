"""The map: services, and the calls, events and jobs between them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from fleet.check.findings import Finding
from fleet.errors import FleetError
from fleet.map.clients import Client
from fleet.map.facts import Facts
from fleet.map.networks import Network
from fleet.service.asyncapi import Message


class Kind(StrEnum):
    """The kind of an edge between two services."""

    CALL = "call"
    EVENT = "event"
    JOB = "job"


@dataclass(frozen=True)
class Edge:
    """A call, an event or a job from `source` to `target`. `name` is the name of the API or the message.

    A call is `declared` in the caller's catalogue, `seen` in its code, or both. An open edge has only one end: no service here
    has the name of the other end.
    """

    kind: Kind
    source: str
    target: str
    name: str
    declared: bool = True
    seen: Client | None = None
    is_open: bool = False


class Map:
    """All services and the edges between them. The first of several services with the same name counts.

    `unread` are unreadable services with the reasons. `names` are the services' own names by their names in fleet.toml.
    `offered` are the API documents of services that others use, and `networks` the overlays of callers and of these services.
    `places` are the repositories and commits of services.
    """

    def __init__(
        self,
        services: Iterable[Facts],
        unread: Mapping[str, str] | None = None,
        names: Mapping[str, str] | None = None,
        offered: Mapping[str, Any] | None = None,
    ) -> None:
        self.offered = dict(offered or {})
        self.names = dict(names or {})
        self.places: dict[str, tuple[Path, str]] = {}
        self.networks: dict[str, list[Network]] = {}
        self.unread = dict(sorted((unread or {}).items()))
        self.services: dict[str, Facts] = {}
        self.repeated: list[str] = []
        for one in services:
            if self.services.setdefault(one.name, one) is not one:
                self.repeated.append(one.name)

    @cached_property
    def edges(self) -> list[Edge]:
        """All edges in the order of the services, without edges from a service to itself."""
        return [*self._calls(), *self._events(), *self._jobs()]

    def around(self, name: str) -> "Map":
        """Return the part of the map with one service and its neighbours.

        Raises FleetError if there is no such service.
        """
        if name not in self.nodes:
            raise FleetError(f"there is no {name} on the map: it has {', '.join(sorted(self.nodes))}")
        part = Map([], offered=self.offered)
        part.networks = self.networks
        part.edges = [edge for edge in self.edges if name in (edge.source, edge.target)]
        ends = {name, *(end for edge in part.edges for end in (edge.source, edge.target))}
        part.services = {end: self.services[end] for end in self.services if end in ends}
        return part

    def of(self, kind: Kind) -> list[Edge]:
        return [edge for edge in self.edges if edge.kind is kind]

    def call(self, caller: str, provider: str) -> tuple[Edge]:
        """Return the call between two services, as a tuple of one edge. A call that nobody has declared becomes an undeclared edge."""
        known = (edge for edge in self.of(Kind.CALL) if (edge.source, edge.target) == (caller, provider))
        return (next(known, Edge(Kind.CALL, caller, provider, provider, declared=False)),)

    @cached_property
    def nodes(self) -> dict[str, bool]:
        """The names of all services and all ends of edges, and whether each name is a service."""
        names = [*self.services, *(end for edge in self.edges for end in (edge.source, edge.target))]
        return {name: name in self.services for name in names}

    def senders(self, name: str) -> list[tuple[Facts, Message]]:
        return [(one, message) for one, message in self._messages() if message.name == name and message.sent]

    def receivers(self, name: str) -> list[tuple[Facts, Message]]:
        return [(one, message) for one, message in self._messages() if message.name == name and message.received]

    def message(self, service: str, name: str) -> Message:
        """Return the message of a service by its name. Raises StopIteration if the service has no such message."""
        return next(one for one in self.services[service].messages if one.name == name)

    def _messages(self) -> Iterator[tuple[Facts, Message]]:
        return ((one, message) for one in self.services.values() for message in one.messages)

    @cached_property
    def apis(self) -> list[str]:
        """The names of all APIs that a service provides, and of services that cannot be read."""
        return [*self._providers, *self.unread]

    @cached_property
    def _providers(self) -> dict[str, tuple[str, str]]:
        """The provider and the type of each API, by the name of the API."""
        return {api: (one.name, kind) for one in reversed(self.services.values()) for api, kind in one.apis.items()}

    def _calls(self) -> Iterator[Edge]:
        for one in self.services.values():
            seen: dict[str, Client] = {}
            for client in one.clients:
                if (target := self.service_of(client.target)) and target != one.name:
                    seen.setdefault(target, client)
            for api in one.consumes:
                # Consuming messages is not a call; the AsyncAPI documents cover it. In the template's catalogue, the name of an
                # API of messages ends in -messages.
                target, kind = self._providers.get(api, ("", "asyncapi" if api.endswith("-messages") else ""))
                if kind != "asyncapi" and target != one.name:
                    yield Edge(Kind.CALL, one.name, target or api, api, True, seen.pop(target, None), not target)
            yield from (Edge(Kind.CALL, one.name, target, target, False, client) for target, client in seen.items())

    def service_of(self, target: str) -> str | None:
        """Return the service that the name of a setting, of a host or of a file in specs/uses means."""
        provider, _ = self._providers.get(target, ("", ""))
        return provider or next((name for name in (target, f"{target}-service") if name in self.services), None)

    def _events(self) -> Iterator[Edge]:
        for one, message in self._messages():
            if message.kind == "event" and message.received and not message.sent:
                publishers = [publisher.name for publisher, _ in self.senders(message.name)]
                for name in publishers or [owner(message.name)]:
                    yield Edge(Kind.EVENT, name, one.name, message.name, is_open=not publishers)

    def _jobs(self) -> Iterator[Edge]:
        for one, message in self._messages():
            if message.kind == "job" and message.sent and not message.received:
                receivers = [receiver.name for receiver, _ in self.receivers(message.name)]
                for name in receivers or [owner(message.name)]:
                    yield Edge(Kind.JOB, one.name, name, message.name, is_open=not receivers)


def find_misspelt_name(written: str, names: Iterable[str]) -> str:
    """Find a name that differs from `written` by one edit, by letter case, by hyphens or by a suffix -service.

    Return an empty text if there is no such name. An edit adds, drops or replaces one character, or exchanges two. For a short
    name there is no search, because short names are often that similar, and both correct.
    """
    plain = _plain(written)
    similar = (name for name in names if name != written and _is_one_edit(plain, _plain(name)))
    return next(similar, "") if len(plain) > 3 else ""


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").removesuffix("-service").replace("-", "")


def _is_one_edit(one: str, other: str) -> bool:
    for _ in range(2):  # remove the common beginning, and in the reversed rest the common end
        equal = next(
            (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
        )
        one, other = one[equal:][::-1], other[equal:][::-1]
    return max(len(one), len(other)) <= 1 or (len(one) == 2 and one == other[::-1])


def owner(message: str) -> str:
    """Return the service in the name of a message. After two hyphens stands the queue of a job."""
    return message.partition(".")[0].partition("--")[0]


@dataclass(frozen=True)
class MapFinding:
    """A finding, the services that it concerns, and the edges that it is about.

    The first service has to act, and its repository has the finding's path.
    """

    services: tuple[str, ...]
    finding: Finding
    edges: tuple[Edge, ...] = ()

    @property
    def acting(self) -> tuple[str, ...]:
        """The services that have to act: the first service if the finding is about one edge, otherwise all."""
        return self.services[:1] if len(self.edges) == 1 else self.services
