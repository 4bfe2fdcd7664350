"""Process deliveries: check the contract, then claim ids and call handlers in one transaction; or park a message.

Failures of the infrastructure raise DatabaseUnavailable: they are not failed attempts of a message.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from opentelemetry import context, trace
from opentelemetry.trace import Link, SpanKind
from pydantic import ValidationError

from chassis.brokers import Delivery, Message, Unreadable
from chassis.database import Database, UnitOfWork
from chassis.database.leadership import Lead
from chassis.messages import Messages, Receiver, Unknown
from chassis.messaging import attempts, inbox, parking
from chassis.messaging.message_log import log_handled
from chassis.messaging.process_span import ProcessSpan
from chassis.messaging.retry_policy import RetryPolicy
from chassis.messaging.time_limit import TimeLimit
from chassis.telemetry import trace_context
from chassis.telemetry.durations import duration_histogram
from chassis.telemetry.logs import describe_exception
from chassis.telemetry.setup import Telemetry

log = structlog.get_logger()

PING_SECONDS = 5
"""The longest pause between two statements of a transaction. Otherwise the server would end its idle session."""

_NO_PARENT = context.Context()


@dataclass(frozen=True, eq=False)
class Ready:
    """A delivery whose body keeps its contract."""

    delivery: Delivery
    receiver: Receiver
    content: Any
    parent: context.Context
    """The sender's span."""
    recorded: bool
    """Whether to record a span in the sender's trace."""
    identity: tuple[str, str]

    @property
    def message(self) -> Message:
        return self.delivery.message


class Cancelled(Exception):
    """A call that a handler waited for was cancelled, although nobody cancelled the handler: a failed attempt."""


class Deadly(Exception):
    """The message has crashed each worker that began to handle it."""


