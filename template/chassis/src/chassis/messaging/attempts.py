"""Record what each lane is processing, to identify a message that crashes the worker.

A crash leaves nobody to record the failed attempt. So a lane records its batch before it processes the batch, outside of
the transaction that the crash would roll back. A worker that starts counts the records. From then on a message with a record
is processed alone, and never at the same time as another message with a record: if the worker crashes again, that message is
the cause. The records of other live workers count too, which does no harm, because their messages are not delivered to this
worker.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from uuid import UUID

from chassis.database import Database

# A record has to survive a crash of this process, but not of the database server, so its commit does not wait for the disk.
_RECORD = """
    WITH at_once AS (SELECT set_config('synchronous_commit', 'off', true))
    INSERT INTO chassis.attempts (lane, message_ids, names) SELECT $1, $2, $3 FROM at_once
    ON CONFLICT (lane) DO UPDATE SET message_ids = excluded.message_ids, names = excluded.names, started_at = now()
"""
_RECORDED = "SELECT message_ids, names FROM chassis.attempts"
_DELETE = "DELETE FROM chassis.attempts WHERE lane = ANY($1::uuid[])"
_DELETE_OLD = "DELETE FROM chassis.attempts WHERE started_at < now() - interval '1 day'"


async def record(database: Database, lane: UUID, identities: Sequence[tuple[str, str]]) -> None:
    """Replace the record of this lane: it processes these messages now."""
    await database.execute(_RECORD, lane, [id for id, _ in identities], [name for _, name in identities])


async def count(database: Database) -> Counter[tuple[str, str]]:
    """Count the records of each message."""
    rows = await database.fetch(_RECORDED)
    return Counter(identity for row in rows for identity in zip(row["message_ids"], row["names"], strict=True))


async def delete(database: Database, lanes: Iterable[UUID]) -> None:
    """Delete the records of lanes that have ended without a crash."""
    await database.execute(_DELETE, list(lanes))


async def delete_old(database: Database) -> None:
    """Delete records so old that their messages have been delivered again since."""
    await database.execute(_DELETE_OLD)
