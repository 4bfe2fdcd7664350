"""The time that is left for the current request or message. Calls to neighbours and statements must not take longer."""

import time
from collections.abc import Awaitable
from typing import Any

from chassis import database
from chassis.database.connection import Session
from chassis.database.current_database import current_limit

SPARE_SECONDS = 1
"""The database server waits this much longer than the process, which normally stops its statements itself."""


def remaining() -> float | None:
    """Return the seconds that are left for the current request or handler of a message, at least 0.

    None outside of both, for example in a command.
    """
    limit = current_limit.get()
    ends = None if limit is None else limit.when()
    # Read the machine's clock: the clock of the event loop stands still for a thread and during a long computation.
    return None if ends is None else max(0.0, ends - time.monotonic())


class Database(database.Database):
    """Let the server stop the statements of a transaction at the deadline, if the process cannot do so.

    A process that was killed, stopped or is busy holds the locks of its transaction. The limit is part of the message that
    begins the transaction, so that it needs no round trip, and is set only if less time is left than any statement has. A
    statement without a transaction holds no locks, and has no such limit. A shorter limit of the role or the database stays;
    behind a pooler that limit is unknown, so nothing is set there.
    """

    def __init__(self, *arguments: Any, transaction_pooler: bool = False, **options: Any) -> None:
        database = self

        class Bounded(Session):
            def execute(self, query: str, *args: Any, **options: Any) -> Awaitable[str]:
                if query == "BEGIN;" and (left := remaining()) is not None:
                    seconds = left + SPARE_SECONDS
                    if seconds < database._shortest_seconds:
                        query = f"BEGIN; SET LOCAL statement_timeout = {seconds * 1000:.0f};"
                return super().execute(query, *args, **options)

        if not transaction_pooler:
            self.session = Bounded
        super().__init__(*arguments, transaction_pooler=transaction_pooler, **options)
        self._shortest_seconds = self._longest_seconds

    def _warn_of(self, limits: dict[str, float]) -> None:
        self._shortest_seconds = min(self._shortest_seconds, limits.get("statement_timeout", self._shortest_seconds))
        super()._warn_of(limits)
