"""Find callers whose expectations in specs/uses a provider no longer meets."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from fleet.check.findings import Finding, Level
from fleet.errors import FleetError
from fleet.judges.openapi_diff import find_breaking_changes
from fleet.map.facts import USES, Facts
from fleet.map.model import Map, MapFinding
from fleet.processes.resource_limits import LimitExceeded, limit_resources
from fleet.service.openapi import SPEC, Document, Node, as_3_1

WHY = "A call that the provider no longer takes fails for each user of the caller, and no test of either service shows it."
REMEDY = "undo the change, or offer the old form too until {caller} has moved; then `fleet client {name}` in {caller}"
NEVER_OFFERED = ". If {provider} never offered that, only {caller} has to change: correct {path} there"
"""`fleet map` sees no history. `fleet impact` does, and reports only what a change breaks."""

WRITE = "write the file again, from the document of the neighbour that is meant: `fleet client {name} --from …`"

DEPENDED_ON = {"openapi", "info", "paths", "components", "security"}
LEFT_OUT = {"callbacks", "deprecated", "links", "servers"}
"""Fields of a path, an operation or an answer that a caller does not depend on; `fleet client` leaves most of them out.

`deprecated` is left out because it would permit the removal of an operation that the caller still uses.
"""


@dataclass(frozen=True)
class Misfit:
    """A need of a caller that its provider does not meet; a warning states why the documents cannot be compared.

    `line` is in the provider's document, and `used_line` in the caller's uses. A line of 0 is not known.
    """

    what: str
    level: Level = Level.ERROR
    line: int = field(default=0, compare=False)
    used_line: int = field(default=0, compare=False)


def findings(map_: Map) -> Iterator[MapFinding]:
    """Compare each use of an API with the document that the provider offers now."""
    offered: dict[str, Document] = {}
    for caller in map_.services.values():
        found: list[MapFinding] = []
        try:
            # There is one limit for all uses of a caller: otherwise a repository with many uses could delay the map for hours.
            with limit_resources(f"comparing the calls of {caller.name}"):
                for one in _of_caller(map_, caller, offered):
                    found.append(one)
        except LimitExceeded as error:
            remedy = f"make specs/uses of {caller.name}, or the API documents of its neighbours, smaller"
            finding = Finding("map-call-unfit", USES, str(error), remedy, Level.WARNING, why=WHY)
            found.append(MapFinding((caller.name,), finding))
        yield from found


def _of_caller(map_: Map, caller: Facts, offered: dict[str, Document]) -> Iterator[MapFinding]:
    for name, used in caller.uses.items():
        provider = map_.service_of(name)
        if provider is None or provider == caller.name:
            continue  # a service outside of the fleet
        edges = map_.call(caller.name, provider)
        path = f"{USES}{name}.json"
        what = f"{caller.name} uses the API ({path})"
        if why := _why_unreadable(used):
            finding = Finding(
                "map-call-unfit", path, f"{path} is not an API document: {why}", WRITE.format(name=name), why=WHY
            )
            yield MapFinding((caller.name, provider), finding, edges)
            continue
        taken, title = _title(used), _title(map_.offered.get(provider))
        for one in misfits(used, provider, map_, offered):
            if not taken or not title or taken == title:
                named = {"caller": caller.name, "name": name, "provider": provider, "path": path}
                remedy = f"{REMEDY}{NEVER_OFFERED}".format(**named)
                finding = Finding("map-call-unfit", SPEC, f"{what}: {one.what}", remedy, one.level, one.line, WHY)
                yield MapFinding((provider, caller.name), finding, edges)
            else:
                reason = f"{path} was taken from the API document of {taken}, and {provider} offers {title}: {one.what}"
                finding = Finding("map-call-unfit", path, reason, WRITE.format(name=name), one.level, why=WHY)
                yield MapFinding((caller.name, provider), finding, edges)


def _why_unreadable(used: Any) -> str:
    """Return why the uses of a caller cannot be compared with any document; empty if they can."""
    try:
        _reduced(used)
    except (FleetError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        return str(error) or type(error).__name__
    return ""


def _title(content: Any) -> str:
    """Return the title of a document, which `fleet client` copies into the uses; empty without a title."""
    info = content.get("info") if isinstance(content, dict) else None
    return str(info.get("title", "")) if isinstance(info, dict) else ""


def misfits(used: Any, provider: str, map_: Map, offered: dict[str, Document], text: str = "") -> Iterator[Misfit]:
    """Compare the uses of a caller with the provider's document, which is kept in `offered`. Raises LimitExceeded.

    `text` is the file of the uses, for the lines.
    """
    if (written := map_.offered.get(provider)) is None:
        yield Misfit(f"{SPEC} of the provider is missing, so nothing is known of the calls", Level.WARNING)
        return
    try:
        if provider not in offered:
            offered[provider] = _reduced(written, json.dumps(written, indent=2))
        for change in find_breaking_changes(_reduced(used, text), offered[provider]):
            where = f"{change.was}: " if change.operation else ""
            lines = [one.line if one else 0 for one in (change.operation, change.was)]
            yield Misfit(f"{where}{change.what}", Level.ERROR, *lines)
    except LimitExceeded:
        raise
    except (FleetError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        yield Misfit(f"the documents cannot be compared: {error}", Level.WARNING)


def _reduced(content: Any, text: str = "") -> Document:
    """Read a document, also of OpenAPI 3.0, without what a caller does not depend on. Raises FleetError."""
    document = Document(as_3_1({key: content[key] for key in content if key in DEPENDED_ON}), text)
    if not document.version.startswith("3.1."):
        raise FleetError(f"one is of OpenAPI {document.version}, and only 3.0 and 3.1 can be compared")
    document.operations = [
        replace(
            one,
            content=_depended_on(one.content),
            responses={status: _depended_on(answer) for status, answer in one.responses.items()},
            item=_depended_on(one.item),
        )
        for one in document.operations
    ]
    return document


def _depended_on(fields: Node) -> Node:
    return {key: value for key, value in fields.items() if key not in LEFT_OUT}
