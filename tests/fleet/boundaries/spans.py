"""Spans of calls between two services, in the form of OTLP."""

from typing import Any

Node = dict[str, Any]


def batch(trace: str, caller: str, called: str, calls: int) -> Node:
    """One trace: a request of the caller, with calls."""
    ours = [span(trace, "root", "", 2), *(span(trace, f"client-{at}", "root", 3) for at in range(calls))]
    theirs = [span(trace, f"server-{at}", f"client-{at}", 2) for at in range(calls)]
    return {"resourceSpans": [spans_of(caller, ours), spans_of(called, theirs)]}


def spans_of(service: str, spans: list[Node]) -> Node:
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    return {"resource": resource, "scopeSpans": [{"spans": spans}]}


def span(trace: str, id_: str, parent: str, kind: int) -> Node:
    return {"traceId": trace, "spanId": id_, "parentSpanId": parent, "kind": kind, "name": "x"}
