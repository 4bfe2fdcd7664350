"""Ask the database server for its state, however busy the connections of the process are."""

import asyncio
from collections.abc import Sequence

import asyncpg

from chassis.database.outages import UNREACHABLE, DatabaseUnavailable, OutageLog
from chassis.database.state import LACKING, STATE, State


class Probe:
    """A pool of one connection that only probes use, because a busy process must not be taken out of service."""

    def __init__(self, pool: asyncpg.Pool, revisions: Sequence[str], *, writable: bool) -> None:
        """`writable`: the URL asks for a session that accepts writes."""
        self.pool = pool
        self._revisions = revisions
        self._writable = writable
        self._failures = OutageLog()

    async def state(self, *, timeout_seconds: float) -> State:
        """Return the state of the server. A read-only session counts as unreachable if `writable`.

        A failure is logged here, because a process that is never ready gets no requests whose failures would be logged.
        """
        try:
            async with asyncio.timeout(timeout_seconds), self.pool.acquire() as connection:
                try:
                    ((read_only, migrated),) = await connection.fetch(STATE, self._revisions)
                except LACKING:
                    read_only, migrated = False, False
                except asyncio.CancelledError:
                    connection.terminate()  # an open connection would wait for the server when it is released
                    raise
                if read_only and self._writable:
                    connection.terminate()  # the next probe looks for another host
                    raise DatabaseUnavailable(
                        "the session is read-only, but DATABASE_URL asks for a session that accepts writes"
                    )
                if not migrated:
                    self._failures.add(DatabaseUnavailable(State.UNMIGRATED))
                    return State.UNMIGRATED
        except DatabaseUnavailable as error:
            self._failures.add(error)
            return State.UNREACHABLE
        except UNREACHABLE as error:
            described = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            self._failures.add(DatabaseUnavailable(f"no answer to a probe: {described}"))
            return State.UNREACHABLE
        return State.OK
