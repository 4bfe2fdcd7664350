"""The arrows and words that both kinds of drawing show."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fleet.check.findings import Level
from fleet.map.model import Edge, Kind, Map, MapFinding
from fleet.output import count


@dataclass(frozen=True)
class Arrow:
    """An arrow for all edges of one kind from one service to another. `is_wrong`: an edge has a finding that is an error."""

    kind: Kind
    source: str
    target: str
    names: tuple[str, ...]
    is_wrong: bool

    def label(self) -> str:
        """Return a short label: a message without the name of its service.

        The result is empty for a call that is named after its target.
        """
        if self.kind is Kind.CALL and self.names == (self.target,):
            return ""
        first, *others = (name if self.kind is Kind.CALL else name.partition(".")[2] or name for name in self.names)
        return f"{first} +{len(others)}" if others else first


def arrows(map_: Map, found: Iterable[MapFinding]) -> list[Arrow]:
    """Combine the edges between two services into one arrow for each kind."""
    wrong = {edge for one in found if one.finding.level is Level.ERROR for edge in one.edges}
    together: dict[tuple[Kind, str, str], list[Edge]] = {}
    for edge in (edge for edge in map_.edges if edge.source != edge.target):
        together.setdefault((edge.kind, edge.source, edge.target), []).append(edge)
    return [
        Arrow(*key, tuple(dict.fromkeys(edge.name for edge in edges)), any(edge in wrong for edge in edges))
        for key, edges in together.items()
    ]


def printable(text: str) -> str:
    """Replace control characters, because XML cannot contain them, even as entities."""
    return "".join(one if one.isprintable() or one in "\n\t" else "�" for one in text)


def numbered(found: Sequence[MapFinding], drawn: Iterable[Arrow]) -> dict[Arrow, list[int]]:
    """Return the numbers of the findings at each arrow, in the order of the list of findings, which begins with 1."""
    at: dict[tuple[Kind, str, str], list[int]] = {}
    for number, one in enumerate(found, 1):
        for edge in one.edges if one.finding.level is not Level.WAIVED else ():
            numbers = at.setdefault((edge.kind, edge.source, edge.target), [])
            numbers += [number] if number not in numbers else []
    return {arrow: at[key] for arrow in drawn if (key := (arrow.kind, arrow.source, arrow.target)) in at}


def who(map_: Map, one: MapFinding) -> list[tuple[str, bool]]:
    """Return the words of a sentence that names who breaks whom, and whether each word is a service of the drawing."""
    between = "breaks" if one.finding.id.endswith("-unfit") else "and"
    words = [word for name in one.services for word in ((between, False), (name, name in map_.nodes))]
    return words[1:]


def sentence(map_: Map) -> str:
    """Return the map in numbers."""
    calls, events, jobs = (map_.of(kind) for kind in Kind)
    parts = (
        count(len(map_.services), "service"),
        count(len({(one.source, one.target) for one in calls}), "call"),
        count(len({one.name for one in events}), "event"),
        count(len({one.name for one in jobs}), "job"),
    )
    return f"{', '.join(parts[:-1])} and {parts[-1]} between them"


def describe_service(map_: Map, name: str) -> str:
    """Describe a service in words, for a person who points at it or cannot see the drawing."""
    one = map_.services.get(name)
    if one is None:
        return f"{name}: not among the services of this map"
    parts = [f"{name}: {count(one.operations, 'operation')}"]
    for verb, names in (
        ("calls", [edge.target for edge in map_.of(Kind.CALL) if edge.source == name]),
        ("is called by", [edge.source for edge in map_.of(Kind.CALL) if edge.target == name]),
        ("publishes", [message.name for message in one.messages if message.kind == "event" and message.sent]),
        ("listens to", [message.name for message in one.messages if message.kind == "event" and message.received]),
        ("sends", [message.name for message in one.messages if message.kind == "job" and message.sent]),
        ("processes", [message.name for message in one.messages if message.kind == "job" and message.received]),
    ):
        if names:
            parts.append(f"{verb} {', '.join(dict.fromkeys(names))}")
    return "; ".join(parts)
