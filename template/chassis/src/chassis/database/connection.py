"""One connection: the limits of its session, and two cases that asyncpg does not handle."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import wraps
from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from chassis.database import outages
from chassis.database.outages import UNREACHABLE, DatabaseUnavailable
from chassis.database.state import LACKING, State, is_unmigrated, newest_revisions
from chassis.settings import addresses
from chassis.settings.addresses import SHARED_SESSIONS

Connection = asyncpg.Connection | PoolConnectionProxy

Observer = Callable[[str, int, BaseException | None], None]
"""A function that is called after each statement: its text, its start in nanoseconds since 1970, its error or None."""

ALIVE = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
"""Let the server notice after 25 s that this process has vanished. By default it would hold our locks for two hours."""

ANSWER_SECONDS = 1
"""The time limit for the server to confirm that it has stopped a statement. After that we close the session."""

SPARE_SECONDS = 10
"""The server ends an idle transaction this many seconds after the time limit of a request or a handler."""

LONGEST_BATCH = 100
"""The most messages of one transaction, each with its own time limit: see chassis.messaging.lanes.SHAPES."""


COMMAND_SECONDS = 30
"""The time limit of a statement on a dedicated connection."""


@asynccontextmanager
async def dedicated_connection(url: str, *, name: str) -> AsyncGenerator[Connection]:
    """Open a connection outside of the pool, for locks and notifications, which live as long as their session.

    Raises DatabaseUnavailable for an unreachable server, a broken connection, or a pooler that shares sessions.
    """
    try:
        connection = await addresses.connect(
            url, command_timeout=COMMAND_SECONDS, server_settings={"application_name": name}
        )
    except UNREACHABLE as error:
        raise DatabaseUnavailable(f"no connection: {type(error).__name__}: {error}") from error
    try:
        if await addresses.shares_sessions(url, connection):
            raise DatabaseUnavailable(SHARED_SESSIONS)
        await bound_session(connection, idle_seconds=COMMAND_SECONDS + SPARE_SECONDS)
        yield connection
    except (asyncpg.PostgresError, asyncpg.InternalClientError, asyncpg.InterfaceError, OSError) as error:
        reason = outages.reason(error)
        if isinstance(error, LACKING) and await is_unmigrated(connection, newest_revisions()):
            reason = State.UNMIGRATED
        if reason is None and isinstance(error, asyncpg.PostgresError):
            raise
        raise DatabaseUnavailable(reason or f"the connection broke: {type(error).__name__}") from error
    finally:
        with suppress(*UNREACHABLE):
            await connection.close(timeout=2)


_BOUND = """
    SELECT name, setting::int AS milliseconds,
        CASE WHEN ours.value <> '' AND (setting = '0' OR name LIKE 'tcp_%') THEN set_config(name, ours.value, false) END
    FROM pg_settings JOIN unnest($1::text[], $2::text[]) AS ours (name, value) USING (name)
