"""Read what waits in the outbox, what the inbox has received, and what is parked, for the command `messages`.

Each query reads a bounded number of rows, because both tables may be large.
"""

from datetime import timedelta
from typing import Any

from chassis.database import Executor

COUNTED = 100_000
"""The most rows of a table that are counted."""

_NAMES = """
    SELECT type AS name, kind, count(*) AS messages, min(created_at) AS oldest,
        count(*) FILTER (WHERE not_before > now()) AS not_due, count(*) FILTER (WHERE waits_for IS NOT NULL) AS held_up
    FROM (SELECT * FROM chassis.outbox ORDER BY seq LIMIT $2) AS first
    GROUP BY type, kind ORDER BY messages DESC, type LIMIT $1
"""
_FIRST = """
    SELECT id::text, kind, type AS name, aggregateid AS key, created_at, not_before, waits_for AS held_up_by,
        split_part(traceparent, '-', 2) AS trace_id, left(payload, $2) AS body
    FROM chassis.outbox ORDER BY seq LIMIT $1
"""
_LATEST = """
    SELECT message_id AS id, name, received_at FROM chassis.inbox
    WHERE received_at > now() - $2::interval ORDER BY received_at DESC LIMIT $1
"""
_COUNT = "SELECT count(*) FROM (SELECT FROM chassis.{table} LIMIT $1) AS counted"
_PARKED = "SELECT direction, count(*) AS messages FROM chassis.parked GROUP BY direction"

WINDOWS = [timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1), timedelta(days=400)]
"""The inbox is not sorted by time, so look for its latest rows in the last second first, and then further back."""


async def of_outbox(executor: Executor, *, limit: int, body_characters: int) -> dict[str, Any]:
    """Return the number of rows, the rows by name, and the first rows in the order in which they are sent."""
    first = [dict(row) for row in await executor.fetch(_FIRST, limit, body_characters)]
    return {
        "messages": await _count(executor, "outbox"),
        "names": [dict(row) for row in await executor.fetch(_NAMES, limit, COUNTED)],
        "first": first if body_characters else [_without_body(row) for row in first],
    }


async def of_inbox(executor: Executor, *, limit: int) -> dict[str, Any]:
    """Return the number of ids that are kept, and the latest of them."""
    latest: list[Any] = []
    for window in WINDOWS:
        latest = await executor.fetch(_LATEST, limit, window)
        if len(latest) == limit:
            break
    return {"messages": await _count(executor, "inbox"), "latest": [dict(row) for row in latest]}


async def of_parked(executor: Executor) -> dict[str, int]:
    """Return the number of parked messages in each direction."""
    found = {row["direction"]: row["messages"] for row in await executor.fetch(_PARKED)}
    return {direction: found.get(direction, 0) for direction in ("incoming", "outgoing")}


async def _count(executor: Executor, table: str) -> int:
    ((count,),) = await executor.fetch(_COUNT.format(table=table), COUNTED)
    return count


def _without_body(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "body"}
