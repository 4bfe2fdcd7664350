"""The destinations that fail or take long to answer. A destination is the name of a message.

Rows for such a destination wait. The relay sends a few of them at a time, to find out whether the destination is back.
"""

import time
from dataclasses import dataclass
from typing import Any

import structlog

from chassis.brokers import BrokerUnavailable, DestinationUnavailable
from chassis.messaging.relay_queries import BATCH

log = structlog.get_logger()

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10
"""The pauses between attempts to reach a destination that failed."""


@dataclass
class Pause:
    """A destination that failed, or takes long to answer. Rows wait in its queue until it is known to work again."""

    failures: int = 0
    reason: str = ""
    """The reason that was logged last."""
    until: float = 0
    window: int = 1
    """How many rows are sent next. Each success adds one, so the window doubles from round to round."""


class Destinations:
    def __init__(self) -> None:
        self.paused: dict[str, Pause] = {}
        self._interrupted = False
        """Whether the log says that the broker is away, and the broker has not answered since then."""

    @property
    def closed(self) -> set[str]:
        """The destinations that are not known to work."""
        return {name for name, pause in self.paused.items() if pause.window < BATCH}

    def pause(self, name: str) -> None:
        """Pause a destination that is not known to work."""
        self.paused.setdefault(name, Pause())

    def due(self, now: float) -> list[str]:
        """Return the destinations whose pause has ended."""
        return [name for name, pause in self.paused.items() if pause.until <= now]

    def restore(self, name: str) -> None:
        if self.paused.pop(name).reason:
            log.info("destination_restored", name=name)

    def clear(self) -> None:
        self.paused.clear()
        self._interrupted = False

    def answered(self, row: Any) -> None:
        self._interrupted = False
        for name in {row["type"], row["waits_for"]}:
            if pause := self.paused.get(name):
                pause.window += 1

    def failed(self, name: str, error: BrokerUnavailable) -> None:
        pause = self.paused.setdefault(name, Pause())
        if pause.until <= time.monotonic():  # one failure for all rows that fail at the same time
            self._tell(name, pause, error)
            pause.failures += 1
            pause.until = time.monotonic() + min(FIRST_PAUSE_SECONDS * 2 ** (pause.failures - 1), LONGEST_PAUSE_SECONDS)
            pause.window = 1

    def _tell(self, name: str, pause: Pause, error: BrokerUnavailable) -> None:
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
