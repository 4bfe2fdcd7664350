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
from collections import Counter
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import structlog
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from chassis import parking, tracecontext
from chassis.brokers import Broker, BrokerUnavailable, DestinationUnavailable, Kind, Message, MessageRefused
from chassis.database import Connection, dedicated_connection
from chassis.leadership import Lead, only_replica
from chassis.logs import describe_exception
from chassis.outbox import CHANNEL
from chassis.telemetry import Telemetry

log = structlog.get_logger()

LOCK = 0x72656C6179  # "relay"
BATCH = 500
POLL_SECONDS = 1
"""Between looks without a notification: for rows whose time has come, and in case a notification was lost."""

BATCH_SECONDS = 0.5
"""How long the relay waits for a batch. A row without an answer by then no longer delays other rows."""
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10
"""The pauses between attempts to reach a destination that failed."""
ATTEMPTS = 5
"""How often a message is sent on which the client library itself fails, before the message is parked."""

UNRECORDED = ("-00", "-02")
"""The ends of a traceparent whose trace was not sampled (W3C Trace Context). It is passed on unchanged: an unrecorded
span, and its id in the header, would take a fifth of the cost of sending."""

_WAITING = """
    (SELECT seq, id, kind, aggregatetype, aggregateid, type, payload, content_type, traceparent, tracestate, 0 AS later
    FROM chassis.outbox WHERE not_before IS NULL ORDER BY seq LIMIT $1)
    UNION ALL
    (SELECT seq, id, kind, aggregatetype, aggregateid, type, payload, content_type, traceparent, tracestate, 1 AS later
    FROM chassis.outbox WHERE not_before <= now() ORDER BY not_before, seq LIMIT $1)
"""
# $2: destinations that fail or hang. $3 and $4: keys that are being sent. $5: the failing destination to attempt, or
# NULL for all others. No row overtakes the first row of its key that a failing destination holds up.
_WAITING_ELSEWHERE = """
    WITH blocked AS MATERIALIZED (
        SELECT aggregatetype, aggregateid, min(seq) AS seq FROM chassis.outbox
        WHERE kind = 'event' AND type = ANY($2::text[]) GROUP BY 1, 2
        UNION ALL SELECT *, 0 FROM unnest($3::text[], $4::text[])
    ), free AS NOT MATERIALIZED (
        SELECT * FROM chassis.outbox AS waiting
        WHERE CASE WHEN $5::text IS NULL THEN type <> ALL($2) ELSE type = $5 END AND NOT EXISTS (
            SELECT FROM blocked WHERE aggregatetype = waiting.aggregatetype AND aggregateid = waiting.aggregateid
            AND seq < waiting.seq
        )
    )
    (SELECT *, 0 AS later FROM free WHERE not_before IS NULL ORDER BY seq LIMIT $1)
    UNION ALL
    (SELECT *, 1 AS later FROM free WHERE not_before <= now() ORDER BY not_before, seq LIMIT $1)
"""
_LOGGED = "DELETE FROM chassis.outbox WHERE kind = 'event'"
_SENT = "DELETE FROM chassis.outbox WHERE seq = ANY($1::bigint[])"


Key = tuple[str, str]


class _Refusal(NamedTuple):
    row: Any
    reason: str
    attempts: int


