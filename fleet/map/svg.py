"""The map as SVG: one file or a part of an HTML page, without script, for light and dark."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from itertools import pairwise
from math import sqrt
from xml.etree.ElementTree import Element, SubElement, tostring

from rich.cells import cell_len

from fleet.check.findings import Level
from fleet.map.cards import Card, cards
from fleet.map.drawing import Arrow, arrows, describe_service, numbered, printable, sentence, who
from fleet.map.layout import Box, Point
from fleet.map.model import Kind, Map, MapFinding
from fleet.map.plan import FAR_CELL, FAR_TITLE, MANY, label_of, plan_of, short
from fleet.output import count

MARGIN = 20

LABELLED = 40
"""In a drawing with more arrows than this, only the titles of arrows have the names of messages."""

CORNER = 6.0
HEAD_LENGTH = 7.0
# The dashes of an arrow's line. Calls are solid.
DASHES = {"event": "6 3", "job": "2 3"}
VERBS = {Kind.CALL: "calls", Kind.EVENT: "sends an event to", Kind.JOB: "sends a job to"}
LEGEND = (
    ("call", "calls, and waits for the answer"),
    ("event", "publishes an event"),
    ("job", "sends a job"),
    ("call wrong", "has an error, with the number of the finding"),
)
ON_A_PAGE = (("event bundle", "several arrows that share a way"),)
"""Further lines of the legend of a page, which has room for them."""

LEGEND_WIDTH = 1000

ROOM_FOR_NOTE = 110
"""A lower card has no room for the number of its services below the large title."""


def svg(map_: Map, found: Sequence[MapFinding], links: Mapping[str, str] | None = None) -> str:
    """Draw the map for a page if there are `links`, the targets of clicks on services; otherwise as a file of its own.

    A file of its own has a legend and the list of findings, which a page shows itself.
    """
    drawn = arrows(map_, found)
    all_cards = cards(map_)
    has_labels = len(drawn) <= LABELLED
    plan = plan_of(all_cards, drawn, has_labels=has_labels)
    is_alone = links is None
    listed = _lines(map_, found) if is_alone else []
    width = max(plan.width, LEGEND_WIDTH if is_alone else 0) + 2 * MARGIN
    height = plan.height + 2 * MARGIN + (34 + len(listed) * 18 if is_alone else 0)

    root = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "class": "fleet-map", "role": "graphics-document"})
    root.attrib |= {"viewBox": f"0 0 {width:.0f} {height:.0f}", "width": f"{width:.0f}", "height": f"{height:.0f}"}
    root.attrib |= {"aria-labelledby": "fleet-map-title fleet-map-words"}
    _text(root, "title", "Calls and messages between services", id="fleet-map-title")
    _text(root, "desc", sentence(map_), id="fleet-map-words")
    _text(root, "style", files("fleet.map").joinpath("svg.css").read_text(encoding="utf-8"))
    SubElement(root, "rect", {"class": "paper", "width": "100%", "height": "100%"})
    inside = SubElement(
        root, "g", {"transform": f"translate({MARGIN + (width - 2 * MARGIN - plan.width) / 2:.1f} {MARGIN})"}
    )
    for card, box in zip(all_cards, plan.cards, strict=True):
        _card(inside, card, box)
        if len(plan.rows) > MANY and box[3] > ROOM_FOR_NOTE:
            _note(inside, card, box)
    lines = SubElement(inside, "g", {"class": "arrows", "aria-hidden": "true"})
    routes = dict(zip(drawn, plan.routes, strict=True))
    _trunks(lines, routes)
    # An arrow with an error is drawn over all others.
    for arrow, route in sorted(routes.items(), key=lambda one: one[0].is_wrong):
        _arrow(lines, arrow, route, arrow.label() if has_labels else "")
    acting = {name for one in found if one.finding.level is Level.ERROR for name in one.acting}
    for name, box in plan.rows.items():
        kind = "service" + " outside" * (not map_.nodes[name]) + " acts" * (name in acting)
        _service(inside, name, box, kind, describe_service(map_, name), (links or {}).get(name))
    _badges(inside, numbered(found, drawn), routes)
    if is_alone:
        _below(root, plan.height + 2 * MARGIN + 8, listed)
    return tostring(root, encoding="unicode") + "\n"


def _below(root: Element, top: float, listed: Sequence[str]) -> None:
    """Draw the legend and the findings, which a page has next to the drawing."""
    below = SubElement(root, "g", {"transform": f"translate({MARGIN} {top:.0f})"})
    _legend(below)
    for number, line in enumerate(listed):
        _text(below, "text", line, **{"class": "finding", "x": "0", "y": f"{32 + number * 18}"})


def _card(parent: Element, card: Card, box: Box) -> None:
    x, y, width, height = box
    kind = "card outside" if card.is_outside else "card" if card.title else "card single"
    group = SubElement(parent, "g", {"class": kind})
    SubElement(group, "rect", _rect(x, y, width, height, 8))
    if card.title:
        shown = short(card.title)
        _text(group, "text", shown, **{"class": "title", "x": f"{x + 12:.1f}", "y": f"{y + 20:.1f}"})
        size = min(FAR_TITLE, (width - 12) / max(cell_len(shown) * FAR_CELL, 1))
        middle = {"x": f"{x + width / 2:.1f}", "y": f"{y + height / 2 + size * 0.35:.1f}", "font-size": f"{size:.1f}"}
        _text(group, "text", shown, **{"class": "far-title", **middle})


def _note(parent: Element, card: Card, box: Box) -> None:
    """Write the number of services below the large title of a card."""
    x, y, width, height = box
    place = {"x": f"{x + width / 2:.1f}", "y": f"{y + height / 2 + FAR_TITLE * 1.45:.1f}"}
    _text(parent, "text", count(len(card.names), "service"), **{"class": "far-note", **place})


def _rect(x: float, y: float, width: float, height: float, corner: float) -> dict[str, str]:
    return {
        key: f"{value:.1f}"
        for key, value in zip(("x", "y", "width", "height", "rx"), (x, y, width, height, corner), strict=True)
    }


def _trunks(parent: Element, routes: Mapping[Arrow, list[Point]]) -> None:
    """Draw the common part of each bundle, the wider the more arrows share it."""
    shared: dict[tuple[str, tuple[Point, ...]], int] = defaultdict(int)
    for arrow, route in routes.items():
        if not arrow.is_wrong and len(route) > 4:
            shared[arrow.kind, tuple(route[2:-2])] += 1
    for (kind, points), number in shared.items():
        if number > 1 and len(points) > 1:
            width = f"{min(1.2 + 0.8 * sqrt(number), 4):.1f}"
            SubElement(parent, "path", {"class": f"trunk {kind}", "d": _path(points), "stroke-width": width})


def _arrow(parent: Element, arrow: Arrow, route: list[Point], label: str) -> None:
    group = SubElement(parent, "g", {"class": f"arrow {arrow.kind}{' wrong' if arrow.is_wrong else ''}"})
    _data(group, from_=arrow.source, to=arrow.target, names=", ".join(arrow.names))
    error = " (error)" if arrow.is_wrong else ""
    _text(group, "title", f"{arrow.source} {VERBS[arrow.kind]} {arrow.target}: {', '.join(arrow.names)}{error}")
    (x, y), side = route[-1], 1 if route[-1][0] > route[-2][0] else -1
    path = _path([*route[:-1], (x - (HEAD_LENGTH - 1) * side, y)])
    # The wide path is invisible, and makes it easy to point at the line.
    SubElement(group, "path", {"class": "wide", "d": path})
    _line(group, arrow.kind, path)
    _head(group, x, y, side)
    if label:
        anchor = "end" if side > 0 else "start"
        place = {"x": f"{x - (HEAD_LENGTH + 4) * side:.1f}", "y": f"{y + 3.5:.1f}", "text-anchor": anchor}
        _text(group, "text", label_of(arrow), **place)


def _line(group: Element, kind: str, path: str) -> None:
    dashes = {"stroke-dasharray": DASHES[kind]} if kind in DASHES else {}
    SubElement(group, "path", {"class": "line", "d": path, **dashes})


def _head(group: Element, x: float, y: float, side: int) -> None:
    back = x - HEAD_LENGTH * side
    SubElement(group, "polygon", {"points": f"{x:.1f},{y:.1f} {back:.1f},{y - 3.5:.1f} {back:.1f},{y + 3.5:.1f}"})


def _path(points: Sequence[Point]) -> str:
    """Draw straight lines with round corners."""
    path = [f"M{points[0][0]:.1f},{points[0][1]:.1f}"]
    for before, here, after in zip(points, points[1:], points[2:], strict=False):
        start, end = _towards(here, before), _towards(here, after)
        path.append(f"L{start[0]:.1f},{start[1]:.1f}Q{here[0]:.1f},{here[1]:.1f} {end[0]:.1f},{end[1]:.1f}")
    path.append(f"L{points[-1][0]:.1f},{points[-1][1]:.1f}")
    return "".join(path)


def _towards(here: Point, other: Point) -> Point:
    """Return the point on the way to the other point where a round corner begins."""
    across, down = other[0] - here[0], other[1] - here[1]
    length = abs(across) + abs(down)
    part = min(CORNER, length / 2) / length if length else 0
    return here[0] + across * part, here[1] + down * part


def _service(parent: Element, name: str, box: Box, kind: str, words: str, link: str | None) -> None:
    x, y, width, height = box
    group = SubElement(parent, "a", {"href": link, "class": kind}) if link else SubElement(parent, "g", {"class": kind})
    _data(group, name=name)
    _text(group, "title", words)
    SubElement(group, "rect", _rect(x + 4, y + 1, width - 8, height - 2, 5))
    _text(group, "text", short(name), x=f"{x + 12:.1f}", y=f"{y + height / 2 + 4.5:.1f}")


def _badges(parent: Element, numbers: Mapping[Arrow, Sequence[int]], routes: Mapping[Arrow, list[Point]]) -> None:
    """Put the numbers of findings on their arrows, each in the middle of the longest free part."""
    taken: list[Box] = []
    for arrow, found in numbers.items():
        text = " ".join(map(str, found))
        half = 5 + len(text) * 3.7
        spots = [
            (x + (to_x - x) * part, y + (to_y - y) * part)
            for (x, y), (to_x, to_y) in sorted(
                pairwise(routes[arrow]), key=lambda one: -abs(one[0][0] - one[1][0]) - abs(one[0][1] - one[1][1])
            )
            for part in (0.5, 0.3, 0.7, 0.15, 0.85)
        ]
        # There is room for a badge of twice this size, which a page shows if the whole drawing is small.
        boxes = [(x - 2 * half, y - 16, x + 2 * half, y + 16) for x, y in spots]
        box = next((one for one in boxes if not any(_overlap(one, other) for other in taken)), None)
        if box is None:
            continue
        taken.append(box)
        kind = "badge wrong" if arrow.is_wrong else "badge"
        group = SubElement(parent, "g", {"class": kind, "aria-hidden": "true"})
        _data(group, from_=arrow.source, to=arrow.target)
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        SubElement(group, "rect", _rect(x - half, y - 8, 2 * half, 16, 8))
        _text(group, "text", text, x=f"{x:.1f}", y=f"{y + 4:.1f}")


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _legend(parent: Element) -> None:
    group = SubElement(parent, "g", {"class": "legend"})
    x = 0.0
    for kind, meaning in LEGEND:
        line = SubElement(group, "g", {"class": f"arrow {kind}"})
        _line(line, kind, f"M{x:.0f},0 h32")
        _head(line, x + 40, 0, 1)
        _text(group, "text", meaning, x=f"{x + 48:.0f}", y="4")
        x += 48 + len(meaning) * 7.2 + 24


def _lines(map_: Map, found: Iterable[MapFinding]) -> list[str]:
    """Return the findings of arrows as lines, for a drawing without a list next to the drawing."""
    return [
        short(f"{number}  {' '.join(word for word, _ in who(map_, one))}: {one.finding.reason}", LEGEND_WIDTH // 7)
        for number, one in enumerate(found, 1)
        if one.edges and one.finding.level is not Level.WAIVED
    ]


def _text(parent: Element, tag: str, text: str, **attributes: str) -> None:
    SubElement(parent, tag, attributes).text = printable(text)


def _data(element: Element, **values: str) -> None:
    element.attrib |= {f"data-{name.rstrip('_')}": printable(value) for name, value in values.items()}
