"""Place cards in columns, and lead the arrows of a bundle on one common way through the space between the cards.

The words of the map's geometry, which its other modules use too:

             gutter 1                  gutter 2
    column 0          column 1                   column 2
    ┌────────┐        ┌──────────┐               ┌────────┐
    │ card   │        │ card     │               │ card   │
    │  row a─┼───┐    └──────────┘         ┌─────┼→ row d │
    │  row b─┼───┤                         │     └────────┘
    │  row c │   └─────────────────────────┘
    └────────┘   ↑    ┌──────────┐ ↑ gap   ↑ lane
                lane  │ card     │

- A card has a row for each of its services. A port is the left or the right side of a row, where lines start and arrive.
- A link is an arrow from a row to a row. Links of one bundle share a way: they join after their ports, and part before them.
- A gutter is the space at the left of the column with the same number; one more is at the right of the last column.
- A way goes up or down in gutters. Each vertical line there is in a lane, and lines that would meet are in different lanes.
- A way crosses a column through a gap: the space between two cards, above the first card or below the last card.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fleet.map.arrange import Columns, arrange
from fleet.map.gutters import Part, place, verticals
from fleet.map.stack import AIR, CardSize, Stack
from fleet.map.ways import Line, Link, Port, Way, choose_gaps, find_ports, find_ways, port_heights

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""A rectangle: the left side, the top, the width and the height."""

PORT = 4.0
"""The distance of two lines that end at the same side of a row, if they have no labels."""


@dataclass(frozen=True)
class Layout:
    """The boxes of cards and rows, and the corners of each link's way from its source to its target."""

    cards: list[Box]
    rows: dict[str, Box]
    routes: list[list[Point]]
    width: float
    height: float


def layout(cards: Sequence[CardSize], links: Sequence[Link], distance: float = PORT) -> Layout:
    """Place the cards and the links. The ends of a link are different rows; `distance` is between lines at one side of a row."""
    columns = _columns(cards, links)
    column_of = {row: number for number, column in enumerate(columns) for card in column for row in cards[card].rows}
    way_of = find_ways(links, column_of)
    ways = list(dict.fromkeys(way_of.values()))
    ports = find_ports(ways)
    rows = _row_heights(cards, ports, distance)
    through = choose_gaps(ways, Stack(cards, columns, rows, {}))
    stack = Stack(cards, columns, rows, {gap: len(there) for gap, there in through.items()})
    for way in ways:
        way.heights = [stack.line(gap, through[gap].index(way)) for gap in way.gaps]
    heights = port_heights(ports, stack, distance)
    widths = [max(cards[card].width for card in column) for column in columns]
    lefts, lanes, width = place(widths, verticals(ways, heights), _labels(ways))
    boxes = {row: (lefts[at], stack.rows[row][0], widths[at], stack.rows[row][1]) for row, at in column_of.items()}
    routes = [_route(link, way_of[link], boxes, lanes, heights) for link in links]
    placed = {
        card: (lefts[at], stack.cards[card][0], widths[at], stack.cards[card][1])
        for at, column in enumerate(columns)
        for card in column
    }
    return _from_zero([placed[card] for card in range(len(cards))], boxes, routes, width)


def _columns(cards: Sequence[CardSize], links: Iterable[Link]) -> Columns:
    card_of = {row: number for number, card in enumerate(cards) for row in card.rows}
    between = Counter((card_of[link.source], card_of[link.target]) for link in links)
    weights = {pair: number for pair, number in between.items() if pair[0] != pair[1]}
    return arrange([(card.width, card.height(card.rows)) for card in cards], weights)


def _row_heights(cards: Sequence[CardSize], ports: Mapping[Port, list[Line]], distance: float) -> dict[str, float]:
    """Return the height of each row: enough for the lines at its busier side."""
    return {
        row: max(least, 6 + distance * max(len(ports.get((row, side), ())) for side in (False, True)))
        for card in cards
        for row, least in card.rows.items()
    }


def _labels(ways: Iterable[Way]) -> dict[tuple[int, bool], float]:
    """Return the width of the longest label at each side of each gutter. A label is at the end of its arrow."""
    widths: dict[tuple[int, bool], float] = defaultdict(float)
    for way in ways:
        side = way.gutters[-1], way.enters_right
        widths[side] = max(widths[side], *(link.label for link in way.links))
    return widths


def _route(
    link: Link,
    way: Way,
    boxes: Mapping[str, Box],
    lanes: Mapping[Part, float],
    heights: Mapping[tuple[Port, Line], float],
) -> list[Point]:
    left, _, width, _ = boxes[link.source]
    end_left, _, end_width, _ = boxes[link.target]
    y = heights[(link.source, way.leaves_right), (way, False)]
    end = heights[(link.target, way.enters_right), (way, True)]
    route = [(left + width * way.leaves_right, y)]
    for number, next_y in enumerate((*way.heights, end)):
        x = lanes[way, number]
        route += [(x, y), (x, next_y)]
        y = next_y
    return [*route, (end_left + end_width * way.enters_right, end)]


def _from_zero(cards: list[Box], rows: dict[str, Box], routes: list[list[Point]], width: float) -> Layout:
    """Move everything down so that nothing is above zero."""
    ys = [y for route in routes for _, y in route] + [y for _, top, _, height in cards for y in (top, top + height)]
    top = min(ys, default=0) - AIR / 2
    return Layout(
        [(x, y - top, width, height) for x, y, width, height in cards],
        {row: (x, y - top, width, height) for row, (x, y, width, height) in rows.items()},
        [[(x, y - top) for x, y in route] for route in routes],
        width,
        max(ys, default=0) - top + AIR / 2,
    )
