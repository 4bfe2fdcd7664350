"""The consumer: takes what others sent, does each message once, and keeps what it cannot do.

A message goes through: fetched → its key's lane → in one transaction with its neighbours in the lane: id claimed in the
inbox, handler called, commit → acknowledged. If that fails, the neighbours are done one by one; the one that fails is
tried again with growing pauses while messages of its key wait behind it and all other keys go on; after MAX_TRIES it is
parked, and its key goes on. What can never succeed (unknown, malformed) is parked at once. The death of the process is a
failed try of what it had begun.

Failures of the infrastructure (no database, no broker) are nobody's tries: everything waits until they are over.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, closing, nullcontext, suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any
from uuid import UUID

import structlog
from opentelemetry import context, trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from pydantic import ValidationError

from chassis.brokers import Broker, Delivery, Kind, Message, Subscription, Unreadable
from chassis.database import Database, DatabaseUnavailable, UnitOfWork
from chassis.database.leadership import Lead, only_replica
from chassis.database.outages import OutageLog
from chassis.messages import Messages, Receiver, Unknown
from chassis.messaging import attempts, inbox, parking
from chassis.messaging.lanes import Lane
from chassis.messaging.time_limit import TimeLimit
from chassis.telemetry import trace_context
from chassis.telemetry.durations import Durations
from chassis.telemetry.logs import describe_exception
from chassis.telemetry.setup import Telemetry

log = structlog.get_logger()

LOCK = 0x636F6E73756D65  # "consume"
FETCH_SECONDS = 1
"""How long to wait for a first delivery, which is also how long a stop may take to be noticed."""
TOUCH_SECONDS = 3
PING_SECONDS = 5
"""The longest pause between two statements of a transaction; without them the server would end its idle session."""
PROGRESS_SECONDS = 0.1
"""How long a stop may take to be noticed while every lane is busy."""

_NOTHING = context.Context()


@dataclass(frozen=True)
class Shape:
    """How one kind of message is consumed.

    `lanes` are done at the same time, each `batch` messages in a transaction; `window` deliveries wait for their turn at
    most, and `held` with those that wait to be tried again. While one of these has met an outage, `spare` more are taken:
    only a message that succeeds proves that the database works.
    After a stop messages are begun for `last_seconds`, and what is left is given back.
    """

    lanes: int
    batch: int
    window: int
    held: int
    spare: int
    last_seconds: float


SHAPES = {
    # Many small effects in one commit: this is what makes a consumer fast. And what is at hand is finished: NATS and Kafka
    # would deliver again all that is behind the first event given back, also what another lane has done.
    Kind.EVENT: Shape(lanes=4, batch=100, window=1000, held=1000, spare=100, last_seconds=5),
    # A job may take long: alone in its transaction, and none at hand that no lane is free for; other replicas may do it.
    Kind.JOB: Shape(lanes=4, batch=1, window=4, held=200, spare=20, last_seconds=0),
}


@dataclass(frozen=True)
class Patience:
    """How often and after which pauses a failing message is tried again."""

    max_tries: int = 5
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 30
    handler_timeout_seconds: float = 30

    def pause_after(self, tries: int) -> float:
        return min(self.first_pause_seconds * 4 ** (tries - 1), self.longest_pause_seconds)


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


class Consumer:
    """Consumes the events, or the jobs, of one service."""

    def __init__(
        self,
        kind: Kind,
        broker: Broker,
        database: Database,
        messages: Messages,
        telemetry: Telemetry,
        *,
        database_url: str,
        patience: Patience,
        room: parking.Room | None = None,
    ) -> None:
        self.kind = kind
        self._room = room or parking.Room(database)
        self._lanes_at_work: list[Lane] = []
        self._broker = broker
        self._database = database
        self._messages = messages
        self._name = messages.service
        self._tracer = telemetry.tracer
        self._url = database_url
        self._patience = patience
        self._shape = SHAPES[kind]
        self._deaths: Counter[tuple[str, str]] = Counter()
        self._alone_with_it = asyncio.Lock()
        self._lead: Lead | None = None
        """Set if only one replica may consume."""
        self.outages = OutageLog()
        self.worked_at = 0.0
        """When the latest transaction began that has committed a message's effect. It proves that the database works."""
        self.progress = asyncio.Event()
        """Set by a lane that may have less to do."""
        self._duration = Durations(telemetry.meter, "messaging.process.duration", "Duration of processing a message.")

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop`; what is at hand is finished and acknowledged, as far as time allows; the rest is given back.

        Raises BrokerUnavailable, and DatabaseUnavailable where this replica is no longer the leader.
        """
        async with self._alone(stop) as self._lead:
            if stop.is_set():
                return
            self._deaths = await attempts.counted(self._database)
            subscription = await self._broker.subscribe(self.kind)
            try:
                async with self._lanes(subscription) as lanes:
                    await self._feed(subscription, lanes, stop)
            finally:
                await subscription.close()

    @asynccontextmanager
    async def _alone(self, stop: asyncio.Event) -> AsyncGenerator[Lead | None]:
        """Be the only consuming replica, or wait to become it, if replicas would break a key's order."""
        if self.kind is Kind.JOB or self._broker.shares_in_order:
            yield None
            return
        name = f"{self._name}-consumer"
        async with only_replica(self._url, name=name, lock=LOCK, stop=stop) as lead:
            yield lead

    def _check_lead(self) -> None:
        if self._lead is not None:
            self._lead.check()

    @asynccontextmanager
    async def _lanes(self, subscription: Subscription) -> AsyncGenerator[list[Lane]]:
        self._lanes_at_work = lanes = [Lane(self, subscription) for _ in range(self._shape.lanes)]
        tasks = [asyncio.create_task(lane.run()) for lane in lanes]
        touching = asyncio.create_task(self._touch(subscription, lanes))
        try:
            yield lanes
        finally:
            deposed = self._lead is not None and not self._lead.held
            if deposed:  # messages that arrive from now on belong to the new leader
                with suppress(Exception):
                    await subscription.close()
            for lane in lanes:
                lane.stop(within_seconds=0 if deposed else self._shape.last_seconds)
            try:
                await asyncio.gather(*tasks)
            finally:
                touching.cancel()  # or a consumer that was cancelled would keep its messages from every other one
            with suppress(Exception):
                await subscription.release([delivery for lane in lanes for delivery in lane.held()])
            with suppress(DatabaseUnavailable):
                await attempts.over(self._database, (lane.id for lane in lanes))

    async def _feed(self, subscription: Subscription, lanes: list[Lane], stop: asyncio.Event) -> None:
        log.info("consumer_started", kind=self.kind)
        while not stop.is_set():
            self._check_lead()
            if self.crowded:
                for lane in lanes:
                    lane.wake()
            most = self._shape.held + (self._shape.spare if any(lane.met_outage for lane in lanes) else 0)
            at_hand = sum(lane.ahead for lane in lanes)
            if all(lane.attempts_again for lane in lanes):
                at_hand -= len(lanes)  # or slow attempts, of which the next is due at once, would keep new messages out
            room = min(self._shape.window - at_hand, most - sum(len(lane) for lane in lanes))
            if room <= 0:
                self.progress.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.progress.wait(), PROGRESS_SECONDS)
                continue
            for delivery in await subscription.fetch(room, wait_seconds=FETCH_SECONDS):
                self._lane_for(delivery, lanes).add(delivery)

    def _lane_for(self, delivery: Delivery, lanes: list[Lane]) -> Lane:
        if self.kind is Kind.JOB:  # in no order, so none has to wait behind another one
            return min(lanes, key=attrgetter("ahead"))
        return lanes[hash(delivery.message.key) % len(lanes)]

    async def _touch(self, subscription: Subscription, lanes: list[Lane]) -> None:
        while True:
            await asyncio.sleep(TOUCH_SECONDS)
            with suppress(Exception):  # then they come again, and the inbox knows them
                await subscription.touch([delivery for lane in lanes for delivery in lane.held()])

    # What a lane asks for.

    @property
    def batch(self) -> int:
        return self._shape.batch

    @property
    def patience(self) -> Patience:
        return self._patience

    @property
    def crowded(self) -> bool:
        """Whether messages that have failed, and the messages behind them, take half of the room.

        Then each gets its next attempt at once, and is parked after the second attempt, so that others find room.
        """
        return sum(lane.failing for lane in self._lanes_at_work) > self._shape.held // 2 and not self._room.full

    def read(self, delivery: Delivery) -> Ready:
        """Raises Unreadable, Unknown or ValidationError."""
        message = delivery.message
        if delivery.unreadable is not None:
            raise Unreadable(delivery.unreadable)
        receiver = self._messages.receiver(message.name)
        content = receiver.contract.model_validate_json(message.body)
        parent = trace_context.extract(message.headers)
        return Ready(delivery, receiver, content, parent, trace_context.is_recorded(parent), message.identity)

    def deaths(self, delivery: Delivery) -> int:
        """How often a process has died that had begun it. If at all, it is to be done alone."""
        return self._deaths[delivery.message.identity] if self._deaths else 0

    async def do(self, ready: Sequence[Ready], *, lane: UUID) -> None:
        """Claim and handle all of them in one transaction. Raises what a handler raises; then nothing has happened."""
        deaths = self.deaths(ready[0].delivery)
        async with self._alone_with_it if deaths else nullcontext():
            if deaths >= max(self._patience.max_tries, 2):  # with the first it may have been a neighbour
                raise Deadly(f"{deaths} times a process died that had begun it")
            self._check_lead()
            await attempts.note(self._database, lane, [one.identity for one in ready])
            await self._handle(ready)

    async def _handle(self, ready: Sequence[Ready]) -> None:
        if len(ready) == 1:
            with self._processing(ready[0]):
                await self._in_one_transaction(ready, spans=False)
        else:
            parents = [trace.get_current_span(one.parent).get_span_context() for one in ready if one.recorded]
            with self._tracer.start_as_current_span(
                f"process batch {self._name}",
                context=_NOTHING,
                kind=SpanKind.CONSUMER,
                links=[Link(parent) for parent in parents if parent.is_valid],
                attributes={"messaging.system": self._broker.system, "messaging.batch.message_count": len(ready)},
                record_exception=False,
            ):
                await self._in_one_transaction(ready, spans=True)

    async def _in_one_transaction(self, ready: Sequence[Ready], *, spans: bool) -> None:
        began_at = time.monotonic()
        with closing(TimeLimit(self._patience.handler_timeout_seconds)) as limit:
            async with self._database.unit_of_work() as uow:
                wrote = await self._claim_and_call(ready, uow, limit, spans=spans)
        if wrote:
            self.worked_at = max(self.worked_at, began_at)

    async def _claim_and_call(self, ready: Sequence[Ready], uow: UnitOfWork, limit: TimeLimit, *, spans: bool) -> bool:
        """Returns whether any of the messages had not been handled before."""
        fresh = await inbox.claim(uow.connection, (one.identity for one in ready))
        wrote = bool(fresh)
        asked_at = time.monotonic()
        for one in ready:
            if one.identity not in fresh:
                log.debug("message_known", name=one.message.name, message_id=one.message.id)
                continue
            fresh.remove(one.identity)  # a second copy may be in this very batch
            uow.message_id = one.message.id
            with self._processing(one) if spans else nullcontext():
                await self._call_handler(one, uow, limit)
            if time.monotonic() - asked_at > PING_SECONDS:
                await uow.connection.execute("SELECT 1")
                asked_at = time.monotonic()
        return wrote

    async def _call_handler(self, one: Ready, uow: UnitOfWork, limit: TimeLimit) -> None:
        try:
            with limit:
                await one.receiver.handler(one.content, uow)
        except TimeoutError:  # the handler may also raise a TimeoutError of its own
            if limit.expired:
                seconds = self._patience.handler_timeout_seconds
                raise TimeoutError(f"it took longer than MESSAGE_TIMEOUT_SECONDS ({seconds:g})") from None
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not we: something else that the handler waited for. That is a failure, and no reason for the lane to end.
            raise Cancelled("what the handler waited for was cancelled") from None

    def _processing(self, one: Ready) -> "_Processing":
        return _Processing(self._tracer, self._duration, self._broker.system, one)

    async def park(self, delivery: Delivery, error: Exception, tries: int) -> None:
        """Park the message; a second copy changes nothing. Raises DatabaseUnavailable or ParkingFull."""
        message = delivery.message
        await self._room.take(message)
        reason = f"{type(error).__name__}: {describe_exception(error)['message']}"
        if isinstance(error, ValidationError):
            reason = "\n".join([f"it breaks the contract {error.title}", *_violations(error)])
        async with self._database.unit_of_work() as uow:
            if await inbox.claim(uow.connection, [message.identity]):
                await parking.park(uow.connection, message, direction="incoming", reason=reason, attempts=tries)
        exception = None if isinstance(error, ValidationError | Unknown | Unreadable) else error
        log.error("message_parked", name=message.name, message_id=message.id, reason=reason, exc_info=exception)


class _Processing:
    """The span and the measurement of one message. Code that runs inside belongs to the sender's trace."""

    def __init__(self, tracer: trace.Tracer, duration: Durations, system: str, one: Ready) -> None:
        self._tracer = tracer
        self._duration = duration
        self._attributes = {"messaging.system": system, "messaging.destination.name": one.message.name}
        self._one = one
        self._span: Span | None = None

    def __enter__(self) -> None:
        message, parent = self._one.message, self._one.parent
        current = parent
        if self._one.recorded:
            self._span = self._tracer.start_span(
                f"process {message.name}",
                context=parent,
                kind=SpanKind.CONSUMER,
                attributes={
                    **self._attributes,
                    "messaging.operation.name": "process",
                    "messaging.operation.type": "process",
                    "messaging.message.id": message.id,
                },
            )
            current = trace.set_span_in_context(self._span, parent)
        self._token = context.attach(current)
        self._started = time.perf_counter()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        attributes = self._attributes
        if error is not None:
            attributes = {**attributes, "error.type": type(error).__name__}
            if self._span is not None:
                self._span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        self._duration.record(time.perf_counter() - self._started, attributes)
        if self._span is not None:
            self._span.end()
        context.detach(self._token)


def _violations(error: ValidationError) -> list[str]:
    return [
        f"  {'.'.join(map(str, part['loc'])) or 'body'}: {part['msg']}" for part in error.errors(include_input=False)
    ]
