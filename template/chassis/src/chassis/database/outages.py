"""Distinguish an outage from a bug: which errors of PostgreSQL concern the session or the server, not the statement.

`pool` raises DatabaseUnavailable for an outage, and `chassis.problems` answers it with 503.
"""

import time

import asyncpg
import structlog

from chassis.settings.addresses import SHARED_SESSIONS

log = structlog.get_logger()

UNREACHABLE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""The errors of a failed connect: no server, no answer, no free connection, an unknown user, no host for writes."""

STATES = (
    "08",  # the connection broke
    "25006",  # the session is read-only: the server was demoted, or protects itself
    "25P03",  # the session was idle in a transaction for too long
    "25P04",  # the transaction lasted too long
    "26000",  # the session lacks a statement that we prepared: a pooler gave us another session
    "42P05",  # the session has a statement of that name already: a pooler gave us another session
    "530",  # resources are exhausted, without a detail; 53400 is left out: a statement exceeds temp_file_limit
    "531",  # no disk space is left
    "532",  # no memory is left
    "533",  # no free connection is left
    "57P",  # the server shuts down, is starting, or ended the session
    "58",  # the server's operating system failed
)
"""SQLSTATEs, or their prefixes, of temporary errors that no statement causes."""

LOG_SECONDS = 10
"""After a logged failure, further failures are only counted for this long."""

POOLED = ("26000", "42P05")

_OUTDATED = (
    asyncpg.InvalidCachedStatementError,
    asyncpg.DatatypeMismatchError,
    asyncpg.UndefinedFunctionError,  # a missing operator, too: text = integer
    asyncpg.CannotCoerceError,
)


class DatabaseUnavailable(Exception):
    """The database gave no connection, or the connection broke. The message and the cause have the reason."""


class NoConnection(DatabaseUnavailable):
    """No connection could be made or taken from the pool, so no statement of the caller is the cause."""


def reason(error: BaseException) -> str | None:
    """Explain why the database is unavailable. Return None for an error that a statement or its caller has caused."""
    match error:
        # The server has ended the session, but asyncpg has not seen the connection close yet.
        case asyncpg.InternalClientError():
            return f"{type(error).__name__}: {error}"
        # A statement fails once after a migration that changed a type, and is prepared anew the next time.
        case asyncpg.InvalidCachedStatementError():
            return f"a migration changed a type that a prepared statement uses: {error}"
        case asyncpg.PostgresError(sqlstate=state) if state in POOLED:
            return f"{error}: {SHARED_SESSIONS}"
        case asyncpg.PostgresError(sqlstate=state) if state and state.startswith(STATES):
            return f"{type(error).__name__} ({state}): {error}"
    return None


def is_outdated(error: asyncpg.PostgresError) -> bool:
    """Whether the server may have refused a prepared statement because a migration changed a type after the preparation."""
    dropped = isinstance(error, asyncpg.InternalServerError) and str(error).startswith("cache lookup failed")
    return dropped or isinstance(error, _OUTDATED)


class OutageLog:
    """Log an outage that many requests or messages meet: the first at once, then one line for many."""

    def __init__(self) -> None:
        self._quiet_until = 0.0
        self._unlogged = 0

    def add(self, error: Exception) -> None:
        if time.monotonic() < self._quiet_until:
            self._unlogged += 1
            return
        log.warning("database_unavailable", reason=str(error), unlogged_before=self._unlogged)
        self._quiet_until, self._unlogged = time.monotonic() + LOG_SECONDS, 0
