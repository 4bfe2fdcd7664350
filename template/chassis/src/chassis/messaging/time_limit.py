"""A time limit for many short calls."""

import asyncio
from types import TracebackType

from chassis.database.current_database import current_limit


class TimeLimit:
    """Works as `asyncio.timeout` for consecutive calls of one task, which share one timer.

    `asyncio.timeout` starts and cancels a timer for each call, which doubles the time of a short call.
    """

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._seconds = seconds
        self._ends: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._outer = current_limit.set(self)

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self.expired = False
        self._ends = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(self._ends, self._check)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ends = None
        if self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def when(self) -> float:
        """Return when the current call has to end; between two calls, when a call that begins now would have to end."""
        return self._loop.time() + self._seconds if self._ends is None else self._ends

    def close(self) -> None:
        current_limit.reset(self._outer)
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        self._timer = None
        if self._ends is None:
            return
        if self._loop.time() < self._ends:
            self._timer = self._loop.call_at(self._ends, self._check)
        else:
            self.expired = True
            self._task.cancel()
