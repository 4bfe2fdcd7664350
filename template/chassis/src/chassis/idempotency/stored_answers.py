"""The answers to requests with a key, in the table chassis.idempotency_keys."""

import json
from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple

from chassis.database import Database, Executor

LARGEST_BYTES = 64 * 1024
"""A larger answer is not kept: the request has its effect once all the same, but a repetition is refused."""

BATCH = 1000

_FIND = "SELECT request, status, headers, body FROM chassis.idempotency_keys WHERE key = $1"
_KEEP = "INSERT INTO chassis.idempotency_keys (key, request, status, headers, body) VALUES ($1, $2, $3, $4, $5)"
_FORGET = """
    DELETE FROM chassis.idempotency_keys WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM chassis.idempotency_keys WHERE created_at < now() - $1::interval
        ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED
    ))
"""


class Answer(NamedTuple):
    """An answer, and the digest of its request. An answer that was too large to keep has no body."""

    request: bytes
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes | None


async def find(executor: Executor, key: bytes) -> Answer | None:
    """Return the answer that was committed under this key."""
    row = await executor.fetchrow(_FIND, key)
    if row is None:
        return None
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in json.loads(row["headers"])]
    return Answer(row["request"], row["status"], headers, row["body"])


async def keep(executor: Executor, key: bytes, answer: Answer) -> None:
    """Store the answer under its key, if the transaction commits."""
    headers, body = _as_text(answer.headers), answer.body
    if body is None or len(headers) + len(body) > LARGEST_BYTES:
        headers, body = "[]", None
    await executor.execute(_KEEP, key, answer.request, answer.status, headers, body)


async def forget(database: Database, *, older_than: timedelta) -> int:
    """Delete old answers in small transactions. Returns how many. Several processes may do so at once."""
    forgotten, deleted = 0, BATCH
    while deleted == BATCH:
        deleted = int((await database.execute(_FORGET, older_than, BATCH)).rpartition(" ")[2])
        forgotten += deleted
    return forgotten


def _as_text(headers: Iterable[tuple[bytes, bytes]]) -> str:
    return json.dumps([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])
