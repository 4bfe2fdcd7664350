"""What each lane has begun: so that a message that kills its process is found out, and parked like any other.

Of such a try nobody is left to tell. So a lane notes what it begins, outside of the transaction that its death takes back;
who starts counts the notes that are there. A message that stands in one is done alone from then on, and no other of its
kind beside it: when the process dies again, it was this one. Notes of who is alive count too, which harms nothing: what it
has is not delivered to us.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from uuid import UUID

from chassis.database import Database

# It has to outlive this process, and not the server: so its commit waits for no disk.
_NOTE = """
    WITH at_once AS (SELECT set_config('synchronous_commit', 'off', true))
    INSERT INTO chassis.begun (lane, message_ids, names) SELECT $1, $2, $3 FROM at_once
    ON CONFLICT (lane) DO UPDATE SET message_ids = excluded.message_ids, names = excluded.names, begun_at = now()
"""
_NOTES = "SELECT message_ids, names FROM chassis.begun"
_OVER = "DELETE FROM chassis.begun WHERE lane = ANY($1::uuid[])"
_FORGET = "DELETE FROM chassis.begun WHERE begun_at < now() - interval '1 day'"


async def note(database: Database, lane: UUID, identities: Sequence[tuple[str, str]]) -> None:
    """In the place of what this lane had begun before."""
    await database.execute(_NOTE, lane, [id for id, _ in identities], [name for _, name in identities])


async def counted(database: Database) -> Counter[tuple[str, str]]:
    """In how many notes each identity stands."""
    rows = await database.fetch(_NOTES)
    return Counter(identity for row in rows for identity in zip(row["message_ids"], row["names"], strict=True))


async def over(database: Database, lanes: Iterable[UUID]) -> None:
    """They have ended in good order."""
    await database.execute(_OVER, list(lanes))


async def forget(database: Database) -> None:
    """Delete notes so old that their messages have come again since."""
    await database.execute(_FORGET)
