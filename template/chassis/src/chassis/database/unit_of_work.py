"""UnitOfWork: one transaction, with its connection and the outbox for its messages."""

import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

from chassis.database.connection import Connection
from chassis.database.statements import Executor

current_caller: ContextVar[Any] = ContextVar("current_caller", default=None)
"""The chassis.identity.Caller of the current request, if the service asks for access tokens."""

current_key: ContextVar[tuple[str, Iterator[int]] | None] = ContextVar("current_key", default=None)
"""A name that the current request or message shares with its repetitions, and a counter for the keys of its calls."""


def as_subject(value: Any) -> str | None:
    """Return the value if every broker and the database can carry it as a subject: up to 255 printable characters."""
    fits = isinstance(value, str) and 0 < len(value) <= 255 and value.isprintable() and value == value.strip()
    return value if fits else None


_ID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_SAGAS = re.compile(f"{_ID}(,{_ID}){{0,3}}")


def as_sagas(value: Any) -> str | None:
    """Return the value if it is a header `saga`: up to four ids, with commas between them."""
    return value if isinstance(value, str) and _SAGAS.fullmatch(value) else None


class MessageStore(Protocol):
    """Store the outgoing messages of a unit of work. chassis.messaging.outbox implements this."""

    sagas: Any
    """The chassis.sagas.Sagas of the service, or None."""

    async def publish(
        self, executor: Executor, events: Sequence[object], *, subject: str | None, saga: str | None
    ) -> None: ...
    async def enqueue(
        self, executor: Executor, job: object, *, after: timedelta, subject: str | None, saga: str | None
    ) -> None: ...


class Unlisted(LookupError):
    """A published event or an enqueued job has no line in the service's OUTGOING."""


class NoOutbox:
    """The outbox of a service without messages."""

    sagas = None

    async def publish(self, executor: Executor, events: Sequence[object], **_: Any) -> None:
        pass

    async def enqueue(self, executor: Executor, job: object, **_: Any) -> None:
        raise Unlisted(
            f"{type(job).__name__} has no line Job({type(job).__name__}, …) in OUTGOING of messaging/: add it"
        )


class UnitOfWork:
    """One transaction. A route or the consumer opens it, and it commits unless an error ends the block."""

    def __init__(self, connection: Connection, outbox: MessageStore) -> None:
        self.connection = connection
        self.message_id: str | None = None
        """The id of the handled message, the same in each copy and attempt: use it as the idempotency key of calls."""
        self.republished: str | None = None
        """The id of the run of `republish` that has published the handled event again. None for an event that is new."""
        self.subject: str | None = getattr(current_caller.get(), "subject", None)
        """The subject of the caller, or of the handled message, whose sender claims it. Published and enqueued messages carry
        it. None if neither is known."""
        self.saga: str | None = None
        """The ids of the sagas that the work belongs to, as the header of the handled message has them. Published and enqueued
        messages carry them."""
        self._outbox = outbox

    async def publish(self, *events: object) -> None:
        """Publish domain events if this transaction commits. OUTGOING in messaging/ names their contracts.

        A service without messages stores nothing. Raises chassis.database.unit_of_work.Unlisted for an event without a
        line.
        """
        await self._outbox.publish(self.connection, events, subject=self.subject, saga=self.saga)

    async def enqueue(self, job: object, *, after: timedelta = timedelta(0)) -> None:
        """Send a job to a work queue if this transaction commits, but not before `after` has passed.

        Raises chassis.database.unit_of_work.Unlisted for a job without a line in OUTGOING.
        """
        await self._outbox.enqueue(self.connection, job, after=after, subject=self.subject, saga=self.saga)

    async def start(self, saga: Any, params: object, *, key: str) -> UUID:
        """Start a saga if this transaction commits, and return its id. The same key is one saga: a second start changes nothing.

        `saga` is the function in sagas/ or, in a use case, the saga's name: use cases are below sagas/. Raises
        chassis.database.unit_of_work.Unlisted for a saga that the service does not have.
        """
        if self._outbox.sagas is None:
            raise Unlisted(
                f"{saga} cannot start: this service has no messaging/sagas.py with a line SAGAS = sagas_in(…)"
            )
        return await self._outbox.sagas.start(self, saga, params, key=key)