class Processor:
    """Processes the deliveries of one consumer. All its lanes share the processor, which knows no lane."""

    def __init__(
        self,
        system: str,
        database: Database,
        messages: Messages,
        telemetry: Telemetry,
        *,
        retry_policy: RetryPolicy,
        parking_limits: parking.ParkingLimits,
        log_messages: bool = False,
    ) -> None:
        """`system` is the broker's name in spans."""
        self.retry_policy = retry_policy
        self.parking_limits = parking_limits
        self.lead: Lead | None = None
        """Set if only one replica may consume. Nothing is processed without the lead."""
        self.worked_at = 0.0
        """The start of the latest transaction that has committed a message's effect: the database worked from then on."""
        self._system = system
        self._database = database
        self._messages = messages
        self._log_messages = log_messages
        self._tracer = telemetry.tracer
        self._duration = duration_histogram(
            telemetry.meter, "messaging.process.duration", "Duration of processing a message."
        )
        self._crashes: Counter[tuple[str, str]] = Counter()
        self._alone_after_crash = asyncio.Lock()

    async def count_crashes(self) -> None:
        """Learn which messages were being processed when a worker crashed. Call this before the first delivery."""
        self._crashes = await attempts.count(self._database)

    def crashes(self, delivery: Delivery) -> int:
        """Count the crashes of workers that were processing this message. After a crash, process it alone."""
        return self._crashes[delivery.message.identity] if self._crashes else 0

    def read(self, delivery: Delivery) -> Ready:
        """Check the body of a delivery against its contract. Raises Unreadable, Unknown or ValidationError."""
        message = delivery.message
        if delivery.unreadable is not None:
            raise Unreadable(delivery.unreadable)
        receiver = self._messages.receiver(message.name)
        content = receiver.contract.model_validate_json(message.body)
        parent = trace_context.extract(message.headers)
        return Ready(delivery, receiver, content, parent, trace_context.is_recorded(parent), message.identity)

    async def process(self, batch: Sequence[Ready], *, lane: UUID) -> None:
        """Claim and handle the messages in one transaction. An error of a handler is raised, and rolls all of them back."""
        crashes = self.crashes(batch[0].delivery)
        async with self._alone_after_crash if crashes else nullcontext():
            # Allow at least two crashes, because another message of the batch may have caused the first crash.
            if crashes >= max(self.retry_policy.max_attempts, 2):
                raise Deadly(f"{crashes} workers crashed while they processed the message")
            if self.lead is not None:
                self.lead.check()
            await attempts.record(self._database, lane, [ready.identity for ready in batch])
            await self._handle(batch)

    async def park(self, delivery: Delivery, error: Exception, attempts: int) -> None:
        """Park the message; a second copy changes nothing. Raises DatabaseUnavailable or ParkingFull."""
        message = delivery.message
        await self.parking_limits.take(message)
        reason = f"{type(error).__name__}: {describe_exception(error)['message']}"
        if isinstance(error, ValidationError):
            reason = "\n".join([f"it breaks the contract {error.title}", *_violations(error)])
        async with self._database.unit_of_work() as uow:
            if await inbox.claim(uow.connection, [message.identity]):
                await parking.park(uow.connection, message, direction="incoming", reason=reason, attempts=attempts)
                receiver = self._messages.receivers.get(message.name)
                if receiver is not None and receiver.on_parked is not None:
                    await receiver.on_parked(message, uow, reason)
        exception = None if isinstance(error, ValidationError | Unknown | Unreadable) else error
        log.error("message_parked", name=message.name, message_id=message.id, reason=reason, exc_info=exception)

    async def forget(self, lanes: Iterable[UUID]) -> None:
        """Delete the records of lanes that have ended without a crash. Raises DatabaseUnavailable."""
        await attempts.delete(self._database, lanes)

    async def _handle(self, batch: Sequence[Ready]) -> None:
        if len(batch) == 1:
            with self._span(batch[0]):
                await self._in_one_transaction(batch, spans=False)
            return
        parents = [trace.get_current_span(ready.parent).get_span_context() for ready in batch if ready.recorded]
        with self._tracer.start_as_current_span(
            f"process batch {self._messages.service}",
            context=_NO_PARENT,
            kind=SpanKind.CONSUMER,
            links=[Link(parent) for parent in parents if parent.is_valid],
            attributes={"messaging.system": self._system, "messaging.batch.message_count": len(batch)},
            record_exception=False,
        ):
            await self._in_one_transaction(batch, spans=True)

    async def _in_one_transaction(self, batch: Sequence[Ready], *, spans: bool) -> None:
        began_at = time.monotonic()
        # A job is alone in its transaction, and only the line of a job has a limit of its own.
        seconds = batch[0].receiver.timeout_seconds or self.retry_policy.handler_timeout_seconds
        with closing(TimeLimit(seconds)) as limit:
            async with self._database.unit_of_work() as uow:
                handled = await self._claim_and_call(batch, uow, limit, spans=spans)
        if handled:
            self.worked_at = max(self.worked_at, began_at)
        if self._log_messages:
            for ready in handled:
                log_handled(ready.message, ready.parent)

    async def _claim_and_call(
        self, batch: Sequence[Ready], uow: UnitOfWork, limit: TimeLimit, *, spans: bool
    ) -> list[Ready]:
        """Call the handlers of the messages that were not handled before, and return these messages."""
        fresh = await inbox.claim(uow.connection, (ready.identity for ready in batch))
        handled = []
        asked_at = time.monotonic()
        for ready in batch:
            if ready.identity not in fresh:
                log.debug("message_known", name=ready.message.name, message_id=ready.message.id)
                continue
            fresh.remove(ready.identity)  # the same batch may hold a second copy
            inbox.introduce(ready.message, uow, self._messages.service)
            with self._span(ready) if spans else nullcontext():
                await self._call_handler(ready, uow, limit)
            handled.append(ready)
            if time.monotonic() - asked_at > PING_SECONDS:
                await uow.connection.execute("SELECT 1")
                asked_at = time.monotonic()
        return handled

    async def _call_handler(self, ready: Ready, uow: UnitOfWork, limit: TimeLimit) -> None:
        try:
            with limit:
                await ready.receiver.handler(ready.content, uow)
        except TimeoutError:  # the handler may also raise a TimeoutError of its own
            if limit.expired:
                own, usual = ready.receiver.timeout_seconds, self.retry_policy.handler_timeout_seconds
                name = f"the timeout of its line ({own:g} seconds)" if own else f"MESSAGE_TIMEOUT_SECONDS ({usual:g})"
                raise TimeoutError(f"it took longer than {name}") from None
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # This task was not cancelled, but a call that the handler waited for. So the attempt fails, and the lane goes on.
            raise Cancelled("what the handler waited for was cancelled") from None

    def _span(self, ready: Ready) -> ProcessSpan:
        parent, recorded = ready.parent, ready.recorded
        return ProcessSpan(self._tracer, self._duration, self._system, ready.message, parent=parent, recorded=recorded)


def _violations(error: ValidationError) -> list[str]:
    return [
        f"  {'.'.join(map(str, part['loc'])) or 'body'}: {part['msg']}" for part in error.errors(include_input=False)
    ]
