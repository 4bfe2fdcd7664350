"""The database of the current request, and the time limit of the current request or handler."""

from contextvars import ContextVar
from typing import Protocol

from chassis.database import Database


class Limit(Protocol):
    """A running time limit, such as asyncio.Timeout."""

    def when(self) -> float | None:
        """Return when the time is over, by the clock of the event loop."""
        ...


current_database: ContextVar[Database] = ContextVar("current_database")
current_limit: ContextVar[Limit | None] = ContextVar("current_limit", default=None)
