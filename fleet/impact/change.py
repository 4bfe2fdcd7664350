"""A service before and after a change, each time among the same other services."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from fleet.map.facts import Facts
from fleet.map.model import Edge, Kind, Map
from fleet.service.asyncapi import SPEC, path_of


@dataclass(frozen=True)
class State:
    """A service at one time: its facts for the map, and its API document."""

    facts: Facts
    api: Any = None


class Change:
    """The maps before and after a change, which differ only in the changed service."""

    def __init__(self, before: State, now: State, fleet: Map) -> None:
        self.own = now.facts.name
        self.fleet = fleet
        self.has_other_api = before.api != now.api
        # Both maps have the names from before and after the change, because a caller may still use a name that is removed.
        apis = {before.facts.name: "", **before.facts.apis, **now.facts.apis}
        self._names = {message.name for one in (before, now) for message in one.facts.messages}
        others = [
            replace(one, messages=tuple(message for message in one.messages if message.name in self._names))
            for one in fleet.services.values()
            if one.name not in (before.facts.name, self.own)
        ]
        self.before, self.now = (
            Map([replace(one.facts, name=self.own, apis=apis), *others], offered={self.own: one.api})
            for one in (before, now)
        )

    @cached_property
    def callers(self) -> list[tuple[str, str, Any]]:
        """The services that use this API: the caller, its name for this service, and the part that it uses."""
        return [
            (one.name, name, used)
            for one in self.now.services.values()
            for name, used in one.uses.items()
            if one.name != self.own and self.now.service_of(name) == self.own
        ]

    @property
    def untyped_callers(self) -> list[str]:
        """The services that call this service, and have committed no expectations."""
        typed = {caller for caller, _, _ in self.callers}
        calling = [edge.source for edge in self.now.of(Kind.CALL) if edge.target == self.own]
        return [name for name in dict.fromkeys(calling) if name not in typed]

    @property
    def reliant(self) -> list[str]:
        """The services whose expectations can be compared with this service."""
        edges = (edge for map_ in (self.before, self.now) for kind in (Kind.EVENT, Kind.JOB) for edge in map_.of(kind))
        users = [self.reliant_of(edge) for edge in edges if not edge.is_open and self.own in (edge.source, edge.target)]
        names = dict.fromkeys([*(caller for caller, _, _ in self.callers), *users])
        return [name for name in names if name != self.own]

    def reliant_of(self, edge: Edge) -> str:
        """Return the service that needs a message: the listener of an event, and the other end of a job."""
        return edge.source if edge.kind is Kind.JOB and edge.source != self.own else edge.target

    def has_changed(self, message: str) -> bool:
        """Return whether this service has the message, and had it before with another schema or not at all."""
        schemas = [
            [one.schema() for one in map_.services[self.own].messages if one.name == message]
            for map_ in (self.before, self.now)
        ]
        return bool(schemas[1]) and schemas[0] != schemas[1]

    def place(self, service: str, message: str) -> tuple[str, int]:
        """Return the file and the line in which a service describes a message."""
        for one in self.now.services[service].messages:
            if one.name == message:
                return (path_of(message), 0) if one.published else (SPEC, one.line)
        return SPEC, 0
