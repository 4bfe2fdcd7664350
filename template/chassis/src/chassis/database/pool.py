"""The pool of connections, and the transactions on them."""

import asyncio
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy
from pydantic import SecretStr

from chassis.database import at_hand, outages
from chassis.database.connection import (
    ANSWER_SECONDS,
    SPARE_SECONDS,
    Connection,
    Observer,
    Session,
    bound_session,
    is_gone,
    observed_session,
)
from chassis.database.outages import UNREACHABLE, DatabaseUnavailable, NoConnection
from chassis.database.probe import Probe
from chassis.database.state import LACKING, State, is_unmigrated, newest_revisions
from chassis.database.unit_of_work import MessageStore, NoOutbox, UnitOfWork
from chassis.database.uses import TransactionUse, Use
from chassis.settings import addresses
from chassis.settings.addresses import SHARED_SESSIONS

log = structlog.get_logger()

CLOSE_TIMEOUT_SECONDS = 2
"""The time limit for closing the connections when the process stops."""


class Usage(NamedTuple):
    """The connections of a pool at one moment."""

    used: int
    idle: int
    """The connections that are open and unused."""
    waiting: int
    """The tasks that wait for a connection."""


class Database:
    """The pool of a process. It connects on demand, so the process also starts without a database server."""

    session: type[Session] = Session

    def __init__(
        self,
        url: SecretStr,
        *,
        pool_size: int,
        name: str,
        command_timeout_seconds: float,
        outbox: MessageStore | None = None,
        observe: Observer | None = None,
        transaction_pooler: bool = False,
        versions: Path | None = None,
    ) -> None:
        self._url = url
        self._revisions = newest_revisions(versions)
        self._writable = addresses.parse(url.get_secret_value()).writable
        self._outbox = outbox or NoOutbox()
        self._options: dict[str, Any] = {
            "min_size": 0,
            "max_size": pool_size,
            "command_timeout": command_timeout_seconds,
            "max_inactive_connection_lifetime": at_hand.IDLE_SECONDS,
            "server_settings": {"application_name": name},
            "init": self._prepare,
        }
        if transaction_pooler:
            self._options["statement_cache_size"] = 0  # another session lacks the prepared statements
        self._connection_class = self.session if observe is None else observed_session(observe, self.session)
        self._transaction_pooler = transaction_pooler
        self._shares_sessions: bool | None = None
        self._longest_seconds = command_timeout_seconds
        self._idle_seconds = command_timeout_seconds + SPARE_SECONDS
        self._short_limits: set[str] = set()
        self._waiting = 0
        self._at_hand = at_hand.AtHand()
        self._pool: asyncpg.Pool | None = None
        self._probe: Probe | None = None
        self._closing: dict[PoolConnectionProxy, asyncio.Task[None]] = {}

    async def __aenter__(self) -> "Database":
        self._places = asyncio.Semaphore(self._options["max_size"])
        """The number of connections that no task uses. A task waits here and not in the pool, because most of these connections
        are at hand and not in the pool."""
        self._pool = self._make_pool(connection_class=self._connection_class)
        # Probes have a connection of their own, so that a busy process stays ready.
        self._probe = Probe(self._make_pool(max_size=1), self._revisions, writable=self._writable)
        await asyncio.gather(self._pool, self._probe.pool)
        return self

    def _make_pool(self, **special: Any) -> asyncpg.Pool:
        options: dict[str, Any] = {"connect": addresses.connect, "reset": self._keep_session} | self._options | special
        return asyncpg.create_pool(self._url.get_secret_value(), **options)

    async def __aexit__(self, *_: object) -> None:
        self._at_hand.stop()
        assert self._pool is not None
        assert self._probe is not None
        pools = (self._pool, self._probe.pool)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                while (connection := self._at_hand.take()) is not None:
                    await pools[0].release(connection)
                await asyncio.gather(*(pool.close() for pool in pools))
        except TimeoutError:  # a server that does not answer must not keep the process from stopping
            for pool in pools:
                pool.terminate()

    async def _keep_session(self, connection: Connection) -> None:
        """Do not reset the session: a reset costs a round trip, and the chassis changes no state of a session."""

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
        """Log each limit of the role or the database that is shorter than ours, once in the life of the process."""
        for name, seconds in limits.items():
            if seconds < self._longest_seconds and name not in self._short_limits:
                self._short_limits.add(name)
                log.warning("database_limit_short", name=name, seconds=seconds, needed_seconds=self._longest_seconds)

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        """Take one connection of the pool, without a transaction. Raises DatabaseUnavailable."""
        return Use(self._take, self._give_back)

    async def _give_back(self, connection: PoolConnectionProxy, error: BaseException | None) -> None:
        """End the use of a connection, in which the error was raised. Raises DatabaseUnavailable if the error is an outage."""
        assert self._pool is not None
        try:
            if isinstance(error, Exception):
                if reason := await self._give_back_after(error, connection, self._pool):
                    raise DatabaseUnavailable(reason) from error
            elif error is not None:  # cancelled: do not wait for a server that may not answer
                self._drop(connection)
            elif is_gone(connection) or connection.is_in_transaction() or self._pool.is_closing():
                await self._pool.release(connection)
            else:
                self._at_hand.keep(connection)
        finally:
            if closing := self._closing.get(connection):  # the pool counts the connection until it is closed
                closing.add_done_callback(lambda _: self._places.release())
            else:
                self._places.release()

    async def _give_back_after(
        self, error: Exception, connection: PoolConnectionProxy, pool: asyncpg.Pool
    ) -> str | None:
        """Return the connection to the pool, or close it. If the database is unavailable, return the reason."""
        if reason := outages.reason(error):
            self._drop(connection)
            if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
                await self._drop_idle(pool)
            return reason
        # The cause may be a slow statement, other slow work in the transaction, or a dead server.
        if isinstance(error, TimeoutError) and not is_gone(connection):
            # Get the session's method now, because at the close the pool takes the session away from its proxy.
            given_up = connection.given_up  # ty: ignore[missing-attribute]
            try:
                await connection.close(timeout=ANSWER_SECONDS)
            except UNREACHABLE:
                return "the server does not answer"
            return "the server does not answer" if given_up() else None
        gone = is_gone(connection)
        try:
            unmigrated = isinstance(error, LACKING) and await is_unmigrated(connection, self._revisions)
        except BaseException:
            self._drop(connection)
            raise
        await pool.release(connection)
        if unmigrated:
            return State.UNMIGRATED
        # A rollback on a closed connection is an InterfaceError, as is a wrong use of an open one.
        return f"the connection broke: {error}" if gone and isinstance(error, asyncpg.InterfaceError) else None

    def _drop(self, connection: PoolConnectionProxy) -> None:
        """Close the connection in the background."""
        task = asyncio.ensure_future(_close(connection))
        self._closing[connection] = task
        task.add_done_callback(lambda _: self._closing.pop(connection))

    async def _drop_idle(self, pool: asyncpg.Pool) -> None:
        """Close all idle sessions: they are at a server that no longer fits target_session_attrs."""
        await pool.expire_connections()
        while (connection := self._at_hand.take()) is not None:
            self._drop(connection)

    async def _take(self) -> PoolConnectionProxy:
        """Wait for a place, which means that a connection is at hand or in the pool, and take that connection."""
        assert self._pool is not None, "use `async with Database(…)`"
        self._waiting += 1
        try:
            await self._places.acquire()
            try:
                return await self._find(self._pool)
            except BaseException:
                self._places.release()
                raise
        finally:
            self._waiting -= 1

    async def _find(self, pool: asyncpg.Pool) -> PoolConnectionProxy:
        while (connection := self._at_hand.take()) is not None:
            if not is_gone(connection):
                return connection
            await pool.release(connection)
        try:
            return await pool.acquire()
        except UNREACHABLE as error:
            raise NoConnection(f"no connection: {type(error).__name__}: {error}") from error

    def unit_of_work(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """Run a transaction (read committed): commit at the end, roll back on an error. Raises DatabaseUnavailable."""
        return TransactionUse(self._take, self._give_back, self._outbox)

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
        """Ask the server for its state, on a connection that only probes use."""
        assert self._probe is not None, "use `async with Database(…)`"
        return await self._probe.state(timeout_seconds=timeout_seconds)

    def usage(self) -> Usage:
        """Return the number of used and idle connections, and of the tasks that wait for a connection."""
        if self._pool is None:
            return Usage(0, 0, 0)
        idle = self._pool.get_idle_size() + len(self._at_hand)
        return Usage(self._pool.get_size() - idle, idle, self._waiting)


async def _close(connection: PoolConnectionProxy) -> None:
    with suppress(*UNREACHABLE):
        await connection.close(timeout=CLOSE_TIMEOUT_SECONDS)
