"""Place nodes in columns, so that most edges lead from left to right (a simple form of Sugiyama's method)."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import networkx

Pair = tuple[str, str]
Point = tuple[float, float]

ROW = 56
# The height of a bend of a long edge, which needs less room than a node.
BEND = 16
SWEEPS = 12


@dataclass(frozen=True)
class Layout:
    """The places of nodes (their middles), and the routes of edges (their bends, from source to target)."""

    places: dict[str, Point]
    routes: dict[Pair, list[Point]]
    columns: list[float]
    height: float


def layout(pairs: Iterable[Pair], widths: dict[str, float], gap: float) -> Layout:
    """Place all nodes that have an edge. `gap` is the space between columns."""
    graph = networkx.DiGraph(pairs)
    straight = _without_cycles(graph)
    column = _columns(straight)
    chains = {pair: _chain(pair, column) for pair in straight.edges}
    layers: list[list[Hashable]] = [[] for _ in range(max(column.values(), default=-1) + 1)]
    links = networkx.Graph()
    for node, number in column.items():
        layers[number].append(node)
    for (source, _), chain in chains.items():
        for offset, bend in enumerate(chain[1:-1], 1):
            layers[column[source] + offset].append(bend)
        links.add_edges_from(pairwise(chain))
    _order(layers, links)
    heights = _heights(layers, links)
    xs = _xs(layers, widths, gap)
    points = {node: (xs[number], heights[node]) for number, layer in enumerate(layers) for node in layer}
    routes = {pair: [points[bend] for bend in chain[1:-1]] for pair, chain in chains.items()}
    for source, target in graph.edges - straight.edges:
        routes[source, target] = routes[target, source][::-1]
    places = {str(node): points[node] for node in column}
    return Layout(places, routes, xs, max(heights.values(), default=0) + ROW / 2)


def _without_cycles(graph: networkx.DiGraph) -> networkx.DiGraph:
    """Reverse the edges that lead back in an order of the nodes with few such edges (Eades, Lin and Smyth)."""
    left = networkx.DiGraph(graph)
    first: list[str] = []
    last: list[str] = []
    while left:
        degrees = {node: (left.in_degree(node), left.out_degree(node)) for node in left}
        if ends := [node for node, (_, leaving) in degrees.items() if leaving == 0]:
            last += ends
        elif ends := [node for node, (coming, _) in degrees.items() if coming == 0]:
            first += ends
        else:
            ends = [max(degrees, key=lambda node: degrees[node][1] - degrees[node][0])]
            first += ends
        left.remove_nodes_from(ends)
    order = {node: number for number, node in enumerate([*first, *reversed(last)])}
    return networkx.DiGraph((one, other) if order[one] < order[other] else (other, one) for one, other in graph.edges)


def _columns(graph: networkx.DiGraph) -> dict[str, int]:
    """Return the column of each node.

    A column is as far left as its edges allow, but a node without incoming edges is next to its target.
    """
    columns = {node: number for number, layer in enumerate(networkx.topological_generations(graph)) for node in layer}
    first = [node for node in columns if graph.in_degree(node) == 0]
    return columns | {node: min(columns[one] for one in graph.successors(node)) - 1 for node in first}


def _chain(pair: Pair, columns: dict[str, int]) -> list[Hashable]:
    """Return the ends of an edge, and a bend in each column between them."""
    source, target = pair
    return [source, *((pair, number) for number in range(columns[source] + 1, columns[target])), target]


def _order(layers: list[list[Hashable]], links: networkx.Graph) -> None:
    """Sort each layer by its neighbours in the previous layer, forwards and backwards, so that fewer edges cross."""
    for sweep in range(SWEEPS):
        for before, layer in pairwise(layers if sweep % 2 == 0 else layers[::-1]):
            rank = {node: number for number, node in enumerate(before)}
            now = {node: number for number, node in enumerate(layer)}

            def middle(node: Hashable, rank: dict[Hashable, int] = rank, now: dict[Hashable, int] = now) -> float:
                ranks = [rank[one] for one in links[node] if one in rank]
                return fmean(ranks) if ranks else now[node]

            layer.sort(key=middle)


def _heights(layers: list[list[Hashable]], links: networkx.Graph) -> dict[Hashable, float]:
    """Return the heights of all nodes: near their neighbours, in the given order, and not too close to each other."""
    heights: dict[Hashable, float] = {}
    for layer in layers:
        heights |= _apart(layer, [0.0] * len(layer))
    for sweep in range(SWEEPS):
        for layer in layers if sweep % 2 == 0 else layers[::-1]:
            heights |= _apart(layer, [fmean(heights[one] for one in links[node]) for node in layer])
    top = min(heights.values(), default=0) - ROW / 2
    return {node: height - top for node, height in heights.items()}


def _apart(layer: Sequence[Hashable], wanted: Sequence[float]) -> dict[Hashable, float]:
    """Move the wanted heights as little as necessary, so that each node has room."""
    rooms = [_room(one) / 2 + _room(other) / 2 for one, other in pairwise(layer)]
    down, up = list(wanted), list(wanted)
    for number, room in enumerate(rooms, 1):
        down[number] = max(down[number], down[number - 1] + room)
    for number, room in reversed(list(enumerate(rooms))):
        up[number] = min(up[number], up[number + 1] - room)
    # The nodes pushed down and the nodes pushed up both keep the distances, and so does the mean of both.
    return {node: (one + other) / 2 for node, one, other in zip(layer, down, up, strict=True)}


def _room(node: Hashable) -> float:
    return ROW if isinstance(node, str) else BEND


def _xs(layers: list[list[Hashable]], widths: dict[str, float], gap: float) -> list[float]:
    """Return the middle of each column, which is as wide as its widest node."""
    wide = [max((widths[node] for node in layer if isinstance(node, str)), default=0) for layer in layers]
    return [sum(wide[:number]) + gap * number + width / 2 for number, width in enumerate(wide)]
