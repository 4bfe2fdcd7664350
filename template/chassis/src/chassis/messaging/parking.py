"""Parked messages: messages that failed too often, or can never succeed. They wait for a person, and the chassis never
drops them. A parked message has an id of its own here, which parked_command.py shows and accepts; `message_id` is the
id that the sender gave.
"""

import json
import time
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from opentelemetry import context
from uuid_utils.compat import uuid7

from chassis.brokers import REPUBLISHED, SAGA, SUBJECT, Kind, Message
from chassis.database import Database, Executor
from chassis.messages import Messages
from chassis.messaging import inbox
from chassis.telemetry import trace_context

log = structlog.get_logger()

LOOK_SECONDS = 1
LONGEST_REASON = 8000
"""The most characters of a stored reason. A body with many errors has a long reason."""

_PARK = """
    INSERT INTO chassis.parked (id, direction, kind, name, message_id, key, body, headers, reason, attempts)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
_SIZE = """
    SELECT count(*), coalesce(sum(octet_length(body) + octet_length(headers::text) + octet_length(reason)), 0)::bigint
    FROM chassis.parked WHERE direction = $1
"""
_LIST = """
    SELECT id, direction, kind, name, message_id, key, ''::bytea AS body, headers, reason, attempts, parked_at
    FROM chassis.parked WHERE $1::text IS NULL OR name = $1 ORDER BY parked_at, id LIMIT $2
"""
_IDS = "SELECT id FROM chassis.parked WHERE name = $1 ORDER BY parked_at, id"
_ONE = "SELECT * FROM chassis.parked WHERE id = $1"
_TAKE = "DELETE FROM chassis.parked WHERE id = $1 RETURNING *"
_SEND_AGAIN = """
    INSERT INTO chassis.outbox (id, kind, aggregatetype, aggregateid, type, payload, traceparent, tracestate, republished, subject,
        saga)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""


class Parked(NamedTuple):
    """One parked message. `direction` is `incoming` (a handler failed) or `outgoing` (the broker refused it)."""

    id: UUID
    direction: str
    message: Message
    reason: str
    attempts: int
    parked_at: datetime


class Size(NamedTuple):
    """How many messages are parked, and how large their bodies, headers and reasons are."""

    messages: int
    bytes: int


class ParkingFull(Exception):
    """PARKED_MAX_MESSAGES or PARKED_MAX_BYTES is reached."""


class NotParked(LookupError):
    """No message is parked under that id."""


async def park(executor: Executor, message: Message, *, direction: str, reason: str, attempts: int) -> None:
    """Store the message with the reason, which is shortened if it is too long.

    Characters that Postgres cannot store in text (NUL, a lone surrogate) are replaced, except in the body.
    """

    def clean(text: str) -> str:
        return text.replace("\0", "\ufffd").encode(errors="replace").decode()

    headers = json.dumps({clean(name): clean(value) for name, value in message.headers.items()})
    where = (direction, message.kind, clean(message.name), clean(message.id), clean(message.key))
    await executor.execute(_PARK, uuid7(), *where, message.body, headers, clean(reason)[:LONGEST_REASON], attempts)


async def size(executor: Executor, direction: str) -> Size:
    """Count what is parked in this direction."""
    (row,) = await executor.fetch(_SIZE, direction)
    return Size(*row)


class ParkingLimits:
    """The limits of parking incoming messages. The table is counted at most every LOOK_SECONDS, so they are approximate.

    An outgoing message needs no room: it leaves the outbox of the same database.
    """

    def __init__(self, database: Database, *, max_messages: int = 10_000, max_bytes: int = 2**30) -> None:
        self._database = database
        self._max_messages, self._max_bytes = max_messages, max_bytes
        self._messages, self._bytes = 0, 0
        self._asked_at = -LOOK_SECONDS
        self.full = False

    async def take(self, message: Message) -> None:
        """Call this before parking the message. Raises ParkingFull, or DatabaseUnavailable."""
        if time.monotonic() >= self._asked_at + LOOK_SECONDS:
            self._asked_at = time.monotonic()
            self._messages, self._bytes = await size(self._database, "incoming")
        was_full, self.full = self.full, self._messages >= self._max_messages or self._bytes >= self._max_bytes
        if self.full:
            if not was_full:
                log.error("parking_full", messages=self._messages, bytes=self._bytes)
            raise ParkingFull(
                "chassis.parked is full: replay or drop messages, or raise PARKED_MAX_MESSAGES and PARKED_MAX_BYTES"
            )
        self._messages += 1
        self._bytes += len(message.body)


async def find(executor: Executor, *, name: str | None = None, limit: int = 100) -> list[Parked]:
    """Return the parked messages without their bodies, longest parked first, of all names or of this name."""
    return [_parked(row) for row in await executor.fetch(_LIST, name, limit)]


async def ids(executor: Executor, *, name: str) -> list[UUID]:
    """Return the ids of all parked messages of this name, longest parked first."""
    return [row["id"] for row in await executor.fetch(_IDS, name)]


async def show(executor: Executor, parked_id: UUID) -> Parked:
    """Return one parked message. Raises NotParked."""
    row = await executor.fetchrow(_ONE, parked_id)
    if row is None:
        raise NotParked(f"no message is parked as {parked_id}")
    return _parked(row)


async def drop(database: Database, parked_id: UUID) -> Parked:
    """Delete the message, and return it. Raises NotParked."""
    return await _take(database, parked_id)


async def replay(database: Database, messages: Messages, parked_id: UUID) -> Parked:
    """Handle the message now, or send it again, and unpark it in the same commit. An error leaves it parked.

    The message keeps its id: receivers recognise a second copy, and a handler gets the same idempotency key.

    Raises NotParked; Unknown if no handler is listed for its name; ValidationError if it breaks its contract.
    """
    async with database.unit_of_work() as uow:
        parked = await _take(uow.connection, parked_id)
        message = parked.message
        if parked.direction == "outgoing":
            aggregate = message.headers.get("aggregate", message.name)
            headers = [message.headers.get(name) for name in ("traceparent", "tracestate", REPUBLISHED, SUBJECT, SAGA)]
            row = (
                UUID(message.id),
                message.kind,
                aggregate,
                message.key,
                message.name,
                message.body.decode(),
                *headers,
            )
            await uow.connection.execute(_SEND_AGAIN, *row)
        else:
            receiver = messages.receiver(message.name)
            content = receiver.contract.model_validate_json(message.body)
            inbox.introduce(message, uow, messages.service)
            # The messages of the handler belong to the trace of this message.
            token = context.attach(trace_context.extract(message.headers))
            try:
                await receiver.handler(content, uow)
            finally:
                context.detach(token)
    return parked


async def _take(executor: Executor, parked_id: UUID) -> Parked:
    row = await executor.fetchrow(_TAKE, parked_id)
    if row is None:
        raise NotParked(f"no message is parked as {parked_id}")
    return _parked(row)


def _parked(row: Any) -> Parked:
    message = Message(
        kind=Kind(row["kind"]),
        name=row["name"],
        id=row["message_id"],
        key=row["key"],
        body=row["body"],
        headers=json.loads(row["headers"]),
    )
    return Parked(row["id"], row["direction"], message, row["reason"], row["attempts"], row["parked_at"])
