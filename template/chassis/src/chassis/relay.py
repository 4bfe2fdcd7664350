"""The relay: sends what the outbox holds, at least once, and in order within each aggregate.

A row leaves the outbox when the broker has confirmed it. Whatever ends between the two (this process, the database, the
broker), the row is sent again, under the same id. No transaction is open while the broker is spoken to.

Order: one relay of a service is active, the others stand by; rows of one key go one after the other. Changes of one
aggregate lock it until they commit, so their rows have the order of their commits.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import structlog
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from chassis import parking, tracecontext
from chassis.brokers import Broker, Kind, Message, MessageRefused
from chassis.database import Connection, dedicated_connection
from chassis.leadership import Lead, only_replica
from chassis.outbox import CHANNEL
from chassis.telemetry import Telemetry

log = structlog.get_logger()

LOCK = 0x72656C6179  # "relay"
BATCH = 500
POLL_SECONDS = 1
"""Between looks without a notification: for rows whose time has come, and in case a notification was lost."""

UNRECORDED = ("-00", "-02")
"""How the traceparent of a trace ends that was not sampled (W3C Trace Context). It goes on as it is: a span for nobody,
and its id in the header, would take a fifth of what sending costs."""

_WAITING = """
    (SELECT *, 0 AS later FROM chassis.outbox WHERE not_before IS NULL ORDER BY seq LIMIT $1)
    UNION ALL
    (SELECT *, 1 AS later FROM chassis.outbox WHERE not_before <= now() ORDER BY not_before, seq LIMIT $1)
"""
_LOGGED = "DELETE FROM chassis.outbox WHERE kind = 'event'"
_SENT = "DELETE FROM chassis.outbox WHERE seq = ANY($1::bigint[])"


class _Refusal(NamedTuple):
    seq: int
    message: Message
    reason: str


class Relay:
    """Sends the rows of one service's outbox. Run one in as many processes as you like: one at a time is active.

    Without `events` it sends jobs alone. Events are then cleared away: somebody reads them from the database's log.
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
        self._sent = telemetry.meter.create_counter(
            "messaging.client.sent.messages", unit="{message}", description="Messages that the broker has confirmed."
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Take the lead, then send until `stop`; what is being sent is finished. Raises what ends the connection."""
        async with self._leading(stop) as connection:
            while connection is not None and not stop.is_set():
                # Before the look: a commit after it sets the event again.
                self._wake.clear()
                if await self._send_waiting(connection) < BATCH:
                    await self._sleep(stop)

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
        await asyncio.wait(waiting, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for one in waiting:
            one.cancel()

    async def _send_waiting(self, connection: Connection) -> int:
        """Send what waits now. Returns how many rows were seen. Raises BrokerUnavailable if any was not confirmed."""
        if not self._events:
            await connection.execute(_LOGGED)
        rows = await connection.fetch(_WAITING, BATCH)
        if not rows:
            return 0
        confirmed: list[tuple[int, str]] = []
        refused: list[_Refusal] = []
        by_key = groupby(sorted(rows, key=itemgetter("aggregatetype", "aggregateid", "later", "seq")), _key)
        keys = (self._send_in_order(list(of_one_key), confirmed, refused) for _, of_one_key in by_key)
        failures = [failure for failure in await asyncio.gather(*keys, return_exceptions=True) if failure is not None]
        # Whatever failed: what was confirmed is not sent again.
        if refused:
            await self._park(connection, refused)
        if confirmed:
            await connection.execute(_SENT, [seq for seq, _ in confirmed])
            for name, count in Counter(name for _, name in confirmed).items():
                self._sent.add(count, self._measured(name))
        if failures:
            raise failures[0]
        return len(rows)

    async def _send_in_order(self, rows: list[Any], confirmed: list[tuple[int, str]], refused: list[_Refusal]) -> None:
        """One after the other; after a failure the rest of this key waits."""
        assert self._lead is not None, "run leads"
        for row in rows:
            self._lead.check()
            try:
                await self._send(row)
            except MessageRefused as error:
                kept = _message(row, {"aggregate": row["aggregatetype"], **_trace_of(row)})
                refused.append(_Refusal(row["seq"], kept, str(error)))
            else:
                confirmed.append((row["seq"], row["type"]))

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

    async def _park(self, connection: Connection, refused: list[_Refusal]) -> None:
        async with connection.transaction():
            for seq, message, reason in refused:
                await parking.park(connection, message, direction="outgoing", reason=reason, attempts=1)
                await connection.execute(_SENT, [seq])
        for _, message, reason in refused:
            log.error("message_parked", direction="outgoing", name=message.name, message_id=message.id, reason=reason)


def _key(row: Any) -> tuple[str, str]:
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
