"""The keys of a lane whose first message waits for another attempt. Later messages of such a key wait behind it."""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from chassis.brokers import Delivery


@dataclass(eq=False)
class DelayedKey:
    """A key whose first message has failed, and the messages behind that message."""

    first: Delivery
    attempts: int
    due: float
    behind: deque[Delivery] = field(default_factory=deque)
    outage_at: float | None = None
    """When the last attempt met an outage of the database, if it did."""
    interrupted: bool = False
    """Whether that outage may concern all messages, so that the attempt does not count as failed."""

    def __len__(self) -> int:
        return 1 + len(self.behind)

    def works_again(self, worked_at: float) -> bool:
        """Return whether the database has worked for another message since this key met an outage."""
        return self.outage_at is not None and self.outage_at < worked_at


class DelayedKeys:
    """All delayed keys of one lane."""

    def __init__(self) -> None:
        self._keys: dict[str, DelayedKey] = {}

    def __len__(self) -> int:
        """Return the number of messages."""
        return sum(map(len, self._keys.values()))

    @property
    def failing(self) -> int:
        """How many messages have failed and wait for another attempt, or wait behind such a message."""
        return sum(len(key) for key in self._keys.values() if not key.interrupted)

    @property
    def met_outage(self) -> bool:
        """Whether the last attempt at a message, alone in its transaction, met an outage."""
        return any(key.outage_at is not None for key in self._keys.values())

    @property
    def deliveries(self) -> list[Delivery]:
        return [delivery for key in self._keys.values() for delivery in (key.first, *key.behind)]

    @property
    def next_due(self) -> float | None:
        """When the next key is due, on the monotonic clock."""
        return min((key.due for key in self._keys.values()), default=None)

    def due(self, *, worked_at: float) -> DelayedKey | None:
        """Return the key that is due for longest. An interrupted key is due once the database has worked for others."""
        now = time.monotonic()
        keys: Iterable[DelayedKey] = self._keys.values()
        due = (key for key in keys if key.due <= now or (key.interrupted and key.works_again(worked_at)))
        return min(due, key=attrgetter("due"), default=None)

    def longest(self, *, max_attempts: int) -> DelayedKey | None:
        """Return the key that delays the most messages, even if its pause has not ended.

        A message that has had all its attempts, and could not be parked, would only fail again: its pause continues.
        """
        failed = (key for key in self._keys.values() if key.outage_at is None and key.attempts < max_attempts)
        return max(failed, key=len, default=None)

    def add_behind(self, delivery: Delivery) -> bool:
        """Let the delivery wait if its key is delayed. Return whether the key is delayed."""
        key = self._keys.get(delivery.message.key)
        if key is None:
            return False
        key.behind.append(delivery)
        return True

    def delay(self, delivery: Delivery, attempts: int, pause_seconds: float) -> DelayedKey:
        """Delay the key of this message, which has failed `attempts` times."""
        key = self._keys.setdefault(delivery.message.key, DelayedKey(delivery, attempts, 0))
        key.attempts, key.due = attempts, time.monotonic() + pause_seconds
        key.outage_at, key.interrupted = None, False
        return key

    def interrupt(self, delivery: Delivery, attempts: int, pause_seconds: float) -> None:
        """Delay the key until the database works again. Interrupted keys take turns, so that they delay no other key."""
        key = self.delay(delivery, attempts, 0)
        key.interrupted, key.outage_at = True, time.monotonic()
        key.due = key.outage_at + pause_seconds * sum(each.interrupted for each in self._keys.values())

    def release(self, delivery: Delivery) -> Sequence[Delivery]:
        """Release the key if this is its first message. Returns the messages behind, in order."""
        key = self._keys.get(delivery.message.key)
        if key is None or key.first is not delivery:
            return ()
        del self._keys[delivery.message.key]
        return key.behind
