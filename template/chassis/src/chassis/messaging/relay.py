"""The relay: sends what the outbox holds, at least once, and in order within each aggregate.

The relay deletes a row after the broker has confirmed its message. If this process, the database or the broker fails before
that, the row is sent again, under the same id. No transaction is open while the relay waits for the broker.

Messages stay in order, because only one relay of a service is active while the others stand by, and because the rows of one
key are sent one after the other. A change of an aggregate locks the aggregate until the commit, so its rows have the order
of the commits.

A destination, which is the name of a message, may fail or hang while the others work. Its rows then wait, with the
later rows of their keys, and the relay sends a few of them at a time to find out whether the destination is back. All other
rows are sent meanwhile.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from operator import itemgetter
from typing import Any

import structlog

from chassis.brokers import Broker, Kind
from chassis.database import Connection
from chassis.database.connection import dedicated_connection
from chassis.database.leadership import Lead, only_replica
from chassis.messaging import parking, relay_queries
from chassis.messaging.destinations import Destinations
from chassis.messaging.in_flight import BATCH_SECONDS, Batch, InFlight, Refusal
from chassis.messaging.outbox import CHANNEL
from chassis.messaging.relay_queries import BATCH
from chassis.messaging.sending import Sender, message_of, trace_of
from chassis.telemetry.setup import Telemetry

log = structlog.get_logger()

LOCK = 0x72656C6179  # "relay"
IN_FLIGHT_BYTES = 16 * 2**20
"""The most bytes of payloads in flight. A batch takes at most half of the bytes, and one row is always sent."""
POLL_SECONDS = 1
"""How long the relay waits for a notification before it reads rows: rows become due, and a notification may be lost."""
QUEUES_SECONDS = 5
"""How often the relay looks for queues in the outbox that another leader has begun."""


class Relay:
    """Sends the rows of one service's outbox. Each process may run a relay: only one relay at a time is active.

    Without `events` it sends jobs alone, and deletes events: Debezium has read them from the database's log.
    """

    def __init__(
        self,
        database_url: str,
        broker: Broker,
        telemetry: Telemetry,
        *,
        name: str,
        events: bool = True,
        log_messages: bool = False,
    ) -> None:
        self._url = database_url
        self._name = name
        self._events = events
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._lead: Lead | None = None
        self._sender = Sender(broker, telemetry)
        self._destinations = Destinations()
        self._in_flight = InFlight(
            self._sender,
            self._destinations,
            may_send=self._may_send,
            wake=self._wake.set,
            log_messages=log_messages,
        )
        self._looked_at = 0.0
        self._queues_at = float("-inf")
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
                await self._in_flight.abandon()
                self._destinations.clear()

    @asynccontextmanager
    async def _leading(self, stop: asyncio.Event) -> AsyncGenerator[Connection | None]:
        name = f"{self._name}-relay"
        async with only_replica(self._url, name=name, lock=LOCK, stop=stop) as lead:
            if lead is None:
                yield None
                return
            # The lead has a connection of its own for its proofs, because this connection may be busy with a statement.
            async with dedicated_connection(self._url, name=name) as connection:
                log.info("relay_started")
                self._lead = lead
                await relay_queries.read_by_index(connection, scope="SESSION")
                connection.add_termination_listener(lambda _: self._wake.set())
                await connection.add_listener(CHANNEL, lambda *_: self._wake.set())
                yield connection

    async def _send_until(self, stop: asyncio.Event, connection: Connection) -> None:
        """Send batch after batch. While a batch is being sent, delete the batch before it and read the batch after it."""
        assert self._lead is not None, "run leads"
        before: Batch | None = None
        while not stop.is_set():
            # Clear the event before the query: a commit during or after the query sets the event again.
            self._wake.clear()
            self._lead.check()
            await self._record(connection)
            rows, more = await self._take(connection)
            batch = self._in_flight.start(rows)
            if more:
                # Wait for the former batch while this batch is sent. Without a former batch, wait for this one: it shows
                # whether the broker takes messages.
                await (before or batch).wait()
                before = batch
            else:
                for each in (before, batch):
                    if each is not None:
                        await each.wait()
                before = None
                await self._record(connection)
                await self._sleep(stop)

    async def _sleep(self, stop: asyncio.Event) -> None:
        waiting = [asyncio.ensure_future(event.wait()) for event in (self._wake, stop)]
        # A pause that had ended before the last query needs no wake-up: its rows were attempted, or wait for something else.
        ends = [pause.until for pause in self._destinations.paused.values() if pause.until > self._looked_at]
        pause = max(0, min(ends) - time.monotonic()) if ends else POLL_SECONDS
        await asyncio.wait(waiting, timeout=min(pause, POLL_SECONDS), return_when=asyncio.FIRST_COMPLETED)
        for one in waiting:
            one.cancel()

    async def _take(self, connection: Connection) -> tuple[list[Any], bool]:
        """Return the rows to send next, and whether more rows wait behind them."""
        if not self._events:
            await relay_queries.delete_events(connection)
        self._in_flight.failed.clear()
        self._looked_at = now = time.monotonic()
        if now > self._queues_at + QUEUES_SECONDS:
            self._queues_at = now
            for name in await relay_queries.names(connection):
                self._destinations.pause(name)
        excluded = relay_queries.Excluded(list(self._in_flight.taken), self._in_flight.slow(now))
        size = self._room([])
        rows = await relay_queries.read(connection, BATCH, excluded, size=size)
        more = _full(rows, size)
        if self._destinations.paused:
            at_once = [row for row in rows if not row["later"]]
            # A row after the end of a full batch may follow an older row of its key that the batch did not reach.
            end = at_once[-1]["seq"] if _full(at_once, size) else float("inf")
            rows = await relay_queries.hold(connection, rows, self._destinations.closed, None)
            for name in self._destinations.due(now):
                size = self._room(rows)
                held = await self._take_held(connection, name, excluded, size)
                more = more or _full(held, size)
                rows += [row for row in held if row["kind"] == Kind.JOB or row["seq"] < end]
        rows.sort(key=itemgetter("later", "seq"))
        return rows, more

    def _room(self, rows: list[Any]) -> int:
        """Return how many bytes of payloads to read next, if `rows` are already read for the same batch."""
        batch = sum(row["size"] for row in rows)
        return max(1, min(IN_FLIGHT_BYTES // 2, IN_FLIGHT_BYTES - sum(self._in_flight.taken.values())) - batch)

    async def _take_held(
        self, connection: Connection, name: str, excluded: relay_queries.Excluded, size: int
    ) -> list[Any]:
        """Return the rows of a failed destination to send next: a few at first, and more with each success."""
        if name in self._destinations.closed and self._in_flight.waits_for(name):
            return []
        pause = self._destinations.paused[name]
        rows = await relay_queries.read(connection, min(pause.window, BATCH), excluded, name, size=size)
        # An empty queue alone does not end a pause, because rows of the destination may wait in another queue. A success
        # has to come first: it makes the window greater than 1.
        if not rows and pause.window > 1 and name not in await relay_queries.names(connection):
            self._destinations.restore(name)
        free = await relay_queries.hold(connection, rows, self._destinations.closed, name)
        if len(free) < len(rows):
            self._wake.set()
        return free

    async def _record(self, connection: Connection) -> None:
        """Delete or park the settled rows, so that they are not sent again."""
        confirmed, refused = self._in_flight.settled()
        if refused:
            await self._park(connection, refused)
        if confirmed:
            rows = [seq for of_one_name in confirmed.values() for seq in of_one_name]
            await relay_queries.delete(connection, rows)
            self._in_flight.forget(rows)
            for name, of_one_name in confirmed.items():
                self._sent.add(len(of_one_name), self._sender.measured(name))
        self._in_flight.forget(refusal.row["seq"] for refusal in refused)

    def _may_send(self) -> bool:
        assert self._lead is not None, "run leads"
        return not self._stop.is_set() and self._lead.held

    async def _finish(self, connection: Connection) -> None:
        while answers := self._in_flight.answers:
            await self._record(connection)
            await asyncio.wait(answers, timeout=BATCH_SECONDS)
        await self._record(connection)

    async def _park(self, connection: Connection, refused: Iterable[Refusal]) -> None:
        for row, reason, attempts in refused:
            message = message_of(row, {"aggregate": row["aggregatetype"], **trace_of(row)})
            async with connection.transaction():
                if await relay_queries.delete(connection, [row["seq"]]):
                    await parking.park(connection, message, direction="outgoing", reason=reason, attempts=attempts)
            log.error("message_parked", direction="outgoing", name=message.name, message_id=message.id, reason=reason)


def _full(rows: list[Any], size: int) -> bool:
    """Return whether more rows may wait behind these rows, which a query with the limit of `size` bytes has returned."""
    return len(rows) >= BATCH or sum(row["size"] for row in rows) >= size
