"""The rows that are being sent: rows of several keys at the same time, and the rows of one key one after the other."""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import structlog

from chassis.brokers import BrokerUnavailable, MessageRefused
from chassis.messaging.destinations import Destinations
from chassis.messaging.message_log import log_sent
from chassis.messaging.relay_queries import Key, key_of
from chassis.messaging.sending import Sender
from chassis.telemetry.logs import describe_exception

log = structlog.get_logger()

BATCH_SECONDS = 0.5
"""How long the relay waits for a batch. A row without an answer by then no longer delays other rows."""
LONG_SECONDS = 0.9 * BATCH_SECONDS
"""A row without an answer after this time is slow. BATCH_SECONDS is longer, because its time begins before rows are sent."""
ATTEMPTS = 5
"""The most attempts to send a message on which the client library itself fails. Then the message is parked."""
RETRY_SECONDS = 0.2
"""The first pause between these attempts; each pause is twice as long as the one before it."""


class Refusal(NamedTuple):
    row: Any
    reason: str
    attempts: int


class Batch:
    """The keys whose rows one query has read."""

    def __init__(self, *, awaited: bool) -> None:
        self.sending = 0
        self.answered = asyncio.Event()
        self.awaited = awaited
        """Whether the relay waits for the whole batch. Otherwise the end of each of its keys wakes the relay."""

    async def wait(self) -> None:
        """Wait until all of the batch is answered, or for BATCH_SECONDS."""
        if self.sending and self.awaited:
            with suppress(TimeoutError):
                async with asyncio.timeout(BATCH_SECONDS):
                    await self.answered.wait()
            self.awaited = False


@dataclass(slots=True, eq=False)
class Sending:
    """A key that is being sent."""

    key: Key
    rows: deque[Any]
    """The row that is being sent, and the rows behind it."""
    batch: Batch
    began_at: float
    name: str = ""
    """The destination that the key waits for; empty while it waits for none."""
    asked_at: float = 0
    attempts: int = 0
    """How often the client library failed on the row that is being sent."""
    answer: asyncio.Future[None] | None = None


