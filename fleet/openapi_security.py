"""Whether callers who could sign in still can: `security` and the schemes that it names."""

from collections.abc import Iterator

from fleet.normal_form import text
from fleet.openapi import Document, Node, Operation

_HINTS = {"bearerFormat", "description", "flows"}

Way = dict[str, list[str]]
"""One way to sign in: the scopes that it needs, by scheme. Without schemes nobody has to."""


def breaks(old: Document, new: Document, was: Operation, is_: Operation) -> Iterator[str]:
    """Each way to sign in that callers have and that is no longer enough."""
    offered = _ways(new, is_)
    for way in _ways(old, was):
        if not any(_is_enough(way, other, old, new) for other in offered):
            wanted = " or ".join(_named(other) for other in offered)
            yield f"security: it asks for {wanted}, and {_named(way)} was enough"


def _ways(document: Document, operation: Operation) -> list[Way]:
    """Of the operation, or of the whole document."""
    return operation.content.get("security", document.content.get("security", [])) or [{}]


def _is_enough(way: Way, wanted: Way, old: Document, new: Document) -> bool:
    """Whether who signs in the one way has all that the other one wants. Schemes may have other names."""
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
    """The same credentials, sent in the same way; more ways to get them do no harm."""
    bare = [{key: one[key] for key in one if key not in _HINTS and key[:2] != "x-"} for one in (was, is_)]
    flows = [
        {flow: {key: one[key] for key in one if key.endswith("Url")} for flow, one in side.get("flows", {}).items()}
        for side in (was, is_)
    ]
    return text(bare[0]) == text(bare[1]) and all(flows[1].get(flow) == one for flow, one in flows[0].items())


def _named(way: Way) -> str:
    parts = (f"{scheme} ({', '.join(scopes)})" if scopes else scheme for scheme, scopes in way.items())
    return " and ".join(parts) or "nothing"
