"""The inbox: the id of a message is claimed in the same commit as its effect, so a second copy has no effect.

That holds for effects in this service's database, for as long as ids are kept (INBOX_RETENTION_DAYS, which is longer
than brokers keep messages). A call to another system from a handler may still happen twice: the commit may fail after
the call, by itself or because of another message in the same transaction. Give such a call `uow.message_id` as its idempotency
key, and make it from a job: a job is alone in its transaction.
"""

from collections.abc import Iterable
from datetime import timedelta
from itertools import count

from chassis.brokers import REPUBLISHED, SAGA, SUBJECT, Message
from chassis.database import Database, Executor, UnitOfWork
from chassis.database.unit_of_work import as_sagas, as_subject, current_key

_CLAIM = """
    INSERT INTO chassis.inbox (message_id, name)
    SELECT * FROM unnest($1::text[], $2::text[])
    ON CONFLICT DO NOTHING
    RETURNING message_id, name
"""

_FORGET = """
    DELETE FROM chassis.inbox WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM chassis.inbox WHERE received_at < now() - $1::interval LIMIT 10000
    ))
"""


async def claim(executor: Executor, identities: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Claim these identities, if the transaction commits. Returns the identities that were not claimed before.

    Waits for another transaction that is claiming the same id at this moment.
    """
    # In sorted order, two transactions that claim the same ids take turns. Otherwise each could wait for the other.
    claimed = sorted(set(identities))
    rows = await executor.fetch(_CLAIM, [id for id, _ in claimed], [name for _, name in claimed])
    return {(row["message_id"], row["name"]) for row in rows}


def introduce(message: Message, uow: UnitOfWork, service: str) -> None:
    """Give the unit of work the facts about its message, and set the name from which idempotency keys of calls are made."""
    uow.message_id = message.id
    current_key.set((f"{service} {message.name} {message.id}", count(1)))
    uow.republished = message.headers.get(REPUBLISHED) or None
    uow.subject = as_subject(message.headers.get(SUBJECT))
    uow.saga = as_sagas(message.headers.get(SAGA))


async def forget(database: Database, *, older_than: timedelta) -> int:
    """Delete the ids of messages whose copies can no longer arrive, in small transactions. Return the number of ids."""
    forgotten = 0
    while deleted := int((await database.execute(_FORGET, older_than)).rpartition(" ")[2]):
        forgotten += deleted
    return forgotten