@dataclass
class _Pause:
    """A destination that failed. It is paused until it is known to work again."""

    failures: int = 0
    until: float = 0
    window: int = 1
    """How many rows are sent next. Each success adds one, so the window doubles from round to round."""


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
        self._lead: Lead | None = None
        self._sending: dict[Key, str] = {}
        """The keys that are being sent, each with the destination that it waits for; empty while it waits for none."""
        self._pauses: dict[str, _Pause] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: list[Key] = []
        self._confirmed: list[tuple[int, str]] = []
        self._refused: list[_Refusal] = []
        self._sent = telemetry.meter.create_counter(
            "messaging.client.sent.messages", unit="{message}", description="Messages that the broker has confirmed."
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Take the lead, then send until `stop`, and finish the messages in flight. Raises what ends the connection."""
        async with self._leading(stop) as connection:
            if connection is None:
                return
            try:
                while not stop.is_set():
                    # Before the look: a commit after it sets the event again.
                    self._wake.clear()
                    if await self._send_waiting(connection) < BATCH:
                        await self._sleep(stop)
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

    async def _sleep(self, stop: asyncio.Event) -> None:
        waiting = [asyncio.ensure_future(event.wait()) for event in (self._wake, stop)]
        ends = [pause.until for name, pause in self._pauses.items() if name not in self._sending.values()]
        pause = max(0, min(ends) - time.monotonic()) if ends else POLL_SECONDS
        await asyncio.wait(waiting, timeout=min(pause, POLL_SECONDS), return_when=asyncio.FIRST_COMPLETED)
        for one in waiting:
            one.cancel()

    async def _send_waiting(self, connection: Connection) -> int:
        """Send the rows that wait now, and wait up to BATCH_SECONDS for answers. Returns how many rows were found."""
        assert self._lead is not None, "run leads"
        self._lead.check()
        if not self._events:
            await connection.execute(_LOGGED)
        await self._record(connection)
        rows = await self._take(connection)
        by_key = groupby(sorted(rows, key=itemgetter("aggregatetype", "aggregateid", "later", "seq")), _key)
        started = [self._start(key, list(of_one_key)) for key, of_one_key in by_key]
        if awaited := [task for task in started if task is not None]:
            _, late = await asyncio.wait(awaited, timeout=BATCH_SECONDS)
            for task in late:
                task.add_done_callback(lambda _: self._wake.set())
        await self._record(connection)
        return len(rows)

    async def _take(self, connection: Connection) -> list[Any]:
        """Return the rows to send next: a window of rows for each failed destination, and a batch of all others."""
        if not self._pauses and not self._sending:
            return await connection.fetch(_WAITING, BATCH)
        busy = {name for name in self._sending.values() if name}
        closed = busy | self._pauses.keys()
        keys = [[key[part] for key in self._sending] for part in (0, 1)]
        rows = await connection.fetch(_WAITING_ELSEWHERE, BATCH, list(closed), *keys, None)
        at_once = [row["seq"] for row in rows if not row["later"]]
        # A row after the end of a full batch may follow an older row of its key that the batch did not reach.
        end = at_once[-1] if len(at_once) == BATCH else float("inf")
        for name, pause in list(self._pauses.items()):
            if name in busy or pause.until > time.monotonic():
                continue
            found = await connection.fetch(_WAITING_ELSEWHERE, pause.window, list(closed), *keys, name)
            if not found or pause.window >= BATCH:
                del self._pauses[name]
                log.info("destination_restored", name=name)
            rows += [row for row in found if row["kind"] == Kind.JOB or row["seq"] < end]
        return rows

    def _start(self, key: Key, rows: list[Any]) -> asyncio.Task[None] | None:
        """Begin to send the rows of one key. Returns the task to wait for, or None for a failed destination."""
        self._sending[key] = name = rows[0]["type"]
        task = asyncio.create_task(self._send_in_order(key, rows))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if name not in self._pauses:
            return task
        task.add_done_callback(lambda _: self._wake.set())
        return None

    async def _send_in_order(self, key: Key, rows: list[Any]) -> None:
        """Send the rows of one key one after the other. After a failure the rest of this key waits."""
        assert self._lead is not None, "run leads"
        try:
            for row in rows:
                if not self._lead.held or not await self._settle(key, row):
                    return
        finally:
            self._ended.append(key)

    async def _settle(self, key: Key, row: Any) -> bool:
        """Send one row. Returns whether the next row of its key may follow."""
        name, reason = row["type"], ""
        for attempt in range(1, ATTEMPTS + 1):
            self._sending[key] = name
            try:
                await self._send(row)
            except BrokerUnavailable as error:
                self._pause(name, error)
                return False
            except MessageRefused as error:
                self._refused.append(_Refusal(row, str(error), attempt))
                return True
            except Exception as error:  # the client library fails on this message: other messages need not wait
                reason = f"{type(error).__name__}: {describe_exception(error)['message']}"
                log.warning("message_not_sent", name=name, message_id=str(row["id"]), attempt=attempt, reason=reason)
                self._sending[key] = ""
                await asyncio.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
            else:
                self._confirmed.append((row["seq"], name))
                if pause := self._pauses.get(name):
                    pause.window += 1
                return True
        self._refused.append(_Refusal(row, reason, ATTEMPTS))
        return True

    def _pause(self, name: str, error: BrokerUnavailable) -> None:
        if isinstance(error, DestinationUnavailable):
            if name not in self._pauses:
                log.warning("destination_unavailable", name=name, reason=str(error))
        elif not self._pauses:
            log.warning("worker_interrupted", part="relay", reason=str(error))
        pause = self._pauses.setdefault(name, _Pause())
        if pause.until <= time.monotonic():  # one failure for all rows that fail at the same time
            pause.failures += 1
            pause.until = time.monotonic() + min(FIRST_PAUSE_SECONDS * 2 ** (pause.failures - 1), LONGEST_PAUSE_SECONDS)
            pause.window = 1

    async def _record(self, connection: Connection) -> None:
        """Delete or park the settled rows, so that they are not sent again. Then free their keys."""
        confirmed, self._confirmed = self._confirmed, []
        refused, self._refused = self._refused, []
        ended, self._ended = self._ended, []
        if refused:
            await self._park(connection, refused)
        if confirmed:
            await connection.execute(_SENT, [seq for seq, _ in confirmed])
            for name, count in Counter(name for _, name in confirmed).items():
                self._sent.add(count, self._measured(name))
        for key in ended:
            del self._sending[key]

    async def _finish(self, connection: Connection) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._record(connection)

    async def _abandon(self) -> None:
        """Forget the rows in flight: the next leader sends them again."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for what in (self._sending, self._pauses, self._ended, self._confirmed, self._refused):
            what.clear()

    async def _send(self, row: Any) -> None:
        name = row["type"]
        # The row's trace, not that of whatever woke us.
        stored = _trace_of(row)
        if stored.get("traceparent", "").endswith(UNRECORDED):
            await self._broker.publish(_message(row, stored))
            return
        parent = tracecontext.extract(stored)
        span = self._tracer.start_span(f"send {name}", context=parent, kind=SpanKind.PRODUCER)
        if span.is_recording():
            span.set_attributes(
                {
                    **self._measured(name),
                    "messaging.operation.name": "send",
                    "messaging.operation.type": "send",
                    "messaging.message.id": str(row["id"]),
                }
            )
        carrier: dict[str, str] = {}
        tracecontext.inject(carrier, trace.set_span_in_context(span, parent))
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
                if await connection.execute(_SENT, [row["seq"]]) == "DELETE 1":
                    await parking.park(connection, message, direction="outgoing", reason=reason, attempts=attempts)
            log.error("message_parked", direction="outgoing", name=message.name, message_id=message.id, reason=reason)


def _key(row: Any) -> Key:
    return row["aggregatetype"], row["aggregateid"]


def _trace_of(row: Any) -> dict[str, str]:
    return {name: row[name] for name in ("traceparent", "tracestate") if row[name] is not None}


def _message(row: Any, headers: dict[str, str]) -> Message:
    return Message(
        kind=Kind(row["kind"]),
        name=row["type"],
        id=str(row["id"]),
        key=row["aggregateid"],
        body=row["payload"].encode(),
        headers={"content-type": row["content_type"], **headers},
    )
