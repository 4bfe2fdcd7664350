"""The lanes of a consumer: how many there are, which lane gets a delivery, and how much they take at a time."""

import asyncio
from dataclasses import dataclass, replace
from operator import attrgetter

from chassis.brokers import Delivery, Kind, Subscription
from chassis.database.outages import OutageLog
from chassis.messaging.lane import Lane
from chassis.messaging.processing import Processor


@dataclass(frozen=True)
class Shape:
    """How one kind of message is consumed.

    `lanes` work at the same time, each on `batch` messages in a transaction. At most `window` deliveries wait for their
    turn, and at most `held` deliveries are here, with the deliveries of delayed keys. While a delayed key has met an outage,
    `spare` more deliveries are taken: only a message that succeeds proves that the database works.
    After a stop, lanes begin batches for `last_seconds`, and give back the rest.
    """

    lanes: int
    batch: int
    window: int
    held: int
    spare: int
    last_seconds: float


SHAPES = {
    # Many small effects in one commit make a consumer fast. After a stop, the lanes finish the events that they hold: NATS and
    # Kafka would deliver all events behind the first returned event again, even events that another lane has processed.
    Kind.EVENT: Shape(lanes=4, batch=100, window=1000, held=1000, spare=100, last_seconds=5),
    # A job may take long, so it is alone in its transaction. If no lane is free, a job stays available to other replicas.
    Kind.JOB: Shape(lanes=4, batch=1, window=4, held=200, spare=20, last_seconds=0),
}


class Lanes:
    """All lanes of one consumer, from one subscription to its end."""

    def __init__(
        self,
        kind: Kind,
        processor: Processor,
        subscription: Subscription,
        outages: OutageLog,
        *,
        jobs_at_once: int | None = None,
    ) -> None:
        self.progress = asyncio.Event()
        """An event that a lane sets when it may have room for more messages."""
        self._kind = kind
        self._shape = SHAPES[kind]
        if kind is Kind.JOB and jobs_at_once is not None:
            self._shape = replace(self._shape, lanes=jobs_at_once, window=jobs_at_once)
        self._processor = processor
        self._lanes = [
            Lane(
                processor,
                subscription,
                batch_size=self._shape.batch,
                crowded=lambda: self.crowded,
                progress=self.progress,
                outages=outages,
            )
            for _ in range(self._shape.lanes)
        ]

    async def run(self) -> None:
        """Process deliveries until `stop`. Afterwards, `held()` is what the lanes did not process."""
        await asyncio.gather(*(lane.run() for lane in self._lanes))

    def stop(self, *, at_once: bool) -> None:
        for lane in self._lanes:
            lane.stop(within_seconds=0 if at_once else self._shape.last_seconds)

    @property
    def crowded(self) -> bool:
        """Whether messages that have failed, and the messages behind them, take half of the room.

        Then each gets its next attempt at once, and is parked after the second attempt, so that others find room.
        """
        failing = sum(lane.failing for lane in self._lanes)
        return failing > self._shape.held // 2 and not self._processor.parking_limits.full

    @property
    def room(self) -> int:
        """How many more deliveries the lanes take now."""
        lanes = self._lanes
        most = self._shape.held + (self._shape.spare if any(lane.met_outage for lane in lanes) else 0)
        ahead = sum(lane.ahead for lane in lanes)
        if all(lane.attempts_again for lane in lanes):
            ahead -= len(lanes)  # otherwise slow attempts, one after the other, would keep new messages out
        return min(self._shape.window - ahead, most - sum(map(len, lanes)))

    def wake_if_crowded(self) -> None:
        if self.crowded:
            for lane in self._lanes:
                lane.wake()

    def add(self, delivery: Delivery) -> None:
        if self._kind is Kind.JOB:  # jobs have no order, so no job has to wait behind another one
            lane = min(self._lanes, key=attrgetter("ahead"))
        else:
            lane = self._lanes[hash(delivery.message.key) % len(self._lanes)]
        lane.add(delivery)

    def held(self) -> list[Delivery]:
        """Return all deliveries that are here and not acknowledged."""
        return [delivery for lane in self._lanes for delivery in lane.held()]

    async def forget(self) -> None:
        """Delete the records of what the lanes processed: they have ended without a crash. Raises DatabaseUnavailable."""
        await self._processor.forget(lane.id for lane in self._lanes)
