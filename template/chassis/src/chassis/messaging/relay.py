"""The relay: sends what the outbox holds, at least once, and in order within each aggregate.

A row leaves the outbox when the broker has confirmed it. Whatever ends between the two (this process, the database, the
broker), the row is sent again, under the same id. No transaction is open while the broker is spoken to.

Order: one relay of a service is active, the others stand by; rows of one key go one after the other. Changes of one
aggregate lock it until they commit, so their rows have the order of their commits.

A destination, which is the name of a message, may fail or hang while the others work. Its rows then wait, with the
later rows of their keys, and a few of them at a time find out whether the destination is back. All other rows are sent
meanwhile.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Awaitable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import structlog
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from chassis.brokers import Broker, BrokerUnavailable, DestinationUnavailable, Kind, Message, MessageRefused
from chassis.database import Connection
from chassis.database.connection import dedicated_connection
from chassis.database.leadership import Lead, only_replica
from chassis.messaging import backlog, parking
from chassis.messaging.backlog import Key
from chassis.messaging.outbox import CHANNEL
from chassis.telemetry import trace_context
from chassis.telemetry.logs import describe_exception
from chassis.telemetry.setup import Telemetry

log = structlog.get_logger()

LOCK = 0x72656C6179  # "relay"
BATCH = 500
IN_FLIGHT_BYTES = 16 * 2**20
"""How much the payloads in flight may take. A batch takes half of it at most, and one row goes always."""
POLL_SECONDS = 1
"""Between looks without a notification: for rows whose time has come, and in case a notification was lost."""

BATCH_SECONDS = 0.5
"""How long the relay waits for a batch. A row without an answer by then no longer delays other rows."""
LONG_SECONDS = 0.9 * BATCH_SECONDS
"""What was sent so long ago takes long: less than the wait for a batch, whose rows begin a moment after the wait."""
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10
"""The pauses between attempts to reach a destination that failed."""
QUEUES_SECONDS = 5
"""How often the relay looks for queues in the outbox that another leader has begun."""
ATTEMPTS = 5
"""How often a message is sent on which the client library itself fails, before the message is parked."""

UNRECORDED = ("-00", "-02")
"""The ends of a traceparent whose trace was not sampled (W3C Trace Context). It is passed on unchanged: an unrecorded
span, and its id in the header, would take a fifth of the cost of sending."""


class _Refusal(NamedTuple):
    row: Any
    reason: str
    attempts: int


@dataclass
class _Pause:
    """A destination that failed, or takes long to answer. Rows wait in its queue until it is known to work again."""

    failures: int = 0
    reason: str = ""
    """The reason that was logged last."""
    until: float = 0
    window: int = 1
    """How many rows are sent next. Each success adds one, so the window doubles from round to round."""


class _Batch:
    """The keys whose rows were read at one look."""

    def __init__(self, *, awaited: bool) -> None:
        self.sending = 0
        self.answered = asyncio.Event()
        self.awaited = awaited
        """Whether the relay waits for the whole batch. Otherwise the end of each of its keys wakes the relay."""


@dataclass(slots=True, eq=False)
class _Sending:
    """A key that is being sent."""

    key: Key
    rows: deque[Any]
    """The row that is being sent, and the rows behind it."""
    batch: _Batch
    began_at: float
    name: str = ""
    """The destination that the key waits for; empty while it waits for none."""
    asked_at: float = 0
    attempts: int = 0
    """How often the client library failed on the row that is being sent."""
    answer: asyncio.Future[None] | None = None


class Relay:
    """Sends the rows of one service's outbox. Run one in as many processes as you like: one at a time is active.

    Without `events` it sends jobs alone, and deletes events: Debezium has read them from the database's log.
    """

    def __init__(
        self, database_url: str, broker: Broker, telemetry: Telemetry, *, name: str, events: bool = True
    ) -> None:
        self._url = database_url
        self._broker = broker
        self._tracer = telemetry.tracer
        self._name = name
        self._events = events
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._lead: Lead | None = None
        self._sending: dict[Key, _Sending] = {}
        self._taken: dict[int, int] = {}
        """The rows that are being sent, or are settled and still in the outbox, with the sizes of their payloads."""
        self._failed: set[Key] = set()
        """Keys that failed since the last look. That look may have found later rows of them, which must not be sent."""
        self._looked_at = 0.0
        self._queues_at = float("-inf")
        self._pauses: dict[str, _Pause] = {}
        self._interrupted = False
        """Whether it was logged that the broker is away, and the broker has not answered since."""
        self._confirmed: defaultdict[str, list[int]] = defaultdict(list)
        """Rows that the broker has taken, by destination."""
        self._refused: list[_Refusal] = []
        self._sent = telemetry.meter.create_counter(
            "messaging.client.sent.messages", unit="{message}", description="Messages that the broker has confirmed."
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Take the lead, then send until `stop`, and finish the messages in flight. Raises what ends the connection."""
        async with self._leading(stop) as connection:
            if connection is None:
                return
            self._queues_at = float("-inf")
            self._stop = stop
            try:
                await self._send_until(stop, connection)
                await self._finish(connection)
            finally:
                await self._abandon()

    @asynccontextmanager
    async def _leading(self, stop: asyncio.Event) -> AsyncGenerator[Connection | None]:
        name = f"{self._name}-relay"
        async with only_replica(self._url, name=name, lock=LOCK, stop=stop) as lead:
            if lead is None:
                yield None
                return
            # The lead proves itself on its own connection, while this one may be busy with a statement.
            async with dedicated_connection(self._url, name=name) as connection:
                log.info("relay_started")
                self._lead = lead
                connection.add_termination_listener(lambda _: self._wake.set())
                await connection.add_listener(CHANNEL, lambda *_: self._wake.set())
                yield connection

    async def _send_until(self, stop: asyncio.Event, connection: Connection) -> None:
        """Send batch after batch. While a batch is being sent, delete the batch before it and read the batch after it."""
        assert self._lead is not None, "run leads"
        before: _Batch | None = None
        while not stop.is_set():
            # Before the look: a commit after it sets the event again.
            self._wake.clear()
            self._lead.check()
            await self._record(connection)
            rows, more = await self._take(connection)
            batch = self._start(rows)
            if more:
                # Without a batch before it, the first batch shows whether the broker takes messages.
                await self._answers(before or batch)
                before = batch
            else:
                for each in (before, batch):
                    await self._answers(each)
                before = None
                await self._record(connection)
                await self._sleep(stop)

    async def _answers(self, batch: _Batch | None) -> None:
        """Wait until all of the batch is answered, or for BATCH_SECONDS."""
        if batch is not None and batch.sending and batch.awaited:
            with suppress(TimeoutError):
                async with asyncio.timeout(BATCH_SECONDS):
                    await batch.answered.wait()
            batch.awaited = False

    async def _sleep(self, stop: asyncio.Event) -> None:
        waiting = [asyncio.ensure_future(event.wait()) for event in (self._wake, stop)]
        # A pause that ended before the look has had its attempt, or its rows wait for something else.
        ends = [pause.until for pause in self._pauses.values() if pause.until > self._looked_at]
        pause = max(0, min(ends) - time.monotonic()) if ends else POLL_SECONDS
        await asyncio.wait(waiting, timeout=min(pause, POLL_SECONDS), return_when=asyncio.FIRST_COMPLETED)
        for one in waiting:
            one.cancel()

    async def _take(self, connection: Connection) -> tuple[list[Any], bool]:
        """Return the rows to send next, and whether more rows wait behind them."""
        if not self._events:
            await backlog.delete_events(connection)
        self._failed.clear()
        self._looked_at = now = time.monotonic()
        if now > self._queues_at + QUEUES_SECONDS:
            self._queues_at = now
            for name in await backlog.names(connection):
                self._pauses.setdefault(name, _Pause())
        excluded = backlog.Excluded(list(self._taken), self._slow(now))
        size = self._room([])
        rows = await backlog.read(connection, BATCH, excluded, size=size)
        more = _full(rows, size)
        if self._pauses:
            at_once = [row for row in rows if not row["later"]]
            # A row after the end of a full batch may follow an older row of its key that the batch did not reach.
            end = at_once[-1]["seq"] if _full(at_once, size) else float("inf")
            rows = await backlog.hold(connection, rows, self._closed, None)
            for name in [name for name, pause in self._pauses.items() if pause.until <= now]:
                size = self._room(rows)
                held = await self._take_held(connection, name, excluded, size)
                more = more or _full(held, size)
                rows += [row for row in held if row["kind"] == Kind.JOB or row["seq"] < end]
            rows.sort(key=itemgetter("later", "seq"))
        return rows, more

    def _room(self, rows: list[Any]) -> int:
        """Return how many bytes of payloads to read next, after `rows` at this look."""
        batch = sum(row["size"] for row in rows)
        return max(1, min(IN_FLIGHT_BYTES // 2, IN_FLIGHT_BYTES - sum(self._taken.values())) - batch)

    async def _take_held(self, connection: Connection, name: str, excluded: backlog.Excluded, size: int) -> list[Any]:
        """Return the rows of a failed destination to send next: a few at first, and more with each success."""
        if name in self._closed and any(sending.name == name for sending in self._sending.values()):
            return []
        pause = self._pauses[name]
        rows = await backlog.read(connection, min(pause.window, BATCH), excluded, name, size=size)
        # A pause ends by a success only: rows of the destination may wait for another thing meanwhile.
        if not rows and pause.window > 1 and name not in await backlog.names(connection):
            del self._pauses[name]
            if pause.reason:
                log.info("destination_restored", name=name)
        free = await backlog.hold(connection, rows, self._closed, name)
        if len(free) < len(rows):
            self._wake.set()
        return free

    @property
    def _closed(self) -> set[str]:
        """The destinations that are not known to work."""
        return {name for name, pause in self._pauses.items() if pause.window < BATCH}

    def _slow(self, now: float) -> list[Key]:
        """Return the keys that take long. A destination that takes long to answer is paused, like one that fails."""
        slow = [(key, sending) for key, sending in self._sending.items() if now - sending.began_at > LONG_SECONDS]
        for _, sending in slow:
            if sending.name and now - sending.asked_at > LONG_SECONDS:
                self._pauses.setdefault(sending.name, _Pause())
        return [key for key, _ in slow]

    def _start(self, rows: list[Any]) -> _Batch:
        """Begin to send the rows. Returns the batch to wait for: it lacks the keys that attempt a failed destination."""
        batch, attempts = _Batch(awaited=True), _Batch(awaited=False)
        if not self._may_send:
            return batch
        if self._failed:
            rows = [row for row in rows if backlog.key_of(row) not in self._failed]
        self._taken.update((row["seq"], row["size"]) for row in rows)
        now, closed = time.monotonic(), self._closed
        begun = []
        for row in rows:
            key = backlog.key_of(row)
            if sending := self._sending.get(key):
                sending.rows.append(row)
                continue
            its_batch = attempts if row["waits_for"] in closed else batch
            its_batch.sending += 1
            self._sending[key] = sending = _Sending(key, deque((row,)), its_batch, began_at=now)
            begun.append(sending)
        for sending in begun:
            self._send_first(sending)
        return batch

    @property
    def _may_send(self) -> bool:
        assert self._lead is not None, "run leads"
        return not self._stop.is_set() and self._lead.held

    def _send_first(self, sending: _Sending, pause: float = 0) -> None:
        """Send the first row of a key. The rows of a key are sent one after the other, so the next row waits."""
        # A task would cost as much as the rest of the work on a row: Kafka's module returns a future without a task.
        try:
            answer = asyncio.ensure_future(self._send_again(sending, pause) if pause else self._send(sending))
        except Exception as error:
            answer = asyncio.get_running_loop().create_future()
            answer.set_exception(error)
        sending.answer = answer
        answer.add_done_callback(partial(self._settle, sending))

    async def _send_again(self, sending: _Sending, pause: float) -> None:
        sending.name = ""
        await asyncio.sleep(pause)
        await self._send(sending)

    def _settle(self, sending: _Sending, answer: asyncio.Future[None]) -> None:
        """Note what became of the first row of a key. Send the next row; after a failure, or a stop, the rest waits."""
        row = sending.rows[0]
        error = asyncio.CancelledError() if answer.cancelled() else answer.exception()
        if error is None:
            self._confirmed[row["type"]].append(row["seq"])
            if self._pauses:
                self._answered(row)
        elif isinstance(error, MessageRefused):
            self._refused.append(_Refusal(row, str(error), sending.attempts + 1))
            self._answered(row)
        elif isinstance(error, (BrokerUnavailable, asyncio.CancelledError)):
            if isinstance(error, BrokerUnavailable):
                self._pause(row["type"], error)
            self._end(sending)
            return
        elif not self._give_up(sending, row, error):
            self._send_first(sending, FIRST_PAUSE_SECONDS * 2 ** (sending.attempts - 1))
            return
        sending.rows.popleft()
        sending.attempts = 0
        if sending.rows and self._may_send:
            self._send_first(sending)
        else:
            self._end(sending)

    def _give_up(self, sending: _Sending, row: Any, error: BaseException) -> bool:
        """Whether the client library failed on this message too often. Other messages need not wait for it."""
        sending.attempts += 1
        reason = f"{type(error).__name__}: {describe_exception(error)['message']}"
        log.warning("message_not_sent", name=row["type"], message_id=row["id"], attempt=sending.attempts, reason=reason)
        if sending.attempts == ATTEMPTS:
            self._refused.append(_Refusal(row, reason, ATTEMPTS))
        return sending.attempts == ATTEMPTS

    def _end(self, sending: _Sending) -> None:
        del self._sending[sending.key]
        if sending.rows:
            self._failed.add(sending.key)
            self._forget(row["seq"] for row in sending.rows)
        batch = sending.batch
        batch.sending -= 1
        if not batch.awaited:
            self._wake.set()
        elif not batch.sending:
            batch.answered.set()

    def _answered(self, row: Any) -> None:
        self._interrupted = False
        for name in {row["type"], row["waits_for"]}:
            if pause := self._pauses.get(name):
                pause.window += 1

    def _pause(self, name: str, error: BrokerUnavailable) -> None:
        pause = self._pauses.setdefault(name, _Pause())
        if pause.until <= time.monotonic():  # one failure for all rows that fail at the same time
            self._tell(name, pause, error)
            pause.failures += 1
            pause.until = time.monotonic() + min(FIRST_PAUSE_SECONDS * 2 ** (pause.failures - 1), LONGEST_PAUSE_SECONDS)
            pause.window = 1

    def _tell(self, name: str, pause: _Pause, error: BrokerUnavailable) -> None:
        """Log each reason once for a destination, and an interruption of the broker once for all of them."""
        reason = str(error)
        one_destination = isinstance(error, DestinationUnavailable)
        if reason == pause.reason or (self._interrupted and not one_destination):
            return
        if one_destination:
            log.warning("destination_unavailable", name=name, reason=reason)
        else:
            log.warning("worker_interrupted", part="relay", reason=reason)
        pause.reason, self._interrupted = reason, not one_destination

    async def _record(self, connection: Connection) -> None:
        """Delete or park the settled rows, so that they are not sent again."""
        confirmed, self._confirmed = self._confirmed, defaultdict(list)
        refused, self._refused = self._refused, []
        if refused:
            await self._park(connection, refused)
        if confirmed:
            rows = [seq for of_one_name in confirmed.values() for seq in of_one_name]
            await backlog.delete(connection, rows)
            self._forget(rows)
            for name, of_one_name in confirmed.items():
                self._sent.add(len(of_one_name), self._measured(name))
        self._forget(refusal.row["seq"] for refusal in refused)

    def _forget(self, rows: Iterable[int]) -> None:
        for seq in rows:
            self._taken.pop(seq, None)

    async def _finish(self, connection: Connection) -> None:
        while answers := self._expected:
            await self._record(connection)
            await asyncio.wait(answers, timeout=BATCH_SECONDS)
        await self._record(connection)

    async def _abandon(self) -> None:
        """Forget the rows in flight: the next leader sends them again."""
        answers = self._expected
        for answer in answers:
            answer.cancel()
        await asyncio.gather(*answers, return_exceptions=True)
        for what in (self._sending, self._taken, self._pauses, self._confirmed, self._refused):
            what.clear()
        self._interrupted = False

    @property
    def _expected(self) -> list[asyncio.Future[None]]:
        return [sending.answer for sending in self._sending.values() if sending.answer is not None]

    def _send(self, sending: _Sending) -> Awaitable[None]:
        row = sending.rows[0]
        sending.name, sending.asked_at = row["type"], time.monotonic()
        # The row's trace, not that of whatever woke us.
        stored = _trace_of(row)
        if stored.get("traceparent", "").endswith(UNRECORDED):
            return self._broker.publish(_message(row, stored))
        return self._send_in_span(row, stored)

    async def _send_in_span(self, row: Any, stored: Mapping[str, str]) -> None:
        name, parent = row["type"], trace_context.extract(stored)
        span = self._tracer.start_span(f"send {name}", context=parent, kind=SpanKind.PRODUCER)
        if span.is_recording():
            span.set_attributes(
                {
                    **self._measured(name),
                    "messaging.operation.name": "send",
                    "messaging.operation.type": "send",
                    "messaging.message.id": row["id"],
                }
            )
        carrier: dict[str, str] = {}
        trace_context.inject(carrier, trace.set_span_in_context(span, parent))
        try:
            await self._broker.publish(_message(row, carrier))
        except Exception as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            span.end()

    def _measured(self, name: str) -> dict[str, str]:
        return {"messaging.system": self._broker.system, "messaging.destination.name": name}

    async def _park(self, connection: Connection, refused: Iterable[_Refusal]) -> None:
        for row, reason, attempts in refused:
            message = _message(row, {"aggregate": row["aggregatetype"], **_trace_of(row)})
            async with connection.transaction():
                if await backlog.delete(connection, [row["seq"]]):
                    await parking.park(connection, message, direction="outgoing", reason=reason, attempts=attempts)
            log.error("message_parked", direction="outgoing", name=message.name, message_id=message.id, reason=reason)


def _full(rows: list[Any], size: int) -> bool:
    """Whether more rows may wait behind these, of which `size` bytes were asked for."""
    return len(rows) >= BATCH or sum(row["size"] for row in rows) >= size


def _trace_of(row: Any) -> dict[str, str]:
    return {name: row[name] for name in ("traceparent", "tracestate") if row[name] is not None}


def _message(row: Any, headers: dict[str, str]) -> Message:
    return Message(
        kind=Kind(row["kind"]),
        name=row["type"],
        id=row["id"],
        key=row["aggregateid"],
        body=row["payload"].encode(),
        headers={"content-type": row["content_type"], **headers},
    )
