"""The ways of arrows: out of a row, through the gutters between columns and the gaps between cards, into another row."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from fleet.map.stack import Gap, Stack

Port = tuple[str, bool]
"""A side of a row, and whether it is the right side."""


@dataclass(frozen=True)
class Link:
    """An arrow from a row to a row. Arrows with the same `bundle` share their way. `label` is the width of the arrow's label."""

    source: str
    target: str
    bundle: Hashable
    label: float = 0.0


@dataclass(eq=False)
class Way:
    """The common way of links. A gutter has the number of the column at its right, and between two gutters is a gap.

    If both rows are in one column, the way leaves and enters at the right. `heights` are the heights of the lines in the gaps.
    """

    gutters: Sequence[int]
    leaves_right: bool
    enters_right: bool
    gaps: list[Gap] = field(default_factory=list)
    heights: list[float] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)

    @property
    def ends(self) -> Iterable[tuple[Port, bool]]:
        """Each port at which the way starts (False) or arrives (True)."""
        sources = dict.fromkeys(link.source for link in self.links)
        targets = dict.fromkeys(link.target for link in self.links)
        return (
            *(((row, self.leaves_right), False) for row in sources),
            *(((row, self.enters_right), True) for row in targets),
        )


Line = tuple[Way, bool]
"""A way at one of its ports, and whether it arrives there."""


def find_ways(links: Iterable[Link], column_of: Mapping[str, int]) -> dict[Link, Way]:
    """Return the way of each link."""
    ways: dict[Hashable, Way] = {}
    of: dict[Link, Way] = {}
    for link in links:
        start, end = column_of[link.source], column_of[link.target]
        if start == end:
            way = Way([start + 1], leaves_right=True, enters_right=True)
        elif start < end:
            way = Way(range(start + 1, end + 1), leaves_right=True, enters_right=False)
        else:
            way = Way(range(start, end, -1), leaves_right=False, enters_right=True)
        of[link] = ways.setdefault((link.bundle, start, end), way)
        of[link].links.append(link)
    return of


def choose_gaps(ways: Iterable[Way], stack: Stack) -> dict[Gap, list[Way]]:
    """Choose the gaps of each way near the straight line between its ends. Return the ways through each gap from top to bottom."""
    through: dict[Gap, list[tuple[float, int, Way]]] = defaultdict(list)
    for order, way in enumerate(ways):
        columns = [min(pair) for pair in zip(way.gutters, way.gutters[1:], strict=False)]
        y = fmean(stack.middle(link.source) for link in way.links)
        end = fmean(stack.middle(link.target) for link in way.links)
        ys = [y]
        for number, column in enumerate(columns):
            wanted = y + (end - y) / (len(columns) - number + 1)
            gap = min(stack.gaps(column), key=lambda one, wanted=wanted: abs(stack.line(one) - wanted))
            y = stack.line(gap)
            way.gaps.append(gap)
            ys.append(y)
        for gap, before, after in zip(way.gaps, ys, [*ys[2:], end], strict=False):
            through[gap].append((before + after, order, way))
    return {gap: [way for *_, way in sorted(there, key=lambda one: one[:2])] for gap, there in through.items()}


def find_ports(ways: Iterable[Way]) -> dict[Port, list[Line]]:
    """Return the lines at each port."""
    ports: dict[Port, list[Line]] = defaultdict(list)
    for way in ways:
        for port, arrives in way.ends:
            ports[port].append((way, arrives))
    return ports


def port_heights(ports: Mapping[Port, list[Line]], stack: Stack, distance: float) -> dict[tuple[Port, Line], float]:
    """Return the height of each line at its port. The lines of a port are sorted by the height to which they lead."""
    heights: dict[tuple[Port, Line], float] = {}
    for port, lines in ports.items():
        row, _ = port
        step = min(distance, (stack.rows[row][1] - 6) / len(lines))
        for number, line in enumerate(sorted(lines, key=lambda one, row=row: _leads_to(row, one, stack))):
            heights[port, line] = stack.middle(row) + (number - (len(lines) - 1) / 2) * step
    return heights


def _leads_to(row: str, line: Line, stack: Stack) -> float:
    way, arrives = line
    if way.heights:
        return way.heights[-1 if arrives else 0]
    others = [link.source for link in way.links if link.target == row] if arrives else []
    others = others or [link.target for link in way.links if link.source == row]
    return fmean(map(stack.middle, others))
