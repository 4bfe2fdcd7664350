"""Compare `security` and its schemes: callers who could authenticate must still be able to."""

from collections.abc import Iterator

from fleet.schemas.normal_form import text
from fleet.service.openapi import Document, Node, Operation

_HINTS = {"bearerFormat", "description", "flows"}

Way = dict[str, list[str]]
"""One way to authenticate: the needed scopes by scheme. Without schemes, no authentication is needed."""


def find_closed_ways(old: Document, new: Document, was: Operation, is_: Operation) -> Iterator[str]:
    """Yield each way to authenticate that was enough for callers and no longer is."""
    offered = _ways(new, is_)
    for way in _ways(old, was):
        if not any(_is_enough(way, other, old, new) for other in offered):
            wanted = " or ".join(_named(other) for other in offered)
            yield f"security: the operation requires {wanted}, and {_named(way)} was enough"


def _ways(document: Document, operation: Operation) -> list[Way]:
    """Return the ways to authenticate of the operation, or else of the whole document."""
    return operation.content.get("security", document.content.get("security", [])) or [{}]


def _is_enough(way: Way, wanted: Way, old: Document, new: Document) -> bool:
    """Return whether a caller who authenticates in one way satisfies the other way. Schemes may have other names."""
    return all(
        any(
            set(scopes) <= set(way[other]) and _is_same_scheme(_scheme(old, other), _scheme(new, scheme))
            for other in way
        )
        for scheme, scopes in wanted.items()
    )


def _scheme(document: Document, name: str) -> Node:
    return document.resolved(document.content["components"]["securitySchemes"][name])


def _is_same_scheme(was: Node, is_: Node) -> bool:
    """Return whether both take the same credentials in the same place; additional flows to get them are harmless."""
    bare = [{key: one[key] for key in one if key not in _HINTS and key[:2] != "x-"} for one in (was, is_)]
    flows = [
        {flow: {key: one[key] for key in one if key.endswith("Url")} for flow, one in side.get("flows", {}).items()}
        for side in (was, is_)
    ]
    return text(bare[0]) == text(bare[1]) and all(flows[1].get(flow) == one for flow, one in flows[0].items())


def _named(way: Way) -> str:
    parts = (f"{scheme} ({', '.join(scopes)})" if scopes else scheme for scheme, scopes in way.items())
    return " and ".join(parts) or "nothing"
