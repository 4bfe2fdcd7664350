"""What one transaction can touch, and the seam through which it speaks to other services."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from chassis.database.connection import Connection
from chassis.database.statements import Executor


class Says(Protocol):
    """Where a unit of work puts what is to be told to others: chassis.messaging.outbox."""

    async def publish(self, executor: Executor, events: Sequence[object]) -> None: ...
    async def enqueue(self, executor: Executor, job: object, *, after: timedelta) -> None: ...


class Unlisted(LookupError):
    """Something was published or enqueued that has no line in the service's OUTGOING."""


class NoOutbox:
    """The outbox of a service that sends no message at all."""

    async def publish(self, executor: Executor, events: Sequence[object]) -> None:
        pass

    async def enqueue(self, executor: Executor, job: object, *, after: timedelta) -> None:
        raise Unlisted(
            f"{type(job).__name__} has no line Job({type(job).__name__}, …) in OUTGOING of messaging/: add it"
        )


class UnitOfWork:
    """What one transaction may use. A route or the consumer opens it, and it is committed unless an error ends the block."""

    def __init__(self, connection: Connection, outbox: Says) -> None:
        self.connection = connection
        self.message_id: str | None = None
        """The id of the message that is being handled, the same in each copy and attempt: an idempotency key for calls."""
        self._outbox = outbox

    async def publish(self, *events: object) -> None:
        """Announce domain events, if and when this transaction commits, as OUTGOING in messaging/ says.

        A service that publishes nothing stores nothing. Raises chassis.database.unit_of_work.Unlisted for an event without a line.
        """
        await self._outbox.publish(self.connection, events)

    async def enqueue(self, job: object, *, after: timedelta = timedelta(0)) -> None:
        """Send a job to a work queue, if and when this transaction commits, and not before `after` has passed.

        Raises chassis.database.unit_of_work.Unlisted for one without a line in OUTGOING.
        """
        await self._outbox.enqueue(self.connection, job, after=after)