class InFlight:
    def __init__(
        self,
        sender: Sender,
        destinations: Destinations,
        *,
        may_send: Callable[[], bool],
        wake: Callable[[], None],
        log_messages: bool = False,
    ) -> None:
        self._sender = sender
        self._destinations = destinations
        self._may_send = may_send
        self._wake = wake
        self._log_messages = log_messages
        self.sending: dict[Key, Sending] = {}
        self.taken: dict[int, int] = {}
        """The rows that are being sent, or are settled and still in the outbox, with the sizes of their payloads."""
        self.failed: set[Key] = set()
        """Keys that failed since the last query began. The query may return later rows of these keys, which must not be sent."""
        self._confirmed: defaultdict[str, list[int]] = defaultdict(list)
        self._refused: list[Refusal] = []

    def slow(self, now: float) -> list[Key]:
        """Return the keys that take long. A destination that takes long to answer is paused, like a destination that fails."""
        slow = [(key, sending) for key, sending in self.sending.items() if now - sending.began_at > LONG_SECONDS]
        for _, sending in slow:
            if sending.name and now - sending.asked_at > LONG_SECONDS:
                self._destinations.pause(sending.name)
        return [key for key, _ in slow]

    def waits_for(self, name: str) -> bool:
        """Return whether a key waits for the answer of this destination."""
        return any(sending.name == name for sending in self.sending.values())

    def start(self, rows: list[Any]) -> Batch:
        """Start to send the rows. Return the batch to wait for, which lacks the keys that start at a failed destination."""
        batch, attempts = Batch(awaited=True), Batch(awaited=False)
        if not self._may_send():
            return batch
        if self.failed:
            rows = [row for row in rows if key_of(row) not in self.failed]
        self.taken.update((row["seq"], row["size"]) for row in rows)
        now, closed = time.monotonic(), self._destinations.closed
        begun = []
        for row in rows:
            key = key_of(row)
            if sending := self.sending.get(key):
                sending.rows.append(row)
                continue
            its_batch = attempts if row["waits_for"] in closed else batch
            its_batch.sending += 1
            self.sending[key] = sending = Sending(key, deque((row,)), its_batch, began_at=now)
            begun.append(sending)
        for sending in begun:
            self._send_first(sending)
        return batch

    def _send_first(self, sending: Sending, pause: float = 0) -> None:
        """Send the first row of a key. The rows of a key are sent one after the other, so the next row waits."""
        # Make no task for each row: Kafka's module returns a future, and a task would add half to the CPU time of a row.
        try:
            answer = asyncio.ensure_future(self._send_again(sending, pause) if pause else self._send(sending))
        except Exception as error:
            answer = asyncio.get_running_loop().create_future()
            answer.set_exception(error)
        sending.answer = answer
        answer.add_done_callback(partial(self._settle, sending))

    async def _send_again(self, sending: Sending, pause: float) -> None:
        sending.name = ""
        await asyncio.sleep(pause)
        await self._send(sending)

    def _send(self, sending: Sending) -> Awaitable[None]:
        row = sending.rows[0]
        sending.name, sending.asked_at = row["type"], time.monotonic()
        return self._sender.send(row)

    def _settle(self, sending: Sending, answer: asyncio.Future[None]) -> None:
        """Record the result of the first row of a key, and send the next row. After a failure or a stop, all later rows wait."""
        row = sending.rows[0]
        error = asyncio.CancelledError() if answer.cancelled() else answer.exception()
        if error is None:
            self._confirmed[row["type"]].append(row["seq"])
            if self._log_messages:
                log_sent(row)
            if self._destinations.paused:
                self._destinations.answered(row)
        elif isinstance(error, MessageRefused):
            self._refused.append(Refusal(row, str(error), sending.attempts + 1))
            self._destinations.answered(row)
        elif isinstance(error, (BrokerUnavailable, asyncio.CancelledError)):
            if isinstance(error, BrokerUnavailable):
                self._destinations.failed(row["type"], error)
            self._end(sending)
            return
        elif not self._give_up(sending, row, error):
            self._send_first(sending, RETRY_SECONDS * 2 ** (sending.attempts - 1))
            return
        sending.rows.popleft()
        sending.attempts = 0
        if sending.rows and self._may_send():
            self._send_first(sending)
        else:
            self._end(sending)

    def _give_up(self, sending: Sending, row: Any, error: BaseException) -> bool:
        """Return whether the client library failed on this message too often. Then the message is parked, so its key goes on."""
        sending.attempts += 1
        reason = f"{type(error).__name__}: {describe_exception(error)['message']}"
        log.warning("message_not_sent", name=row["type"], message_id=row["id"], attempt=sending.attempts, reason=reason)
        if sending.attempts == ATTEMPTS:
            self._refused.append(Refusal(row, reason, ATTEMPTS))
        return sending.attempts == ATTEMPTS

    def _end(self, sending: Sending) -> None:
        del self.sending[sending.key]
        if sending.rows:
            self.failed.add(sending.key)
            self.forget(row["seq"] for row in sending.rows)
        batch = sending.batch
        batch.sending -= 1
        if not batch.awaited:
            self._wake()
        elif not batch.sending:
            batch.answered.set()

    def settled(self) -> tuple[dict[str, list[int]], list[Refusal]]:
        """Return what was settled since the last call: the rows that the broker has confirmed, by destination, and refusals."""
        confirmed, self._confirmed = self._confirmed, defaultdict(list)
        refused, self._refused = self._refused, []
        return confirmed, refused

    def forget(self, rows: Iterable[int]) -> None:
        for seq in rows:
            self.taken.pop(seq, None)

    async def abandon(self) -> None:
        """Forget the rows in flight: the next leader sends them again."""
        while answers := [answer for answer in self.answers if not answer.done()]:
            for answer in answers:
                answer.cancel()
            await asyncio.gather(*answers, return_exceptions=True)
        for what in (self.sending, self.taken, self._confirmed, self._refused):
            what.clear()

    @property
    def answers(self) -> list[asyncio.Future[None]]:
        return [sending.answer for sending in self.sending.values() if sending.answer is not None]
