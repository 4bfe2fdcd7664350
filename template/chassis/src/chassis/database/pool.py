"""A pool of asyncpg connections, and explicit transactions."""

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy
from pydantic import SecretStr
from sqlalchemy import MetaData

from chassis.database import outages
from chassis.database.outages import UNREACHABLE
from chassis.database.statements import Executor, Row, Statement
from chassis.settings import addresses
from chassis.settings.addresses import SHARED_SESSIONS

__all__ = [
    "Connection",
    "Database",
    "DatabaseUnavailable",
    "Executor",
    "Row",
    "Statement",
    "UnitOfWork",
    "metadata_for",
    "optional",
]

log = structlog.get_logger()

Connection = asyncpg.Connection | PoolConnectionProxy
T = TypeVar("T")

Observer = Callable[[str, int, BaseException | None], None]
"""Is told of each statement when it has ended: its text, when it began in nanoseconds since 1970, what it failed with."""

ALIVE = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
"""The server notices after 25 s that we have vanished without a word; by default after two hours, with our locks held."""

IDLE_SECONDS = 300
"""After which a connection that nobody uses is closed, be it at hand or in the pool."""

CLOSE_TIMEOUT_SECONDS = 2
"""How long connections may take to say goodbye when the process stops."""

ANSWER_SECONDS = 1
"""How long we wait for the server to confirm that it has stopped a statement, before we give up the session."""

SPARE_SECONDS = 10
"""The server ends an idle transaction after the time limit of a request or a handler, and this much more."""

LONGEST_BATCH = 100
"""A transaction may take as long as this many messages, each up to its time limit: see chassis.messaging.consumer.SHAPES."""


COMMAND_SECONDS = 30
"""How long a statement of a dedicated connection may take."""

LACKING = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InvalidSchemaNameError)
"""What statements meet in a database that lacks migrations. Statements with a mistake meet the same."""

_STATE = """
    SELECT current_setting('transaction_read_only') = 'on' AS read_only, NOT EXISTS (
        SELECT FROM unnest($1::text[]) AS needed (revision)
        WHERE needed.revision NOT IN (SELECT migrations.revision FROM chassis.migrations)
    ) AS migrated
"""
_REVISION = re.compile(r"""^revision\b[^=\n]*=\s*["'](.+)["']""", re.MULTILINE)

NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}
"""Every constraint has a name that a migration can drop it by."""


def metadata_for(schema: str) -> MetaData:
    """Where a service registers its tables: all of them in its own Postgres schema.

    Columns that the code no longer uses, but the version before still does, are named by their table:
    `sa.Table(..., info={"leaving": ["note"]})`. As long as they are, the gate and `make migration` leave them alone.
    """
    return MetaData(schema=schema, naming_convention=NAMING_CONVENTION)


class DatabaseUnavailable(Exception):
    """No connection could be had, or it broke. The cause says why."""


class NoConnection(DatabaseUnavailable):
    """No connection could be made or taken from the pool, so no statement of the caller is the cause."""


class Says(Protocol):
    """Where a unit of work puts what is to be told to others: chassis.messaging.outbox."""

    async def publish(self, executor: Executor, events: Sequence[object]) -> None: ...
    async def enqueue(self, executor: Executor, job: object, *, after: timedelta) -> None: ...


class Unlisted(LookupError):
    """Something was published or enqueued that has no line in the service's OUTGOING."""


class _NoOutbox:
    """The outbox of a service that sends no message at all."""

    async def publish(self, executor: Executor, events: Sequence[object]) -> None:
        pass

    async def enqueue(self, executor: Executor, job: object, *, after: timedelta) -> None:
        raise Unlisted(f"{type(job).__name__} has no line Job({type(job).__name__}, …) in messaging/outgoing: add it")


