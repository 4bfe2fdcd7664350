"""Find callers whose expectations in specs/uses a provider no longer meets."""

import json
from collections.abc import Iterator
from typing import Any

from fleet.check.findings import Finding, Level
from fleet.errors import FleetError
from fleet.judges.openapi_diff import find_breaking_changes
from fleet.map.model import Kind, Map, MapFinding
from fleet.processes.resource_limits import LimitExceeded, limit_resources
from fleet.service.openapi import SPEC, Document

WHY = "A call that the provider no longer takes fails for each user of the caller, and no test of either service shows it."
REMEDY = "undo the change, or offer the old form too until {caller} has moved; then `fleet client {name}` in {caller}"


def findings(map_: Map) -> Iterator[MapFinding]:
    """Compare each use of an API with the document that the provider offers now."""
    for caller in map_.services.values():
        for name, used in caller.uses.items():
            provider = map_.service_of(name)
            if provider is None or provider == caller.name:
                continue  # a service outside of the fleet
            edges = tuple(edge for edge in map_.of(Kind.CALL) if (edge.source, edge.target) == (caller.name, provider))
            what = f"{caller.name} uses the API (specs/uses/{name}.json)"
            remedy = REMEDY.format(caller=caller.name, name=name)
            for change, line, level in _changes(used, map_.offered.get(provider), caller.name):
                finding = Finding("map-call-unfit", SPEC, f"{what}: {change}", remedy, level, line, WHY)
                yield MapFinding((provider, caller.name), finding, edges)


def _changes(used: Any, offered: Any, caller: str) -> Iterator[tuple[str, int, Level]]:
    """Yield what no longer fits with its line in the provider's document, or the reason why that is not known."""
    if offered is None:
        yield f"{SPEC} of the provider is missing, so nothing is known of the calls", 0, Level.WARNING
        return
    try:
        with limit_resources(f"comparing the calls of {caller}"):
            # The address of the provider is a setting of the caller.
            now = Document(
                {key: value for key, value in offered.items() if key != "servers"}, json.dumps(offered, indent=2)
            )
            for change in find_breaking_changes(Document(used), now):
                where = f"{change.operation}: " if change.operation else ""
                yield f"{where}{change.what}", change.operation.line if change.operation else 0, Level.ERROR
    except (FleetError, LimitExceeded, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        yield f"the documents cannot be compared: {error}", 0, Level.WARNING
