"""Find which services used each other, by hops: the spans of HTTP requests and messages between services."""

import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from chassis.dev.viewer.otlp import MAX_TEXT, Span
from chassis.dev.viewer.product import Edge

CALLS = """
SELECT coalesce(caller.service, '') AS source, called.service AS target, 'http' AS kind, '' AS name,
    count(*) AS count, sum(called.failed) AS failed, avg(called.end - called.start) AS mean
FROM hop AS called LEFT JOIN hop AS caller
    ON caller.trace = called.trace AND caller.id = called.parent AND caller.kind = 'CLIENT'
WHERE called.kind = 'SERVER' AND called.start >= :since AND (caller.id IS NOT NULL OR called.parent = '')
GROUP BY 1, 2
"""
"""The requests that arrived. The source is empty where the trace begins: at a browser, curl or a test."""

UNANSWERED = """
SELECT service AS source, peer AS target, 'http' AS kind, '' AS name,
    count(*) AS count, sum(failed) AS failed, avg(end - start) AS mean
FROM hop AS caller
WHERE kind = 'CLIENT' AND start >= :since AND NOT EXISTS (
    SELECT 1 FROM hop AS called WHERE called.trace = caller.trace AND called.parent = caller.id
)
GROUP BY 1, 2
"""
"""The calls of a service that sends no spans, or that did not answer."""

MESSAGES = """
SELECT coalesce(sender.service, '') AS source, handler.service AS target, 'message' AS kind, handler.peer AS name,
    count(*) AS count, sum(handler.failed) AS failed, avg(handler.end - handler.start) AS mean,
    avg(max(0, handler.start - sender.end)) AS waited
FROM hop AS handler LEFT JOIN hop AS sender
    ON sender.trace = handler.trace AND sender.id = handler.parent AND sender.kind = 'PRODUCER'
WHERE handler.kind = 'CONSUMER' AND handler.start >= :since
GROUP BY 1, 2, 4
"""

SENT = """
SELECT service AS source, peer AS name, count(*) AS count, sum(failed) AS failed FROM hop
WHERE kind = 'PRODUCER' AND start >= :since GROUP BY 1, 2
"""

MOST_EDGES = 500
"""The edges of an answer: names come from spans, so a stranger could make any number."""


def hop(span: Span) -> tuple[Any, ...] | None:
    """Return the row of a hop, a span of a request or a message between services; None for any other span."""
    about = span.attributes
    match span.kind:
        case "SERVER":
            peer = ""
        case "CLIENT" if "http.request.method" in about:
            named = about.get("slipway.neighbour") or about.get("peer.service")
            peer = str(named or _netloc(about.get("url.full")) or about.get("server.address", ""))
        case "PRODUCER" | "CONSUMER" if "messaging.destination.name" in about:
            peer = str(about["messaging.destination.name"])
        case _:
            return None
    failed = span.status == "ERROR"
    return (
        *(span.trace_id, span.span_id, span.parent_id, span.start_ns, span.end_ns),
        *(span.kind, span.service, peer[:MAX_TEXT], failed),
    )


def _netloc(url: Any) -> str:
    try:
        return urlsplit(str(url or "")).netloc
    except ValueError:
        return ""


def edges(
    database: sqlite3.Connection, since: int, peers: Mapping[str, str], declared: Collection[Edge] | None
) -> dict[str, Any]:
    """Return the edges since a time in nanoseconds, with the declared ones, and the messages that were sent.

    `peers` has the name of a service for its `host:port`. `declared` of an edge is null if declarations are not known.
    """
    found: dict[Edge, dict[str, Any]] = {}
    rows = [row for query in (CALLS, UNANSWERED, MESSAGES) for row in database.execute(query, {"since": since})]
    for row in sorted(rows, key=lambda row: -row["count"])[:MOST_EDGES]:
        edge = Edge(row["source"], peers.get(row["target"], row["target"]), row["kind"], row["name"])
        _add(found.setdefault(edge, _empty()), dict(row))
    for edge in declared or ():
        found.setdefault(edge, _empty())
    return {
        "edges": [_as_json(edge, use, declared) for edge, use in sorted(found.items(), key=lambda item: item[0])],
        "sent": [dict(row) for row in database.execute(f"{SENT} LIMIT {MOST_EDGES}", {"since": since})],
    }


def _empty() -> dict[str, Any]:
    return {"count": 0, "failed": 0, "mean": 0.0, "waited": None}


def _add(total: dict[str, Any], row: dict[str, Any]) -> None:
    count = total["count"] + row["count"]
    total["mean"] = (total["mean"] * total["count"] + row["mean"] * row["count"]) / count
    total |= {"count": count, "failed": total["failed"] + row["failed"], "waited": row.get("waited")}


def _as_json(edge: Edge, use: dict[str, Any], declared: Collection[Edge] | None) -> dict[str, Any]:
    is_declared = None if declared is None or not edge.source else edge in declared
    return {**asdict(edge), **use, "declared": is_declared}