class UnitOfWork:
    """What one transaction can touch. An edge opens it, a use case uses it, success commits it."""

    def __init__(self, connection: Connection, outbox: Says) -> None:
        self.connection = connection
        self.message_id: str | None = None
        """Of the message that is being handled, the same in each copy and each try: an idempotency key for calls."""
        self._outbox = outbox

    async def publish(self, *events: object) -> None:
        """Announce domain events, if and when this transaction commits, as messaging/outgoing says.

        A service that publishes nothing stores nothing. Raises chassis.database.pool.Unlisted for an event without a line.
        """
        await self._outbox.publish(self.connection, events)

    async def enqueue(self, job: object, *, after: timedelta = timedelta(0)) -> None:
        """Send a job to a work queue, if and when this transaction commits, and not before `after` has passed.

        Raises chassis.database.pool.Unlisted for one without a line in messaging/outgoing.
        """
        await self._outbox.enqueue(self.connection, job, after=after)


class State(StrEnum):
    """The state of the database, as a probe finds and reports it."""

    OK = "ok"
    UNREACHABLE = "unreachable"
    UNMIGRATED = "migrations missing: run `migrate`"


class Usage(NamedTuple):
    """Of a pool, at this moment."""

    used: int
    idle: int
    """Open, and in nobody's hands."""
    waiting: int
    """Who wants a connection and has none yet."""


