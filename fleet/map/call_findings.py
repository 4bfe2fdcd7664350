"""Find faults in the calls between services."""

from collections.abc import Iterator

import networkx

from fleet.check.findings import Finding, Level
from fleet.map.facts import CATALOG
from fleet.map.model import Kind, Map, MapFinding, find_misspelt_name

# The most calls in a row. Two calls chain three services, whose unavailability adds up: if each service is up for 99.9 % of the
# time, the chain is down for 26 hours a year instead of 9. Each service also has to wait longer than all services behind it
# together may take.
LIMIT = 2

UNKNOWN = "Nobody asks the author of an unknown caller before an API is changed or switched off."
CYCLE = (
    "Services in a circle cannot start, be tested or be up without each other, and a slow service slows itself down."
)
DEPTH = "The first service is up only while all services behind it are, and waits as long as all of them together."


def findings(map_: Map, limit: int) -> Iterator[MapFinding]:
    for edge in map_.of(Kind.CALL):
        if edge.is_open:
            reason = f"the service consumes the API {edge.name}, which no service here provides"
            remedy = (
                f"correct consumesApis; no change is needed if {edge.name} belongs to a system that is not listed here"
            )
            level = Level.WARNING
            if meant := find_misspelt_name(edge.name, map_.apis):
                level = Level.ERROR
                remedy = f"correct {edge.name} in consumesApis to {meant}, or remove it"
            finding = Finding("map-call-unknown", CATALOG, reason, remedy, level, why=UNKNOWN)
            yield MapFinding((edge.source,), finding, (edge,))
        elif edge.seen and not edge.declared:
            reason = f"the service calls {edge.target}, and {CATALOG} does not declare the call"
            apis = [name for name, kind in map_.services[edge.target].apis.items() if kind != "asyncapi"]
            remedy = f"add {' or '.join(apis) or edge.target} to spec.consumesApis of the Component in {CATALOG}"
            finding = Finding("map-call-undeclared", edge.seen.path, reason, remedy, line=edge.seen.line, why=UNKNOWN)
            yield MapFinding((edge.source,), finding, (edge,))
    calls = networkx.DiGraph()
    for edge in map_.of(Kind.CALL):
        if not edge.is_open:
            calls.add_edge(edge.source, edge.target, edge=edge)
    yield from _cycles(calls)
    yield from _depth(calls, limit)


def _cycles(calls: networkx.DiGraph) -> Iterator[MapFinding]:
    """Report one cycle of each strongly connected component, which may contain more cycles than anybody wants to read."""
    for knot in sorted(sorted(one) for one in networkx.strongly_connected_components(calls) if len(one) > 1):
        edges = networkx.find_cycle(calls.subgraph(knot), knot[0])
        cycle = [source for source, _ in edges]
        reason = f"{' → '.join([*cycle, cycle[0]])} call each other in a circle"
        if others := [name for name in knot if name not in cycle]:
            reason += f", which also contains {', '.join(others)}"
        remedy = "let one of them publish an event, and let the other keep the data that it needs from the event"
        finding = Finding("map-call-cycle", CATALOG, reason, remedy, why=CYCLE)
        yield MapFinding((*cycle, *others), finding, tuple(calls.edges[edge]["edge"] for edge in edges))


def _depth(calls: networkx.DiGraph, limit: int) -> Iterator[MapFinding]:
    """Report each service that no service calls and that begins too long a chain. A cycle counts as one step."""
    condensed = networkx.condensation(calls)
    longest: dict[int, list[int]] = {}
    for knot in reversed(list(networkx.topological_sort(condensed))):
        behind = max((longest[one] for one in sorted(condensed.successors(knot))), key=len, default=[])
        longest[knot] = [knot, *behind]
    for knot, chain in longest.items():
        if len(chain) - 1 > limit and condensed.in_degree(knot) == 0:
            names = tuple(" ⇄ ".join(sorted(condensed.nodes[one]["members"])) for one in chain)
            reason = f"{' → '.join(names)}: {len(chain) - 1} calls in a row, where {limit} are allowed"
            remedy = "let the service in the middle listen to events of the service behind it, and answer from its own tables"
            services = tuple(name for one in chain for name in sorted(condensed.nodes[one]["members"]))
            yield MapFinding(services, Finding("map-call-depth", CATALOG, reason, remedy, why=DEPTH))
