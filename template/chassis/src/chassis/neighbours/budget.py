"""The budget of repeated calls of one neighbour, so that repetitions add little load to a neighbour in trouble."""

FIRST_RETRIES = 3
"""The balance at the start, so that the first calls of a process may be repeated."""

MOST_RETRIES = 10
"""The highest balance, which is saved up while no call is repeated."""


class RetryBudget:
    """A bucket of tokens: each call adds `percent` of a token, and each repetition takes a whole token."""

    def __init__(self, percent: float) -> None:
        self._share = percent / 100
        self._balance = float(FIRST_RETRIES if percent else 0)

    def add(self) -> None:
        """Count a call that is not a repetition."""
        self._balance = min(self._balance + self._share, MOST_RETRIES)

    def take(self) -> bool:
        """Return whether one more repetition is allowed, and take its token."""
        # Five times 20 percent is a whole token, which floating point misses by a little.
        if self._balance < 1 - 1e-9:
            return False
        self._balance -= 1
        return True