class Database:
    """One pool for as long as the process runs. Connects on demand, so the process also starts without a server."""

    def __init__(
        self,
        url: SecretStr,
        *,
        pool_size: int,
        name: str,
        command_timeout_seconds: float,
        outbox: Says | None = None,
        observe: Observer | None = None,
        transaction_pooler: bool = False,
        versions: Path | None = None,
    ) -> None:
        self._url = url
        self._revisions = _newest_revisions(versions)
        self._writable = addresses.parse(url.get_secret_value()).writable
        self._outbox = outbox or _NoOutbox()
        self._options: dict[str, Any] = {
            "min_size": 0,
            "max_size": pool_size,
            "command_timeout": command_timeout_seconds,
            "max_inactive_connection_lifetime": IDLE_SECONDS,
            "server_settings": {"application_name": name},
            "init": self._prepare,
        }
        if transaction_pooler:
            self._options["statement_cache_size"] = 0  # the next session may not have the prepared statements
        self._connection_class = _Session if observe is None else _observed_by(observe)
        self._transaction_pooler = transaction_pooler
        self._shares_sessions: bool | None = None
        self._longest_seconds = command_timeout_seconds
        self._idle_seconds = command_timeout_seconds + SPARE_SECONDS
        self._short_limits: set[str] = set()
        self._waiting = 0
        self._at_hand: deque[tuple[float, PoolConnectionProxy]] = deque()
        """Out of the pool, and in nobody's hands, since then. The last one given back is the next one taken."""
        self._retiring: asyncio.TimerHandle | None = None
        self._pool: asyncpg.Pool | None = None
        self._probe: asyncpg.Pool | None = None
        self._probe_failures = outages.OutageLog()
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Database":
        self._pool = self._make_pool(connection_class=self._connection_class)
        # Probes have a connection of their own: being busy is no reason to be taken out of service.
        self._probe = self._make_pool(max_size=1)
        await asyncio.gather(self._pool, self._probe)
        return self

    def _make_pool(self, **special: Any) -> asyncpg.Pool:
        options: dict[str, Any] = {"connect": addresses.connect, "reset": self._keep_session} | self._options | special
        return asyncpg.create_pool(self._url.get_secret_value(), **options)

    async def __aexit__(self, *_: object) -> None:
        if self._retiring is not None:
            self._retiring.cancel()
        pools = [pool for pool in (self._pool, self._probe) if pool is not None]
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                while self._at_hand:
                    await pools[0].release(self._at_hand.pop()[1])
                await asyncio.gather(*(pool.close() for pool in pools))
        except TimeoutError:  # a server that does not answer must not keep the process from stopping
            for pool in pools:
                pool.terminate()

    async def _keep_session(self, connection: Connection) -> None:
        """Resetting costs a round trip for each release, and nothing here changes a session's state."""

    async def _prepare(self, connection: asyncpg.Connection) -> None:
        if self._transaction_pooler:
            return
        if self._shares_sessions is None:
            self._shares_sessions = await addresses.shares_sessions(self._url.get_secret_value(), connection)
            if self._shares_sessions:
                log.error("database_refused", reason=SHARED_SESSIONS)
        if self._shares_sessions:
            raise DatabaseUnavailable(SHARED_SESSIONS)
        self._warn_of(await bound_session(connection, idle_seconds=self._idle_seconds))

    def _warn_of(self, limits: dict[str, float]) -> None:
        """Log, once per process, each limit of the role or the database that is shorter than ours."""
        for name, seconds in limits.items():
            if seconds < self._longest_seconds and name not in self._short_limits:
                self._short_limits.add(name)
                log.warning("database_limit_short", name=name, seconds=seconds, needed_seconds=self._longest_seconds)

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """One connection of the pool, without a transaction. Raises DatabaseUnavailable."""
        assert self._pool is not None, "use `async with Database(…)`"
        connection = await self._take(self._pool)
        try:
            yield connection
        except Exception as error:
            if reason := await self._give_back_after(error, connection, self._pool):
                raise DatabaseUnavailable(reason) from error
            raise
        except BaseException:  # cancelled: do not wait for a server that may not answer
            self._drop(connection)
            raise
        # Returning a connection to the pool costs as much as a statement, so return it only if the pool needs it.
        wanted = self._waiting or self._pool.is_closing()
        if not wanted and not _is_gone(connection) and not connection.is_in_transaction():
            self._keep_at_hand(connection)
        else:
            await self._pool.release(connection)

    async def _give_back_after(
        self, error: Exception, connection: PoolConnectionProxy, pool: asyncpg.Pool
    ) -> str | None:
        """Return the connection to the pool, or close it. Returns why the database is unavailable, if it is."""
        if reason := outages.reason(error):
            self._drop(connection)
            if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
                await self._drop_idle(pool)
            return reason
        if isinstance(error, TimeoutError):  # a slow statement, other slow work in the transaction, or a dead server
            # Bound to the session, which the pool takes away from the connection when it closes.
            given_up = connection.given_up  # ty: ignore[missing-attribute]
            try:
                await connection.close(timeout=ANSWER_SECONDS)
            except UNREACHABLE:
                return "the server does not answer"
            return "the server does not answer" if given_up() else None
        gone = _is_gone(connection)
        unmigrated = isinstance(error, LACKING) and await _is_unmigrated(connection, self._revisions)
        await pool.release(connection)
        if unmigrated:
            return State.UNMIGRATED
        # A rollback on a closed connection is an InterfaceError, as is a wrong use of an open one.
        return f"the connection broke: {error}" if gone and isinstance(error, asyncpg.InterfaceError) else None

    def _drop(self, connection: PoolConnectionProxy) -> None:
        """Close the connection without waiting for the end of it."""
        task = asyncio.ensure_future(_close(connection))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _drop_idle(self, pool: asyncpg.Pool) -> None:
        """Close all idle sessions: they are at a server that no longer fits target_session_attrs."""
        await pool.expire_connections()
        while self._at_hand:
            self._drop(self._at_hand.pop()[1])

    async def _take(self, pool: asyncpg.Pool) -> PoolConnectionProxy:
        while self._at_hand:
            _, connection = self._at_hand.pop()
            if not _is_gone(connection):
                return connection
            await pool.release(connection)
        self._waiting += 1
        try:
            return await pool.acquire()
        except UNREACHABLE as error:
            raise NoConnection(f"no connection: {type(error).__name__}: {error}") from error
        finally:
            self._waiting -= 1

    def _keep_at_hand(self, connection: PoolConnectionProxy) -> None:
        loop = asyncio.get_running_loop()
        self._at_hand.append((loop.time(), connection))
        if self._retiring is None:
            self._retiring = loop.call_later(IDLE_SECONDS, self._retire)

    def _retire(self) -> None:
        """Close what has been idle for too long, as the pool does with what it has itself."""
        self._retiring = None
        loop = asyncio.get_running_loop()
        while self._at_hand and self._at_hand[0][0] <= loop.time() - IDLE_SECONDS:
            self._at_hand.popleft()[1].terminate()
        if self._at_hand:
            self._retiring = loop.call_at(self._at_hand[0][0] + IDLE_SECONDS, self._retire)

    @asynccontextmanager
    async def unit_of_work(self) -> AsyncGenerator[UnitOfWork]:
        """A transaction (read committed): commits on leaving, rolls back on any exception. Raises DatabaseUnavailable."""
        async with self.connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            connection.begun()  # ty: ignore[missing-attribute]
            try:
                yield UnitOfWork(connection, self._outbox)
            except Exception as error:
                # In these two cases `connection` closes the session, which rolls back as well.
                if not isinstance(error, TimeoutError) and outages.reason(error) is None:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await transaction.rollback()
                raise
            await transaction.commit()

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        async with self.connection() as connection:
            return await connection.fetch(query, *args)

    async def fetchrow(self, query: str, *args: Any) -> asyncpg.Record | None:
        async with self.connection() as connection:
            return await connection.fetchrow(query, *args)

    async def execute(self, query: str, *args: Any) -> str:
        async with self.connection() as connection:
            return await connection.execute(query, *args)

    async def executemany(self, command: str, args: Iterable[Any]) -> None:
        async with self.connection() as connection:
            await connection.executemany(command, args)

    async def state(self, *, timeout_seconds: float) -> State:
        """Ask the server, however busy this process' own connections are.

        A read-only session counts as unreachable if the URL asks for a host that accepts writes. A failure is logged here,
        because a process that is never ready gets no requests whose failures would be logged.
        """
        assert self._probe is not None, "use `async with Database(…)`"
        try:
            async with asyncio.timeout(timeout_seconds), self._probe.acquire() as connection:
                try:
                    ((read_only, migrated),) = await connection.fetch(_STATE, self._revisions)
                except LACKING:
                    read_only, migrated = False, False
                except asyncio.CancelledError:
                    connection.terminate()  # or releasing the connection would wait for the server as well
                    raise
                if read_only and self._writable:
                    connection.terminate()  # the next probe looks for another host
                    raise DatabaseUnavailable(
                        "the session is read-only, but DATABASE_URL asks for a session that accepts writes"
                    )
                if not migrated:
                    self._probe_failures.add(DatabaseUnavailable(State.UNMIGRATED))
                    return State.UNMIGRATED
        except DatabaseUnavailable as error:
            self._probe_failures.add(error)
            return State.UNREACHABLE
        except UNREACHABLE as error:
            described = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            self._probe_failures.add(DatabaseUnavailable(f"no answer to a probe: {described}"))
            return State.UNREACHABLE
        return State.OK

    def usage(self) -> Usage:
        """How busy the pool is."""
        if self._pool is None:
            return Usage(0, 0, 0)
        idle = self._pool.get_idle_size() + len(self._at_hand)
        return Usage(self._pool.get_size() - idle, idle, self._waiting)