"""


async def bound_session(connection: asyncpg.Connection, *, idle_seconds: float) -> dict[str, float]:
    """Let the server end the session of a process that has vanished, or that was stopped inside a transaction.

    A limit that the role or the database already sets stays. Returns those limits, in seconds.
    """
    limits = {
        "idle_in_transaction_session_timeout": str(round(idle_seconds * 1000)),
        "transaction_timeout": str(round(idle_seconds * 1000) * LONGEST_BATCH),  # exists in PostgreSQL 17 and newer
        "statement_timeout": "",
        "lock_timeout": "",
    }
    ours = ALIVE | limits
    # A statement sets the limits, because a pooler refuses these settings in the start-up message. The statement is not
    # traced, because it belongs to no request.
    rows = await asyncpg.Connection.fetch(connection, _BOUND, list(ours), list(ours.values()))
    return {row["name"]: row["milliseconds"] / 1000 for row in rows if row["name"] in limits and row["milliseconds"]}


class Session(asyncpg.Connection):
    """asyncpg's connection, which also handles a changed result type and a server that does not answer."""

    __slots__ = ("_given_up", "_may_restart")

    def note_transaction_start(self) -> None:
        """Note that a transaction has started. Until its first statement has succeeded, a restart of it loses nothing."""
        self._may_restart = True

    def execute(self, query: str, *args: Any, **options: Any) -> Awaitable[str]:  # ty: ignore[incompatible-method-override]
        if not args:
            self._may_restart = False
        return super().execute(query, *args, **options)

    # Prepared statements, cursors and COPY do not go through `_do_execute`, which could therefore not repeat them. So they use
    # no cached statement or type, which a migration may have outdated: COPY would even store wrong numbers.

    def _get_statement(self, *statement: Any, **options: Any) -> Any:
        self._may_restart = False
        if "named" in options:
            self._drop_local_type_cache()  # ty: ignore[missing-attribute]
            options["use_cache"] = False
        return super()._get_statement(*statement, **options)  # ty: ignore[missing-attribute]

    def _copy_in(self, *statement: Any) -> Any:
        self._may_restart = False
        return super()._copy_in(*statement)  # ty: ignore[missing-attribute]

    def _copy_out(self, *statement: Any) -> Any:
        self._may_restart = False
        return super()._copy_out(*statement)  # ty: ignore[missing-attribute]

    def _executemany(self, query: str, args: Iterable[Any], *rest: Any, **options: Any) -> Any:
        """Hold the arguments in memory: a repeated statement could not read an iterator a second time."""
        args = args if isinstance(args, Sequence) else list(args)
        return super()._executemany(query, args, *rest, **options)  # ty: ignore[missing-attribute]

    async def _do_execute(self, query: str, *rest: Any, **options: Any) -> Any:
        """Run a statement. Prepare and run it once more if a migration has changed a type since it was prepared.

        Inside a transaction, only the first statement can be repeated. A later statement raises
        InvalidCachedStatementError, which `outages` counts as an outage: the next attempt succeeds.
        """
        may_restart, self._may_restart = getattr(self, "_may_restart", False), False
        cached = self._is_cached(query, **options)
        run = super()._do_execute  # ty: ignore[missing-attribute]
        try:
            return await run(query, *rest, **options)
        except asyncpg.PostgresError as error:
            # asyncpg refuses an argument that does not fit the type of the parameter: its type may have changed.
            refused = type(error) is asyncpg.DataError
            if not cached or not (refused or outages.is_outdated(error)):
                raise
            if refused:  # the caller may also have made a mistake, so the other connections keep their statements
                self._drop_local_type_cache()  # ty: ignore[missing-attribute]
                self._drop_local_statement_cache()  # ty: ignore[missing-attribute]
            else:
                await self.reload_schema_state()
            if self.is_in_transaction():
                if not may_restart and refused:
                    raise
                if not may_restart:
                    raise asyncpg.InvalidCachedStatementError(str(error)) from error
                await super().execute("ROLLBACK; BEGIN")
        return await run(query, *rest, **options)

    def _is_cached(
        self, query: str, record_class: type | None = None, ignore_custom_codec: bool = False, **_: Any
    ) -> bool:
        return self._stmt_cache.has((query, record_class or asyncpg.Record, ignore_custom_codec))

    def _cancel_current_command(self, waiter: Any, cancel_waiter: Any = None) -> None:
        """Stop the running statement, and wait at most ANSWER_SECONDS for the server to confirm that.

        Before the next statement, for example a rollback, asyncpg itself would wait for the confirmation as long as for
        any statement, so that a request would take twice its time limit.
        """
        super()._cancel_current_command(waiter, cancel_waiter)  # ty: ignore[missing-attribute]
        if cancel_waiter is not None:
            asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._give_up, cancel_waiter)

    def _give_up(self, confirmed: asyncio.Future[None]) -> None:
        if not confirmed.done():
            self._given_up = True
            self.terminate()

    def given_up(self) -> bool:
        """Return whether the session was closed because the server did not confirm the stop of a statement."""
        return getattr(self, "_given_up", False)


OBSERVED = ("execute", "executemany", "fetch", "fetchmany", "fetchrow", "fetchval")


def observed_session(observe: Observer, session: Any) -> type[Session]:
    """Make a class of sessions with an observer. asyncpg's query loggers would run later, at five times the cost."""

    def observed(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @wraps(method)
        async def run(self: Session, *args: Any, **options: Any) -> Any:
            query = (
                args[0] if args else options.get("query") or options["command"]
            )  # asyncpg has two names for the text
            started = time.time_ns()
            try:
                result = await method(self, *args, **options)
            except BaseException as error:
                observe(query, started, error)
                raise
            observe(query, started, None)
            return result

        return run

    return type("Observed", (session,), {name: observed(getattr(session, name)) for name in OBSERVED})


def is_gone(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # the pool has already taken the closed connection back
        return True
