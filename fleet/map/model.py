"""The map: services, and who asks or tells whom."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from fleet.check.findings import Finding
from fleet.errors import FleetError
from fleet.map.calls import Client
from fleet.map.facts import Facts, Message


class Kind(StrEnum):
    """How one service has to do with another."""

    CALL = "call"
    EVENT = "event"
    JOB = "job"


@dataclass(frozen=True)
class Edge:
    """`source` asks `target`, or tells it something. `name` is of the API or the message.

    A call is `declared` by the catalogue of who makes it, `seen` in its code, or both. What is `open` has only one end: the
    other is a name, which no service here answers to.
    """

    kind: Kind
    source: str
    target: str
    name: str
    declared: bool = True
    seen: Client | None = None
    is_open: bool = False


class Map:
    """All edges between services, from what each says of itself. Of two services with one name the first counts.

    `unread` are those that cannot be read, and why. `names` are the services' own names by the names they are listed under.
    """

    def __init__(
        self,
        services: Iterable[Facts],
        unread: Mapping[str, str] | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.names = dict(names or {})
        self.unread = dict(sorted((unread or {}).items()))
        self.services: dict[str, Facts] = {}
        self.repeated: list[str] = []
        for one in services:
            if self.services.setdefault(one.name, one) is not one:
                self.repeated.append(one.name)

    @cached_property
    def edges(self) -> list[Edge]:
        """In the order of the services, without what a service does for itself."""
        return [*self._calls(), *self._events(), *self._jobs()]

    def around(self, name: str) -> "Map":
        """A service and those that it has to do with. Raises FleetError if there is none of that name."""
        if name not in self.nodes:
            raise FleetError(f"there is no {name} on the map: it has {', '.join(sorted(self.nodes))}")
        part = Map([])
        part.edges = [edge for edge in self.edges if name in (edge.source, edge.target)]
        ends = {name, *(end for edge in part.edges for end in (edge.source, edge.target))}
        part.services = {end: self.services[end] for end in self.services if end in ends}
        return part

    def of(self, kind: Kind) -> list[Edge]:
        return [edge for edge in self.edges if edge.kind is kind]

    @cached_property
    def nodes(self) -> dict[str, bool]:
        """The name of everything that has an edge or is a service, and whether it is one of the services."""
        names = [*self.services, *(end for edge in self.edges for end in (edge.source, edge.target))]
        return {name: name in self.services for name in names}

    def senders(self, name: str) -> list[tuple[Facts, Message]]:
        return [(one, message) for one, message in self._messages() if message.name == name and message.sent]

    def takers(self, name: str) -> list[tuple[Facts, Message]]:
        return [(one, message) for one, message in self._messages() if message.name == name and message.taken]

    def message(self, service: str, name: str) -> Message:
        """Raises StopIteration if the service has no such message."""
        return next(one for one in self.services[service].messages if one.name == name)

    def _messages(self) -> Iterator[tuple[Facts, Message]]:
        return ((one, message) for one in self.services.values() for message in one.messages)

    @cached_property
    def apis(self) -> list[str]:
        """The names of all APIs that a service provides, and of services that cannot be read."""
        return [*self._providers, *self.unread]

    @cached_property
    def _providers(self) -> dict[str, tuple[str, str]]:
        """The service that provides an API, and the API's type, by its name."""
        return {api: (one.name, kind) for one in reversed(self.services.values()) for api, kind in one.apis.items()}

    def _calls(self) -> Iterator[Edge]:
        for one in self.services.values():
            seen: dict[str, Client] = {}
            for client in one.clients:
                if (target := self._service(client.target)) and target != one.name:
                    seen.setdefault(target, client)
            for api in one.consumes:
                # Messages are taken without asking anybody, and documents say better which. The template names their API so.
                target, kind = self._providers.get(api, ("", "asyncapi" if api.endswith("-messages") else ""))
                if kind != "asyncapi" and target != one.name:
                    yield Edge(Kind.CALL, one.name, target or api, api, True, seen.pop(target, None), not target)
            yield from (Edge(Kind.CALL, one.name, target, target, False, client) for target, client in seen.items())

    def _service(self, said: str) -> str | None:
        """Who is meant by the name of a setting or a host."""
        provider, _ = self._providers.get(said, ("", ""))
        return provider or next((name for name in (said, f"{said}-service") if name in self.services), None)

    def _events(self) -> Iterator[Edge]:
        for one, message in self._messages():
            if message.kind == "event" and message.taken and not message.sent:
                publishers = [publisher.name for publisher, _ in self.senders(message.name)]
                for name in publishers or [owner(message.name)]:
                    yield Edge(Kind.EVENT, name, one.name, message.name, is_open=not publishers)

    def _jobs(self) -> Iterator[Edge]:
        for one, message in self._messages():
            if message.kind == "job" and message.sent and not message.taken:
                doers = [doer.name for doer, _ in self.takers(message.name)]
                for name in doers or [owner(message.name)]:
                    yield Edge(Kind.JOB, one.name, name, message.name, is_open=not doers)


def misspelt(said: str, names: Iterable[str]) -> str:
    """The name that differs from `said` by one edit, by letter case, by hyphens or by a suffix -service; or an empty text.

    An edit adds, drops or replaces one character, or exchanges two. Short names are often that near, and both right.
    """
    mine = _plain(said)
    alike = (name for name in names if name != said and _is_one_edit(mine, _plain(name)))
    return next(alike, "") if len(mine) > 3 else ""


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").removesuffix("-service").replace("-", "")


def _is_one_edit(one: str, other: str) -> bool:
    for _ in range(2):  # what both begin with, and turned round what both end with
        equal = next(
            (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
        )
        one, other = one[equal:][::-1], other[equal:][::-1]
    return max(len(one), len(other)) <= 1 or (len(one) == 2 and one == other[::-1])


def owner(message: str) -> str:
    """The service in a message's name."""
    return message.partition(".")[0]


@dataclass(frozen=True)
class Found:
    """A finding, and whom it concerns: first who has to act, whose repository has the finding's path.

    `edges` are those that it is about, if it is about any.
    """

    services: tuple[str, ...]
    finding: Finding
    edges: tuple[Edge, ...] = ()

    @property
    def acting(self) -> tuple[str, ...]:
        """The services that have to act: of one edge its first service, of anything else all."""
        return self.services[:1] if len(self.edges) == 1 else self.services