@asynccontextmanager
async def dedicated_connection(url: str, *, name: str) -> AsyncGenerator[Connection]:
    """A connection outside of any pool, for locks and notifications, which live as long as their session.

    Raises DatabaseUnavailable for a server that is away, a connection that breaks, or a pooler that shares sessions.
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
        if isinstance(error, LACKING) and await _is_unmigrated(connection, _newest_revisions()):
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

    A limit that the role or the database already sets stays as it is. Returns those limits, in seconds.
    """
    limits = {
        "idle_in_transaction_session_timeout": str(round(idle_seconds * 1000)),
        "transaction_timeout": str(round(idle_seconds * 1000) * LONGEST_BATCH),  # of PostgreSQL 17 and newer
        "statement_timeout": "",
        "lock_timeout": "",
    }
    ours = ALIVE | limits
    # Not in the start-up message, because a pooler refuses that; without tracing, because the statement belongs to no
    # request.
    rows = await asyncpg.Connection.fetch(connection, _BOUND, list(ours), list(ours.values()))
    return {row["name"]: row["milliseconds"] / 1000 for row in rows if row["name"] in limits and row["milliseconds"]}


def _newest_revisions(*folders: Path | None) -> list[str]:
    """Read the revision of the newest migration of the chassis, and of each folder.

    Alembic is not imported for this, because its import would take a quarter of the time of a start.
    """
    found: list[str] = []
    for folder in filter(None, (Path(__file__).parent / "migrations" / "versions", *folders)):
        for newest in sorted(folder.glob("[!_]*_*.py"))[-1:]:
            found += _REVISION.findall(newest.read_text("utf-8"))
    return found


