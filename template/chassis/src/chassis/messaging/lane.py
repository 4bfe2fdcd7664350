"""One lane of a consumer: the messages of a key one after the other, also while one of them waits for another attempt."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from uuid import uuid4

import structlog

from chassis.brokers import Delivery, Subscription
from chassis.database import DatabaseUnavailable
from chassis.database.outages import NoConnection, OutageLog
from chassis.messaging.delayed_keys import DelayedKey, DelayedKeys
from chassis.messaging.parking import ParkingFull
from chassis.messaging.processing import Processor, Ready
from chassis.telemetry.logs import describe_exception

log = structlog.get_logger()

DATABASE_PAUSE_SECONDS = 0.5
FAULT_PAUSE_SECONDS = 10


class Lane:
    """Process the messages of some keys, one batch after the other, in the order of arrival within each key."""

    def __init__(
        self,
        processor: Processor,
        subscription: Subscription,
        *,
        batch_size: int,
        crowded: Callable[[], bool],
        progress: asyncio.Event,
        outages: OutageLog,
    ) -> None:
        """`crowded` returns whether failed messages leave too little room for others, in all lanes together.

        The lane sets `progress` after each batch, because the lane may have room for messages then.
        """
        self.id = uuid4()
        self._processor = processor
        self._retry_policy = processor.retry_policy
        self._subscription = subscription
        self._batch_size = batch_size
        self._crowded = crowded
        self._progress = progress
        self._outages = outages
        self._queue: deque[Delivery] = deque()
        self._processing: list[Delivery] = []
        self._delayed = DelayedKeys()
        self._again: DelayedKey | None = None
        """The delayed key whose first message is being processed again."""
        self._alone = 0
        """How many of the next messages get a transaction of their own, because their batch met an outage."""
        self._wake = asyncio.Event()
        self._ends = float("inf")

    def __len__(self) -> int:
        return len(self._queue) + len(self._processing) + len(self._delayed)

    @property
    def failing(self) -> int:
        """How many messages have failed and wait for another attempt, or wait behind such a message."""
        return self._delayed.failing

    @property
    def met_outage(self) -> bool:
        """Whether a message waits in this lane whose last attempt, alone in its transaction, met an outage."""
        return self._delayed.met_outage

    @property
    def ahead(self) -> int:
        """How many messages are processed before a message that is added now: all but the messages of delayed keys."""
        return len(self._queue) + len(self._processing) + self.attempts_again

    @property
    def attempts_again(self) -> bool:
        """Whether the lane is making a further attempt at a message that has failed."""
        return self._again is not None

    def held(self) -> list[Delivery]:
        """Return all deliveries that are here and not acknowledged."""
        return [*self._processing, *self._delayed.deliveries, *self._queue]

    def add(self, delivery: Delivery) -> None:
        self._queue.append(delivery)
        self._wake.set()

    def wake(self) -> None:
        """Have the lane look again at what is due."""
        self._wake.set()

    def stop(self, *, within_seconds: float) -> None:
        """Finish the current batch, and the batches that begin in that time. The consumer gives all other messages back."""
        self._ends = time.monotonic() + within_seconds
        self._wake.set()

    async def run(self) -> None:
        while time.monotonic() < self._ends:
            self._wake.clear()
            try:
                # After each further attempt the queue has its turn: after a slow attempt, the next attempt may be due already.
                self._again = None if self._again and self._queue else self._due()
                if self._again:
                    await self._retry(self._again)
                elif batch := self._take():
                    await self._process(batch)
                elif self._ends < float("inf"):
                    return
                else:
                    await self._sleep()
                self._progress.set()
            except Exception as surprise:  # an error of the chassis, not of a handler: the lane must go on all the same
                log.error("consumer_failed", exc_info=surprise)
                self._put_back()
                await asyncio.sleep(DATABASE_PAUSE_SECONDS)

    def _due(self) -> DelayedKey | None:
        if self._crowded() and (longest := self._delayed.longest(max_attempts=self._retry_policy.max_attempts)):
            return longest
        return self._delayed.due(worked_at=self._processor.worked_at)

    def _take(self) -> list[Delivery]:
        batch: list[Delivery] = []
        most = 1 if self._alone else self._batch_size
        while self._queue and len(batch) < most:
            delivery = self._queue.popleft()
            if delivery.lost or self._delayed.add_behind(delivery):
                continue
            if not self._processor.crashes(delivery):
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
        next_due = self._delayed.next_due
        pause = None if next_due is None else max(0.0, next_due - time.monotonic())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), pause)

    async def _process(self, batch: list[Delivery]) -> None:
        self._processing = batch
        self._alone = max(0, self._alone - len(batch))
        try:
            ready = await self._readable(batch)
            if not ready:
                return
            try:
                await self._processor.process(ready, lane=self.id)
            except DatabaseUnavailable:
                raise
            except Exception as error:
                if len(ready) == 1:
                    delivery = ready[0].delivery
                    await self._fail(delivery, error, attempts=1 + self._processor.crashes(delivery))
                else:
                    await self._process_one_by_one(ready)
            else:
                await self._acknowledge(one.delivery for one in ready)
        except DatabaseUnavailable as outage:
            await self._wait_out(outage)

    async def _readable(self, batch: list[Delivery]) -> list[Ready]:
        ready = []
        for delivery in tuple(batch):
            if self._waits_behind(delivery):
                continue
            if one := await self._read(delivery):
                ready.append(one)
        return ready

    async def _read(self, delivery: Delivery) -> Ready | None:
        """Return the message, or park it if it can never be handled."""
        try:
            return self._processor.read(delivery)
        except Exception as error:  # including the errors of a contract's own validators
            await self._park(delivery, error, attempts=1)
            return None

    async def _process_one_by_one(self, ready: list[Ready]) -> None:
        for one in ready:
            if self._waits_behind(one.delivery):
                continue
            try:
                await self._processor.process([one], lane=self.id)
            except DatabaseUnavailable:
                raise
            except Exception as error:
                await self._fail(one.delivery, error, attempts=1)
            else:
                await self._acknowledge([one.delivery])

    async def _retry(self, key: DelayedKey) -> None:
        """Make another attempt at the first message of a delayed key."""
        # If an unexpected error follows, the lane's other keys have their turn before this key.
        key.due = time.monotonic() + FAULT_PAUSE_SECONDS
        works_for_others = key.works_again(self._processor.worked_at)
        try:
            if not key.first.lost:
                ready = await self._read(key.first)
                if ready is None:
                    return
                try:
                    await self._processor.process([ready], lane=self.id)
                except DatabaseUnavailable as outage:
                    if not works_for_others or isinstance(outage, NoConnection):
                        raise
                    await self._fail(key.first, outage, attempts=key.attempts + 1)
                    key.outage_at = time.monotonic()
                    return
                except Exception as error:
                    await self._fail(key.first, error, attempts=key.attempts + 1)
                    return
        except DatabaseUnavailable as outage:
            self._outages.add(outage)
            self._interrupt(key.first, key.attempts)
            return
        await self._acknowledge([key.first])
        self._release(key.first)

    def _waits_behind(self, delivery: Delivery) -> bool:
        """Return whether the key has been delayed since the batch was taken. Then the delivery waits, too."""
        waits = self._delayed.add_behind(delivery)
        if waits:
            self._processing.remove(delivery)
        return waits

    async def _fail(self, delivery: Delivery, error: Exception, *, attempts: int) -> None:
        """Delay this key before the next attempt, or park the message and release the key."""
        policy = self._retry_policy
        if attempts >= (min(2, policy.max_attempts) if self._crowded() else policy.max_attempts):
            await self._park(delivery, error, attempts=attempts)
            return
        pause = policy.pause_after(attempts)
        message = delivery.message
        log.warning(
            "message_failed",
            name=message.name,
            message_id=message.id,
            attempts=attempts,
            again_in_seconds=pause,
            reason=f"{type(error).__name__}: {describe_exception(error)['message']}",
        )
        self._delay(delivery, attempts, pause)

    async def _park(self, delivery: Delivery, error: Exception, *, attempts: int) -> None:
        """Park the message and release its key. If parking fails, delay this key alone, and try again later."""
        try:
            await self._processor.park(delivery, error, attempts)
        except DatabaseUnavailable:
            raise
        except Exception as fault:
            message, policy = delivery.message, self._retry_policy
            full = isinstance(fault, ParkingFull)
            if not full:  # ParkingLimits logs once that parking is full, not for each message
                log.error("message_not_parked", name=message.name, message_id=message.id, exc_info=fault)
            pause = policy.longest_pause_seconds if full else FAULT_PAUSE_SECONDS
            self._delay(delivery, max(attempts, policy.max_attempts), pause)
            return
        await self._acknowledge([delivery])
        self._release(delivery)

    def _delay(self, delivery: Delivery, attempts: int, pause_seconds: float) -> None:
        self._delayed.delay(delivery, attempts, pause_seconds)
        self._stop_processing(delivery)

    def _interrupt(self, delivery: Delivery, attempts: int) -> None:
        self._delayed.interrupt(delivery, attempts, DATABASE_PAUSE_SECONDS)
        self._stop_processing(delivery)

    def _stop_processing(self, delivery: Delivery) -> None:
        if delivery in self._processing:
            self._processing.remove(delivery)

    def _release(self, delivery: Delivery) -> None:
        self._queue.extendleft(reversed(self._delayed.release(delivery)))

    async def _acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        done = dict.fromkeys(deliveries)
        if done:
            self._processing = [delivery for delivery in self._processing if delivery not in done]
            await self._subscription.acknowledge(list(done))

    async def _wait_out(self, outage: DatabaseUnavailable) -> None:
        """Delay what is being processed, without a failed attempt.

        A message that may have caused the outage gets a transaction of its own. If that fails too, the message makes way for
        messages of other keys: if the database works for them, the message's next outage counts as a failed attempt.
        """
        self._outages.add(outage)
        if isinstance(outage, NoConnection):
            self._put_back()
        elif len(self._processing) == 1:
            (delivery,) = self._processing
            self._interrupt(delivery, self._processor.crashes(delivery))
        else:
            self._alone = len(self._processing)
            self._put_back()
        await asyncio.sleep(DATABASE_PAUSE_SECONDS)

    def _put_back(self) -> None:
        self._queue.extendleft(reversed(self._processing))
        self._processing = []
