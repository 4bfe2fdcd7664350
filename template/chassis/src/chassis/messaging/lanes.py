"""The lanes of a consumer: a key's messages one after the other, also while one of them is tried again."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog

from chassis.brokers import Delivery, Subscription
from chassis.database import DatabaseUnavailable
from chassis.database.outages import NoConnection
from chassis.messaging.parking import ParkingFull
from chassis.telemetry.logs import describe_exception

if TYPE_CHECKING:
    from chassis.messaging.consumer import Consumer, Ready

log = structlog.get_logger()

DATABASE_PAUSE_SECONDS = 0.5
FAULT_PAUSE_SECONDS = 10


@dataclass(eq=False)
class _Held:
    """A key whose first message has failed, and what waits behind it."""

    first: Delivery
    tries: int
    due: float
    behind: deque[Delivery] = field(default_factory=deque)
    outage_at: float | None = None
    """When the last attempt met an outage of the database, if it did."""
    interrupted: bool = False
    """Whether that outage may concern all messages. Then the attempt does not count."""

    def __len__(self) -> int:
        return 1 + len(self.behind)


class Lane:
    """Some of the keys: their messages one batch after the other, in the order of arrival within each key."""

    def __init__(self, consumer: "Consumer", subscription: Subscription) -> None:
        self.id = uuid4()
        self._consumer = consumer
        self._subscription = subscription
        self._queue: deque[Delivery] = deque()
        self._doing: list[Delivery] = []
        self._waiting: dict[str, _Held] = {}
        self._again: _Held | None = None
        """Of those that wait, the one that is being tried."""
        self._alone = 0
        """How many of the next messages get a transaction of their own, because their batch met an outage."""
        self._wake = asyncio.Event()
        self._ends = float("inf")

    def __len__(self) -> int:
        return len(self._queue) + len(self._doing) + sum(map(len, self._waiting.values()))

    @property
    def failing(self) -> int:
        """How many messages have failed and wait for another attempt, or wait behind such a message."""
        return sum(len(held) for held in self._waiting.values() if not held.interrupted)

    @property
    def met_outage(self) -> bool:
        """Whether a message waits here that has met an outage alone in its transaction."""
        return any(held.outage_at is not None for held in self._waiting.values())

    @property
    def ahead(self) -> int:
        """How many are to be done before one that is added now: all but those that wait to be tried again."""
        return len(self._queue) + len(self._doing) + self.attempts_again

    @property
    def attempts_again(self) -> bool:
        """Whether the lane is making a further attempt at a message that has failed."""
        return self._again is not None

    def held(self) -> list[Delivery]:
        """All that is here and not acknowledged."""
        waiting = [one for held in self._waiting.values() for one in (held.first, *held.behind)]
        return [*self._doing, *waiting, *self._queue]

    def add(self, delivery: Delivery) -> None:
        self._queue.append(delivery)
        self._wake.set()

    def wake(self) -> None:
        """Have the lane look again at what is due."""
        self._wake.set()

    def stop(self, *, within_seconds: float) -> None:
        """Finish what was begun, and what else can be begun in that time. The rest stays here, to be given back."""
        self._ends = time.monotonic() + within_seconds
        self._wake.set()

    async def run(self) -> None:
        while time.monotonic() < self._ends:
            self._wake.clear()
            try:
                # After each further attempt the queue has its turn: attempts that take long are due again at once.
                self._again = None if self._again and self._queue else self._due()
                if self._again:
                    await self._try_again(self._again)
                elif batch := self._take():
                    await self._try(batch)
                elif self._ends < float("inf"):
                    return
                else:
                    await self._sleep()
                self._consumer.progress.set()
            except Exception as surprise:  # ours, not a handler's: the lane must go on all the same
                log.error("consumer_failed", exc_info=surprise)
                self._put_back()
                await asyncio.sleep(DATABASE_PAUSE_SECONDS)

    def _due(self) -> _Held | None:
        if self._consumer.crowded:
            # A message that has had all its attempts, and could not be parked, would only fail again: its pause goes on.
            max_tries = self._consumer.patience.max_tries
            failed = (held for held in self._waiting.values() if held.outage_at is None)
            if early := [held for held in failed if held.tries < max_tries]:
                return max(early, key=len)
        now = time.monotonic()
        due = (held for held in self._waiting.values() if held.due <= now or self._is_over(held))
        return min(due, key=attrgetter("due"), default=None)

    def _is_over(self, held: _Held) -> bool:
        """Whether the database has worked for another message since the outage that interrupted this message."""
        return held.interrupted and self._works_again(held)

    def _works_again(self, held: _Held) -> bool:
        return held.outage_at is not None and held.outage_at < self._consumer.worked_at

    def _take(self) -> list[Delivery]:
        batch: list[Delivery] = []
        most = 1 if self._alone else self._consumer.batch
        while self._queue and len(batch) < most:
            delivery = self._queue.popleft()
            if delivery.lost:
                continue
            if held := self._waiting.get(delivery.message.key):
                held.behind.append(delivery)
            elif not self._consumer.deaths(delivery):
                batch.append(delivery)
            elif batch:
                self._queue.appendleft(delivery)
                break
            else:
                return [delivery]
        return batch

    async def _sleep(self) -> None:
        if self._due():  # messages that were just put behind a failed message have made the consumer crowded
            return
        pauses = [held.due for held in self._waiting.values()]
        pause = max(0.0, min(pauses) - time.monotonic()) if pauses else None
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), pause)

    async def _try(self, batch: list[Delivery]) -> None:
        self._doing = batch
        self._alone = max(0, self._alone - len(batch))
        try:
            ready = await self._readable(batch)
            if not ready:
                return
            try:
                await self._consumer.do(ready, lane=self.id)
            except DatabaseUnavailable:
                raise
            except Exception as error:
                if len(ready) == 1:
                    await self._failed(ready[0].delivery, error, tries=1 + self._consumer.deaths(ready[0].delivery))
                else:
                    await self._one_by_one(ready)
            else:
                await self._done(one.delivery for one in ready)
        except DatabaseUnavailable as outage:
            await self._wait_out(outage)

    async def _readable(self, batch: list[Delivery]) -> list["Ready"]:
        ready = []
        for delivery in tuple(batch):
            if self._waits_behind(delivery):
                continue
            if one := await self._read(delivery):
                ready.append(one)
        return ready

    async def _read(self, delivery: Delivery) -> "Ready | None":
        """Return the message, or park it if it can never be handled."""
        try:
            return self._consumer.read(delivery)
        except Exception as error:  # including the errors of a contract's own validators
            await self._park(delivery, error, tries=1)
            return None

    async def _one_by_one(self, ready: list["Ready"]) -> None:
        for one in ready:
            if self._waits_behind(one.delivery):
                continue
            try:
                await self._consumer.do([one], lane=self.id)
            except DatabaseUnavailable:
                raise
            except Exception as error:
                await self._failed(one.delivery, error, tries=1)
            else:
                await self._done([one.delivery])

    async def _try_again(self, held: _Held) -> None:
        # If an unexpected error follows, the lane's other keys have their turn before this key.
        held.due = time.monotonic() + FAULT_PAUSE_SECONDS
        works_for_others = self._works_again(held)
        try:
            if not held.first.lost:
                ready = await self._read(held.first)
                if ready is None:
                    return
                try:
                    await self._consumer.do([ready], lane=self.id)
                except DatabaseUnavailable as outage:
                    if not works_for_others or isinstance(outage, NoConnection):
                        raise
                    await self._failed(held.first, outage, tries=held.tries + 1)
                    held.outage_at = time.monotonic()
                    return
                except Exception as error:
                    await self._failed(held.first, error, tries=held.tries + 1)
                    return
        except DatabaseUnavailable as outage:
            self._consumer.outages.add(outage)
            self._interrupt(held.first, held.tries)
            return
        await self._done([held.first])
        self._free(held.first)

    def _waits_behind(self, delivery: Delivery) -> bool:
        """Whether its key has come to wait since the batch was taken. Then the delivery waits, too."""
        held = self._waiting.get(delivery.message.key)
        if held is None:
            return False
        held.behind.append(delivery)
        self._doing.remove(delivery)
        return True

    async def _failed(self, delivery: Delivery, error: Exception, *, tries: int) -> None:
        """Hold its key for a while; or park it, and let its key go on."""
        patience = self._consumer.patience
        if tries >= (min(2, patience.max_tries) if self._consumer.crowded else patience.max_tries):
            await self._park(delivery, error, tries=tries)
            return
        pause = patience.pause_after(tries)
        message = delivery.message
        log.warning(
            "message_failed",
            name=message.name,
            message_id=message.id,
            tries=tries,
            again_in_seconds=pause,
            reason=f"{type(error).__name__}: {describe_exception(error)['message']}",
        )
        self._hold(delivery, tries, pause)

    async def _park(self, delivery: Delivery, error: Exception, *, tries: int) -> None:
        """Park the message and release its key. If parking fails, delay this key alone, and try again later."""
        try:
            await self._consumer.park(delivery, error, tries)
        except DatabaseUnavailable:
            raise
        except Exception as fault:
            message, patience = delivery.message, self._consumer.patience
            full = isinstance(fault, ParkingFull)
            if not full:  # a full parking is logged once, not for each message
                log.error("message_not_parked", name=message.name, message_id=message.id, exc_info=fault)
            pause = patience.longest_pause_seconds if full else FAULT_PAUSE_SECONDS
            self._hold(delivery, max(tries, patience.max_tries), pause)
            return
        await self._done([delivery])
        self._free(delivery)

    def _hold(self, delivery: Delivery, tries: int, pause: float) -> None:
        held = self._waiting.setdefault(delivery.message.key, _Held(delivery, tries, 0))
        held.tries, held.due = tries, time.monotonic() + pause
        held.outage_at, held.interrupted = None, False
        if delivery in self._doing:
            self._doing.remove(delivery)

    def _free(self, delivery: Delivery) -> None:
        held = self._waiting.get(delivery.message.key)
        if held is not None and held.first is delivery:
            del self._waiting[delivery.message.key]
            self._queue.extendleft(reversed(held.behind))

    async def _done(self, deliveries: Iterable[Delivery]) -> None:
        done = dict.fromkeys(deliveries)
        if done:
            self._doing = [delivery for delivery in self._doing if delivery not in done]
            await self._subscription.acknowledge(list(done))

    async def _wait_out(self, outage: DatabaseUnavailable) -> None:
        """Delay what is being processed, without a lost attempt.

        A message that may have caused the outage gets a transaction of its own. If that fails too, the message makes way for
        messages of other keys: if the database works for them, the message's next outage counts as a failed attempt.
        """
        self._consumer.outages.add(outage)
        if isinstance(outage, NoConnection):
            self._put_back()
        elif len(self._doing) == 1:
            (delivery,) = self._doing
            self._interrupt(delivery, self._consumer.deaths(delivery))
        else:
            self._alone = len(self._doing)
            self._put_back()
        await asyncio.sleep(DATABASE_PAUSE_SECONDS)

    def _interrupt(self, delivery: Delivery, tries: int) -> None:
        """Hold the key until the database works again. Interrupted keys take turns, so that they delay no other key."""
        self._hold(delivery, tries, 0)
        held = self._waiting[delivery.message.key]
        held.interrupted, held.outage_at = True, time.monotonic()
        held.due = held.outage_at + DATABASE_PAUSE_SECONDS * sum(one.interrupted for one in self._waiting.values())

    def _put_back(self) -> None:
        self._queue.extendleft(reversed(self._doing))
        self._doing = []
