"""The rows of the outbox that wait to be sent, as the relay reads them.

A new row waits in the main queue. A row that a failed destination holds up waits in the queue of that destination: its
column `waits_for` names the destination. The relay moves such a row once, so that the row costs nothing when the relay
looks for other rows again. Every queue is read in the order of `seq`, and a later row of a key never leaves its queue
before an earlier row of the key.
"""

from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple

from chassis.brokers import Kind
from chassis.database import Connection

Key = tuple[str, str]

BATCH = 500
"""The most rows that one query reads."""

QUEUES = """
    WITH RECURSIVE queue AS (
        (SELECT waits_for, coalesce(not_before, created_at) AS since FROM chassis.outbox
        WHERE waits_for IS NOT NULL ORDER BY waits_for, seq LIMIT 1)
        UNION ALL
        SELECT following.* FROM queue, LATERAL (
            SELECT waits_for, coalesce(not_before, created_at) FROM chassis.outbox WHERE waits_for > queue.waits_for
            ORDER BY waits_for, seq LIMIT 1
        ) AS following
    )
    SELECT waits_for, since FROM queue
"""
"""Each failed destination that rows wait for, and since when its first row waits. The query reads one row of each."""

_COLUMNS = """
    seq, id::text AS id, kind, aggregatetype, aggregateid, type, payload, content_type, traceparent, tracestate,
    republished, subject, saga, waits_for, later, size
"""
# $2: rows that are being sent. $3 and $4: keys that take long. NOT IN is a lookup in a hash table, whatever the planner
# believes of the size of the outbox.
_FREE = """
    seq NOT IN (SELECT unnest($2::bigint[]))
    AND (aggregatetype, aggregateid) NOT IN (SELECT * FROM unnest($3::text[], $4::text[]))
"""
# $1 and $5: how many rows, and how many bytes, to return. The last row may go beyond the bytes, so there is always one.
_FIRST = """
    (SELECT {columns} FROM (
        SELECT *, sum(size) OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING) AS size_so_far FROM (
            SELECT *, octet_length(payload) AS size FROM (
                SELECT *, {later} AS later FROM chassis.outbox
                WHERE {which} AND {free} ORDER BY {order} LIMIT $1
            ) AS first
        ) AS measured
    ) AS summed WHERE size_so_far - size < $5)
"""
_MAIN = " UNION ALL ".join(
    _FIRST.format(columns=_COLUMNS, free=_FREE, which=f"waits_for IS NULL AND {which}", order=order, later=later)
    for which, order, later in [("not_before IS NULL", "seq", 0), ("not_before <= now()", "not_before, seq", 1)]
)
# BETWEEN and ORDER BY with two columns make the planner choose ix_outbox_waits_for. The primary key would lead through the rows
# of other queues.
_WAITING = _FIRST.format(
    columns=_COLUMNS,
    free=_FREE,
    which="waits_for BETWEEN $6 AND $6 AND (not_before IS NULL OR not_before <= now())",
    order="waits_for, seq",
    later=0,
)
# $4: the queue that the rows come from, or NULL for the main queue.
_AHEAD = """
    SELECT wanted.aggregatetype, wanted.aggregateid, ahead.*
    FROM unnest($1::text[], $2::text[], $3::bigint[]) AS wanted (aggregatetype, aggregateid, last), LATERAL (
        SELECT seq, waits_for FROM chassis.outbox AS held
        WHERE waits_for IS NOT NULL AND kind = 'event' AND waits_for IS DISTINCT FROM $4
        AND held.aggregatetype = wanted.aggregatetype AND held.aggregateid = wanted.aggregateid AND seq < wanted.last
        ORDER BY seq LIMIT 1
    ) AS ahead
"""
_MOVE = """
    UPDATE chassis.outbox SET waits_for = moved.waits_for FROM unnest($1::bigint[], $2::text[]) AS moved (seq, waits_for)
    WHERE outbox.seq = moved.seq
"""
_DELETE = "DELETE FROM chassis.outbox WHERE seq = ANY($1::bigint[])"
# An event has no `not_before`, so the condition holds for all events. It lets PostgreSQL use two small indexes, which lack the
# jobs that are due later.
_LOGGED = """
    DELETE FROM chassis.outbox
    WHERE kind = 'event' AND ((not_before IS NULL AND waits_for IS NULL) OR waits_for IS NOT NULL)
"""


class Excluded(NamedTuple):
    """The rows and keys that a query leaves out: rows that are being sent, and keys that have been sending for LONG_SECONDS."""

    rows: list[int]
    keys: list[Key]

    @property
    def arguments(self) -> tuple[list[int], list[str], list[str]]:
        return self.rows, [key[0] for key in self.keys], [key[1] for key in self.keys]


def key_of(row: Any) -> Key:
    return row["aggregatetype"], row["aggregateid"]


async def read_by_index(connection: Connection, *, scope: Literal["SESSION", "LOCAL"]) -> None:
    """Let this session, or the open transaction, read each queue in the order of its index, and no further than the limit.

    The statistics of a table that is empty most of the time tell the planner nothing about a burst: the planner may then
    read and sort the whole outbox for each query.
    """
    await connection.execute(f"SET {scope} enable_sort = off; SET {scope} enable_seqscan = off")


async def names(connection: Connection) -> list[str]:
    """Return the failed destinations that rows wait for."""
    return [row["waits_for"] for row in await connection.fetch(QUEUES)]


async def read(
    connection: Connection, limit: int, excluded: Excluded, name: str | None = None, *, size: int
) -> list[Any]:
    """Return the first rows of the queue of a destination; without a name, of the main queue.

    The rows end at `limit` rows, or at the row with which their payloads reach `size` bytes. The main queue has two parts,
    each up to these limits: rows that are due at once, and rows whose time has come.
    """
    if name is None:
        return await connection.fetch(_MAIN, limit, *excluded.arguments, size)
    return await connection.fetch(_WAITING, limit, *excluded.arguments, size, name)


async def hold(connection: Connection, rows: Sequence[Any], closed: Collection[str], name: str | None) -> list[Any]:
    """Move the rows that a closed destination holds up to its queue. Return the other rows.

    A row is held up if its own destination is closed, or if an earlier row of its key waits in another queue than `name`,
    which is the queue that the rows come from. Rows for the destination `name` itself are returned, although it is closed:
    they are the attempt to reach it.
    """
    last = {key_of(row): row["seq"] for row in rows}
    keys = [*zip(*last, strict=True)] or [(), ()]
    found = await connection.fetch(_AHEAD, *keys, list(last.values()), name)
    ahead = {key_of(row): (row["seq"], row["waits_for"]) for row in found}
    free, moved = [], {}
    for row in rows:
        first, holder = ahead.get(key_of(row), (float("inf"), ""))
        if first < row["seq"]:
            moved[row["seq"]] = holder
        elif row["type"] in closed and row["type"] != name:
            moved[row["seq"]] = row["type"]
            if row["kind"] == Kind.EVENT:
                ahead[key_of(row)] = row["seq"], row["type"]
        else:
            free.append(row)
    if moved:
        await connection.execute(_MOVE, list(moved), list(moved.values()))
    return free


async def delete(connection: Connection, rows: Sequence[int]) -> int:
    """Delete rows by their `seq`. Returns how many were there."""
    return int((await connection.execute(_DELETE, rows)).rpartition(" ")[2])


async def delete_events(connection: Connection) -> None:
    """Delete the events. Debezium or the like has read them from the database's log."""
    await connection.execute(_LOGGED)
