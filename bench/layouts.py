"""Compare the layout of the map with the layouts of elkjs and dagre, on fleets of 12, 40 and 200 services.

`.venv/bin/python -m bench.layouts`. elkjs lays out domains that contain services, by its layered algorithm with orthogonal lines.
In the row `elkjs, cards`, elkjs lays out cards with a port for each service. dagre lays out domains that contain services. Each
engine gets the same boxes and arrows as the layout of fleet. A crossing counts once for all arrows that share their way there.
The column `name` is the height in pixels of a name of 13 px when the whole drawing fits the window of a laptop, 968 x 668.
"""

import time
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from playwright.sync_api import Page

from fleet.map.cards import cards
from fleet.map.drawing import arrows
from fleet.map.plan import plan_of
from tests.fleet.map.fleets import fleet
from tests.support.browser import browser
from tests.support.leftovers import clean_up_after_this_process
from tests.support.npm import packed

ELK, DAGRE = "elkjs@0.12.1", "@dagrejs/dagre@3.1.3"
BOX = 968, 668
ROW, HEAD = 24, 30

Segment = tuple[float, float, float, float]

LAYOUT = {
    "elkjs": """async ([cards, arrows]) => {
        const elk = new ELK();
        const options = {"elk.algorithm": "layered", "elk.hierarchyHandling": "INCLUDE_CHILDREN", "elk.edgeRouting": "ORTHOGONAL",
            "elk.direction": "RIGHT", "elk.aspectRatio": "1.5", "elk.json.edgeCoords": "ROOT"};
        const done = await elk.layout({id: "root", layoutOptions: options,
            children: cards.map((card, number) => ({id: `card ${number}`, layoutOptions: {"elk.padding": "[top=30,left=8,bottom=8,right=8]"},
                children: card.names.map(name => ({id: name, width: card.width, height: 21}))})),
            edges: arrows.map(([source, target], number) => ({id: `e${number}`, sources: [source], targets: [target]}))});
        return {width: done.width, height: done.height, routes: done.edges.map(edge => edge.sections.flatMap(
            part => [part.startPoint, ...(part.bendPoints ?? []), part.endPoint]).map(point => [point.x, point.y]))};
    }""",
    "elkjs, cards": """async ([cards, arrows]) => {
        const elk = new ELK();
        const of = new Map(cards.flatMap((card, number) => card.names.map(name => [name, number])));
        const done = await elk.layout({id: "root", layoutOptions: {"elk.algorithm": "layered", "elk.edgeRouting": "ORTHOGONAL",
            "elk.direction": "RIGHT", "elk.aspectRatio": "1.5", "elk.layered.wrapping.strategy": "MULTI_EDGE", "elk.json.edgeCoords": "ROOT"},
            children: cards.map((card, number) => ({id: `card ${number}`, width: card.width, height: 38 + 24 * card.names.length,
                layoutOptions: {"elk.portConstraints": "FIXED_POS"},
                ports: card.names.flatMap((name, row) => [
                    {id: `in ${name}`, x: 0, y: 42 + 24 * row, layoutOptions: {"elk.port.side": "WEST"}},
                    {id: `out ${name}`, x: card.width, y: 42 + 24 * row, layoutOptions: {"elk.port.side": "EAST"}}])})),
            edges: arrows.map(([source, target], number) => ({id: `e${number}`, sources: [`out ${source}`], targets: [`in ${target}`]}))});
        return {width: done.width, height: done.height, routes: done.edges.map(edge => edge.sections.flatMap(
            part => [part.startPoint, ...(part.bendPoints ?? []), part.endPoint]).map(point => [point.x, point.y]))};
    }""",
    "dagre": """async ([cards, arrows]) => {
        const graph = new dagre.graphlib.Graph({compound: true, multigraph: true});
        graph.setGraph({rankdir: "LR", nodesep: 8, edgesep: 5});
        graph.setDefaultEdgeLabel(() => ({}));
        cards.forEach((card, number) => {
            graph.setNode(`card ${number}`, {});
            for (const name of card.names) {
                graph.setNode(name, {width: card.width, height: 21});
                graph.setParent(name, `card ${number}`);
            }
        });
        arrows.forEach(([source, target], number) => graph.setEdge(source, target, {}, `e${number}`));
        dagre.layout(graph);
        const done = graph.graph();
        return {width: done.width, height: done.height,
            routes: graph.edges().map(edge => graph.edge(edge).points.map(point => [point.x, point.y]))};
    }""",
}


def main() -> None:
    clean_up_after_this_process()
    scripts = {"elkjs": packed(ELK, "lib/elk.bundled.js"), "dagre": packed(DAGRE, "dist/dagre.min.js")}
    for name, script in scripts.items():
        print(f"{name}: {script.stat().st_size / 1000:.0f} kB")
    with browser() as chromium:
        page = chromium.new_page()
        for script in scripts.values():
            page.add_script_tag(path=script)
        for size in (12, 40, 200):
            compare(page, size)


def compare(page: Page, size: int) -> None:
    map_ = fleet(size)
    drawn, all_cards = arrows(map_, []), cards(map_)
    start = time.process_time()
    ours = plan_of(all_cards, drawn, has_labels=False)
    show(f"{size}, ours", ours.width, ours.height, ours.routes, time.process_time() - start)
    given = [{"names": card.names, "width": 28 + 7.9 * max(map(len, card.names))} for card in all_cards]
    for name, script in LAYOUT.items():
        start = time.perf_counter()
        try:
            done: Any = page.evaluate(script, [given, [[one.source, one.target] for one in drawn]])
        except Exception as error:
            print(f"{size}, {name}: {str(error).splitlines()[0]}")
            continue
        show(f"{size}, {name}", done["width"], done["height"], done["routes"], time.perf_counter() - start)


def show(name: str, width: float, height: float, routes: Iterable[Any], seconds: float) -> None:
    segments = list({(*one, *other) for route in routes for one, other in pairwise(map(tuple, route)) if one != other})
    length = sum(abs(x - to_x) + abs(y - to_y) for x, y, to_x, to_y in segments)
    scale = min(BOX[0] / width, BOX[1] / height)
    print(
        f"{name:<20} {width:>6.0f} x {height:<6.0f} name {13 * scale:4.1f} px  {crossings(segments):>6} crossings  "
        f"{length / 1000:>5.0f} thousand px of lines  {seconds:5.2f} s"
    )


def crossings(segments: list[Segment]) -> int:
    return sum(_cross(one, other) for number, one in enumerate(segments) for other in segments[number + 1 :])


def _cross(one: Segment, other: Segment) -> bool:
    a, b, c, d = one[:2], one[2:], other[:2], other[2:]
    return _side(a, b, c) * _side(a, b, d) < 0 and _side(c, d, a) * _side(c, d, b) < 0


def _side(a: tuple[float, ...], b: tuple[float, ...], point: tuple[float, ...]) -> float:
    return (b[0] - a[0]) * (point[1] - a[1]) - (b[1] - a[1]) * (point[0] - a[0])


if __name__ == "__main__":
    main()
