"""How often, and after which pauses, a failing message is handled again."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """The bounds of the attempts to handle one message."""

    max_attempts: int
    handler_timeout_seconds: float
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 30

    def pause_after(self, attempts: int) -> float:
        """Return the seconds between this number of failed attempts and the next attempt."""
        return min(self.first_pause_seconds * 4 ** (attempts - 1), self.longest_pause_seconds)
