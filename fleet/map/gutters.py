"""The vertical lines between columns: their order from left to right, and their distances from the columns."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from fleet.map.stack import AIR, LANE
from fleet.map.ways import Line, Port, Way

Part = tuple[Way, int]
"""A way and the number of its gutter, counted from the source."""


@dataclass(frozen=True)
class Vertical:
    """A part of a way in a gutter, and the heights at which lines come to it from the left and from the right."""

    part: Part
    left: Sequence[float]
    right: Sequence[float]

    @property
    def low(self) -> float:
        return min((*self.left, *self.right))

    @property
    def high(self) -> float:
        return max((*self.left, *self.right))

    def order(self) -> tuple[int, float]:
        """Return the key to sort the lines of a gutter from left to right. In this order few lines cross each other.

        Lines that come back to the left are near the left column, the short ones nearer than the long ones.
        """
        if not self.right:
            return 0, self.high - self.low
        goes_down = fmean(self.right) > fmean(self.left)
        return 1, fmean(self.left) * (-1 if goes_down else 1)


def verticals(ways: Iterable[Way], heights: Mapping[tuple[Port, Line], float]) -> dict[int, list[Vertical]]:
    """Return the vertical lines of each gutter."""
    found: dict[int, list[Vertical]] = defaultdict(list)
    for way in ways:
        ends = [(arrives, heights[port, (way, arrives)]) for port, arrives in way.ends]
        starts, targets = ([y for arrives, y in ends if arrives is wanted] for wanted in (False, True))
        stops = [starts, *([y] for y in way.heights), targets]
        for number, gutter in enumerate(way.gutters):
            came, goes = stops[number], stops[number + 1]
            if way.leaves_right and way.enters_right:
                sides = [*came, *goes], []
            else:
                sides = (came, goes) if way.leaves_right else (goes, came)
            found[gutter].append(Vertical((way, number), *sides))
    return found


def lanes(lines: Iterable[Vertical]) -> dict[Part, int]:
    """Return the lane of each line, counted from the left. Lines in one lane do not meet."""
    found: dict[Part, int] = {}
    placed: list[tuple[Vertical, int]] = []
    for line in sorted(lines, key=Vertical.order):
        beside = (lane for other, lane in placed if other.low < line.high + LANE and line.low < other.high + LANE)
        found[line.part] = max(beside, default=-1) + 1
        placed.append((line, found[line.part]))
    return found


def place(
    widths: Sequence[float], gutters: Mapping[int, list[Vertical]], labels: Mapping[tuple[int, bool], float]
) -> tuple[list[float], dict[Part, float], float]:
    """Return the left sides of columns, the place of each vertical line, and the width of the drawing.

    `labels` are the widths of the longest labels, by the number of the gutter and whether the labels are at its left side.
    """
    lefts: list[float] = []
    places: dict[Part, float] = {}
    x = 0.0
    for gutter in range(len(widths) + 1):
        numbers = lanes(gutters.get(gutter, ()))
        start = x + labels.get((gutter, True), 0) + AIR
        places |= {part: start + number * LANE for part, number in numbers.items()}
        if numbers:
            x = start + max(numbers.values()) * LANE + AIR + labels.get((gutter, False), 0)
        elif 0 < gutter < len(widths):
            x += 2 * AIR
        if gutter < len(widths):
            lefts.append(x)
            x += widths[gutter]
    return lefts, places, x
