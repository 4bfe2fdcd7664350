"""The map as SVG: one file or a part of an HTML page, without script, for light and dark, with titles for screen readers."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib.resources import files
from itertools import pairwise
from xml.etree.ElementTree import Element, SubElement, tostring

from fleet.map.drawing import Arrow, arrows, describe_service, sentence
from fleet.map.layout import ROW, Layout, Point, layout
from fleet.map.model import Kind, Map, MapFinding

Box = tuple[float, float, float, float]

HEIGHT = 34
MARGIN = 24
# The approximate width of a letter. A box has room for a name that is a little wider.
LETTER = 7.4
GAP = 90
LABEL_GAP = 180
# With more arrows than this, a label shows only while the mouse points at its arrow.
LABELLED = 40
# The possible places of a label along its line, the best place first.
SPOTS = (0.5, 0.36, 0.64, 0.25, 0.75)
LABEL_LETTER = 6.2
LABEL_HEIGHT = 13
# The distance between two lines with the same ends.
LINE_GAP = 6
# The dashes of an arrow's line. Calls are solid.
DASHES = {"event": "7 4", "job": "2 4"}
LEGEND = (
    ("call", "calls, and waits for the answer"),
    ("event", "publishes an event"),
    ("job", "sends a job"),
    ("call wrong", "has an error"),
)
LEGEND_WIDTH = 820


def svg(map_: Map, found: Iterable[MapFinding], links: Mapping[str, str] | None = None) -> str:
    """Draw the map. `links` are the targets of clicks on services."""
    drawn = arrows(map_, found)
    names = {end for arrow in drawn for end in (arrow.source, arrow.target)}
    widths = {name: max(len(name) * LETTER + 28, 80) for name in map_.nodes}
    has_labels = len(drawn) <= LABELLED
    plan = layout(((one.source, one.target) for one in drawn), widths, LABEL_GAP if has_labels else GAP)
    places = plan.places | _alone([name for name in map_.nodes if name not in names], widths, plan)
    right = max((x + widths[name] / 2 for name, (x, _) in places.items()), default=0)
    bottom = max([plan.height, *(y + ROW / 2 for _, y in places.values())])
    width, height = max(right, LEGEND_WIDTH) + 2 * MARGIN, bottom + 2 * MARGIN + 40

    root = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "class": "fleet-map", "role": "graphics-document"})
    root.attrib |= {"viewBox": f"0 0 {width:.0f} {height:.0f}", "width": f"{width:.0f}", "height": f"{height:.0f}"}
    root.attrib |= {"aria-labelledby": "fleet-map-title fleet-map-words"}
    _text(root, "title", "Calls and messages between services", id="fleet-map-title")
    _text(root, "desc", sentence(map_), id="fleet-map-words")
    _text(root, "style", files("fleet.map").joinpath("svg.css").read_text(encoding="utf-8"))
    SubElement(root, "rect", {"class": "paper", "width": "100%", "height": "100%"})
    inside = SubElement(root, "g", {"transform": f"translate({MARGIN} {MARGIN})"})
    ends, offsets = _ends(drawn, plan, widths), _offsets(drawn)
    taken = [
        (x - widths[name] / 2, y - HEIGHT / 2, x + widths[name] / 2, y + HEIGHT / 2) for name, (x, y) in places.items()
    ]
    for arrow in drawn:
        bends = [(x, y + offsets[arrow]) for x, y in plan.routes[arrow.source, arrow.target]]
        _arrow(inside, arrow, [ends[arrow][0], *bends, ends[arrow][1]], arrow.label() if has_labels else "", taken)
    for name, place in places.items():
        _node(inside, name, place, widths[name], map_, (links or {}).get(name))
    _legend(inside, bottom + 30)
    return tostring(root, encoding="unicode") + "\n"


def _alone(names: list[str], widths: dict[str, float], plan: Layout) -> dict[str, Point]:
    """Place services without an edge in rows below the others."""
    line = max(900.0, (plan.columns or [0])[-1])
    x, y, places = 0.0, plan.height + ROW / 2, {}
    for name in names:
        if x and x + widths[name] > line:
            x, y = 0.0, y + ROW
        places[name] = (x + widths[name] / 2, y)
        x += widths[name] + 24
    return places


def _ends(drawn: list[Arrow], plan: Layout, widths: dict[str, float]) -> dict[Arrow, tuple[Point, Point]]:
    """Return the ends of each arrow.

    Arrows at one side of a node end below each other, in the order in which they come.
    """
    sides: dict[tuple[str, bool], list[tuple[float, int, Arrow]]] = defaultdict(list)
    for arrow in drawn:
        route = [plan.places[arrow.source], *plan.routes[arrow.source, arrow.target], plan.places[arrow.target]]
        to_right = route[-1][0] > route[0][0]
        sides[arrow.source, to_right].append((route[1][1], 0, arrow))
        sides[arrow.target, not to_right].append((route[-2][1], 1, arrow))
    found: dict[Arrow, list[Point]] = defaultdict(lambda: [(0, 0), (0, 0)])
    for (name, is_right), there in sides.items():
        x, y = plan.places[name]
        step = min(9, (HEIGHT - 8) / len(there))
        for number, (_, end, arrow) in enumerate(sorted(there, key=lambda one: one[0])):
            offset = (number - (len(there) - 1) / 2) * step
            found[arrow][end] = (x + (widths[name] / 2 if is_right else -widths[name] / 2), y + offset)
    return {arrow: (start, end) for arrow, (start, end) in found.items()}


def _offsets(drawn: list[Arrow]) -> dict[Arrow, float]:
    """The distance of each arrow from the route that it shares with other arrows between the same two services."""
    same: dict[frozenset[str], list[Arrow]] = defaultdict(list)
    for arrow in drawn:
        same[frozenset((arrow.source, arrow.target))].append(arrow)
    return {arrow: (n - (len(all_) - 1) / 2) * LINE_GAP for all_ in same.values() for n, arrow in enumerate(all_)}


def _arrow(parent: Element, arrow: Arrow, points: list[Point], label: str, taken: list[Box]) -> None:
    group = SubElement(parent, "g", {"class": f"arrow {arrow.kind}{' wrong' if arrow.is_wrong else ''}", "role": "img"})
    verb = {Kind.CALL: "calls", Kind.EVENT: "sends an event to", Kind.JOB: "sends a job to"}[arrow.kind]
    _text(
        group,
        "title",
        f"{arrow.source} {verb} {arrow.target}: {', '.join(arrow.names)}{' (error)' if arrow.is_wrong else ''}",
    )
    side = 1 if points[-1][0] > points[0][0] else -1
    (x, y) = points[-1]
    path = _curve([*points[:-1], (x - 8 * side, y)])
    # The wide path is invisible, and makes it easy to point at the line.
    SubElement(group, "path", {"class": "wide", "d": path})
    _line(group, arrow.kind, path)
    head = f"{x:.1f},{y:.1f} {x - 9 * side:.1f},{y - 4:.1f} {x - 9 * side:.1f},{y + 4:.1f}"
    SubElement(group, "polygon", {"points": head})
    label = "✕ " * arrow.is_wrong + _short(label)
    if label and (spot := _spot(points, label, taken)):
        _text(group, "text", label, x=f"{spot[0]:.1f}", y=f"{spot[1] + 3:.1f}")


def _line(group: Element, kind: str, path: str) -> None:
    dashes = {"stroke-dasharray": DASHES[kind]} if kind in DASHES else {}
    SubElement(group, "path", {"class": "line", "d": path, **dashes})


def _spot(points: list[Point], label: str, taken: list[Box]) -> Point | None:
    """Find a place on the line where the label covers nothing; None if there is no such place."""
    half = len(label) * LABEL_LETTER / 2
    for part in SPOTS:
        for (x, y), (next_x, next_y) in pairwise(points):
            # The same curve as that of `_curve`.
            at_x = x + (next_x - x) * (1.5 * part * (1 - part) + part**3)
            at_y = y + (next_y - y) * part**2 * (3 - 2 * part)
            box = (at_x - half, at_y - LABEL_HEIGHT / 2, at_x + half, at_y + LABEL_HEIGHT / 2)
            if not any(_overlap(box, other) for other in taken):
                taken.append(box)
                return at_x, at_y
    return None


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _curve(points: list[Point]) -> str:
    """Draw a curve that is level at each point, so that it meets nodes at a right angle."""
    path = [f"M{points[0][0]:.1f},{points[0][1]:.1f}"]
    for (x, y), (next_x, next_y) in pairwise(points):
        middle = (x + next_x) / 2
        path.append(f"C{middle:.1f},{y:.1f} {middle:.1f},{next_y:.1f} {next_x:.1f},{next_y:.1f}")
    return " ".join(path)


def _node(parent: Element, name: str, place: Point, width: float, map_: Map, link: str | None) -> None:
    if link:
        parent = SubElement(parent, "a", {"href": link})
    kind = "service" if map_.nodes[name] else "service outside"
    group = SubElement(parent, "g", {"class": kind, "role": "img"})
    _text(group, "title", describe_service(map_, name))
    x, y = place
    box = {"x": x - width / 2, "y": y - HEIGHT / 2, "width": width, "height": HEIGHT, "rx": 7}
    SubElement(group, "rect", {key: f"{value:.1f}" for key, value in box.items()})
    _text(group, "text", name, x=f"{x:.1f}", y=f"{y + 4.5:.1f}")


def _legend(parent: Element, y: float) -> None:
    group = SubElement(parent, "g", {"class": "legend"})
    x = 0.0
    for kind, meaning in LEGEND:
        line = SubElement(group, "g", {"class": f"arrow {kind}"})
        _line(line, kind, f"M{x:.0f},{y:.0f} h32")
        SubElement(
            line, "polygon", {"points": f"{x + 40:.0f},{y:.0f} {x + 31:.0f},{y - 4:.0f} {x + 31:.0f},{y + 4:.0f}"}
        )
        text = f"✕ {meaning}" if "wrong" in kind else meaning
        _text(group, "text", text, x=f"{x + 48:.0f}", y=f"{y + 4:.0f}")
        x += 48 + len(text) * 6.6 + 24


def _short(label: str) -> str:
    return label if len(label) <= 24 else f"{label[:23]}…"


def _text(parent: Element, tag: str, text: str, **attributes: str) -> None:
    """Add an element with a text. Control characters are replaced, because XML cannot contain them, even as entities."""
    SubElement(parent, tag, attributes).text = "".join(
        one if one.isprintable() or one in "\n\t" else "�" for one in text
    )