async def _is_unmigrated(connection: Connection, revisions: list[str]) -> bool:
    try:
        ((_, migrated),) = await connection.fetch(_STATE, revisions)
    except LACKING:
        return True
    except UNREACHABLE:
        return False
    return not migrated


async def _close(connection: PoolConnectionProxy) -> None:
    with suppress(*UNREACHABLE):
        await connection.close(timeout=CLOSE_TIMEOUT_SECONDS)


class _Session(asyncpg.Connection):
    """asyncpg's connection, which also handles two cases that asyncpg leaves to its user."""

    __slots__ = ("_given_up", "_may_restart")

    def begun(self) -> None:
        """Note that a transaction has begun. Until a statement has run in it, it may be restarted without loss."""
        self._may_restart = True

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        if not args:
            self._may_restart = False
        return await super().execute(query, *args, **options)

    # Prepared statements, cursors and COPY do not go through `_do_execute`.

    def _get_statement(self, *statement: Any, **options: Any) -> Any:
        self._may_restart = False
        return super()._get_statement(*statement, **options)  # ty: ignore[missing-attribute]

    def _copy_in(self, *statement: Any) -> Any:
        self._may_restart = False
        return super()._copy_in(*statement)  # ty: ignore[missing-attribute]

    def _copy_out(self, *statement: Any) -> Any:
        self._may_restart = False
        return super()._copy_out(*statement)  # ty: ignore[missing-attribute]

    async def _do_execute(self, *statement: Any, **options: Any) -> Any:
        """Run a statement, and repeat it if a migration has changed its result type since it was prepared.

        Outside of a transaction asyncpg repeats it. Inside a transaction, only the first statement can be repeated.
        """
        may_restart, self._may_restart = getattr(self, "_may_restart", False), False
        run = super()._do_execute  # ty: ignore[missing-attribute]
        try:
            return await run(*statement, **options)
        except asyncpg.InvalidCachedStatementError:
            if not may_restart:
                raise
        await super().execute("ROLLBACK; BEGIN")
        return await run(*statement, **options)

    def _cancel_current_command(self, waiter: Any, cancel_waiter: Any = None) -> None:
        """Stop the running statement, and do not wait long for a server that does not confirm this.

        Before the next statement, a rollback for example, asyncpg waits for the confirmation as long as for any
        statement, so that a request would take twice its time.
        """
        super()._cancel_current_command(waiter, cancel_waiter)  # ty: ignore[missing-attribute]
        if cancel_waiter is not None:
            asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._give_up, cancel_waiter)

    def _give_up(self, confirmed: asyncio.Future[None]) -> None:
        if not confirmed.done():
            self._given_up = True
            self.terminate()

    def given_up(self) -> bool:
        """Whether the session was closed because the server did not confirm that it stopped a statement."""
        return getattr(self, "_given_up", False)


def _observed_by(observe: Observer) -> type[asyncpg.Connection]:
    """asyncpg's connection with an observer. Its own query loggers are called a moment later, and cost five times that."""

    async def told(query: str, running: Awaitable[T]) -> T:
        started = time.time_ns()
        try:
            result = await running
        except BaseException as error:
            observe(query, started, error)
            raise
        observe(query, started, None)
        return result

    class Observed(_Session):
        async def execute(self, query: str, *args: Any, **options: Any) -> str:
            return await told(query, super().execute(query, *args, **options))

        async def executemany(self, command: str, args: Any, **options: Any) -> None:
            await told(command, super().executemany(command, args, **options))

        async def fetch(self, query: str, *args: Any, **options: Any) -> list[Any]:
            return await told(query, super().fetch(query, *args, **options))

        async def fetchmany(self, query: str, args: Any, **options: Any) -> list[Any]:
            return await told(query, super().fetchmany(query, args, **options))

        async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
            return await told(query, super().fetchrow(query, *args, **options))

        async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
            return await told(query, super().fetchval(query, *args, **options))

    return Observed


def _is_gone(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # the pool has already taken a closed one back
        return True


def optional(make: Callable[[Any], T], value: Any) -> T | None:
    """`make(value)`, or None for a null."""
    return None if value is None else make(value)
