"""OneCommit: the database of a request with a key. All that the request changes is committed once, with its answer."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import NoReturn, Self

from chassis.database import Connection, Database, UnitOfWork
from chassis.database.connection import ANSWER_SECONDS
from chassis.database.outages import UNREACHABLE
from chassis.idempotency import stored_answers
from chassis.idempotency.stored_answers import Answer

_TRY_LOCK = "SELECT pg_try_advisory_xact_lock($1)"


class KeyInUse(Exception):
    """Another request with this key is in its transaction."""


class AlreadyAnswered(Exception):
    """Another request with this key has committed since this request began."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class _RolledBack(Exception):
    """End the transaction without a commit."""


class OneCommit(Database):
    """A database for one request: each `transaction()` of the route is a part of one PostgreSQL transaction.

    An error in a `transaction()` undoes the changes of that part only; `commit` commits all other parts. The PostgreSQL
    transaction begins with the first `transaction()`, so a route that calls another service earlier holds no connection
    during the call. The transaction locks the key, and PostgreSQL frees the lock even if this process dies. After the
    commit, this is a plain database for the route's background tasks.
    """

    def __init__(self, database: Database, key: bytes) -> None:
        # super().__init__() is not called, because `database` provides all connections.
        self._database, self._key = database, key
        self._transaction = AsyncExitStack()
        self._uow: UnitOfWork | None = None
        self._refusal: KeyInUse | AlreadyAnswered | None = None
        self._inside = 0
        self._reading, self._turn = asyncio.Lock(), asyncio.Lock()
        self._task: asyncio.Task | None = None
        self._changed = self._lost = self._ended = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._ended = True
        error = next((each for each in raised if isinstance(each, BaseException)), _RolledBack())
        with suppress(_RolledBack):
            await self._roll_back(error)

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """Take a connection. Between the route's transactions, take their connection, so that a read sees their changes."""
        if self._uow is None or self._inside:
            async with self._database.connection() as connection:
                yield connection
            return
        async with self._reading:
            try:
                yield self._uow.connection
            except UNREACHABLE as error:
                await self._roll_back(error)

    @asynccontextmanager
    async def unit_of_work(self) -> AsyncGenerator[UnitOfWork]:
        """Run a part of the one transaction. The parts of several tasks take turns.

        Raises KeyInUse, AlreadyAnswered, and DatabaseUnavailable.
        """
        if self._task is asyncio.current_task():
            async with self._part() as uow:
                yield uow
            return
        async with self._turn:
            self._task = asyncio.current_task()
            try:
                async with self._part() as uow:
                    yield uow
            finally:
                self._task = None

    @asynccontextmanager
    async def _part(self) -> AsyncGenerator[UnitOfWork]:
        if self._ended:
            async with self._database.unit_of_work() as uow:
                yield uow
            return
        self._inside += 1
        try:
            uow = self._uow or await self._begin()
            savepoint = uow.connection.transaction()
            await savepoint.start()
            try:
                yield uow
            except UNREACHABLE:
                raise
            except Exception as error:
                if self._inside == 1 and not self._changed:  # no change is lost by giving the connection back
                    await self._roll_back(error)
                async with asyncio.timeout(ANSWER_SECONDS):
                    await savepoint.rollback()
                raise
            await savepoint.commit()
            self._changed = self._changed or self._inside == 1
        # `database` tells an outage from a mistake. A cancellation may come from a time limit inside the route, which goes on.
        except (*UNREACHABLE, asyncio.CancelledError) as error:
            await self._roll_back(error)
        finally:
            self._inside -= 1

    async def commit(self, answer: Answer) -> None:
        """Commit the changes together with the answer. Without changes, or with an answer from 500 on, roll back.

        Raises DatabaseUnavailable, RuntimeError if the answer reports changes that were rolled back, and again the KeyInUse or
        AlreadyAnswered that the route has swallowed.
        """
        self._ended = True
        if self._refusal is not None:
            await self._roll_back(self._refusal)
        if self._lost and answer.status < 500:
            raise RuntimeError(
                "the route went on after a failed statement had undone an earlier transaction of the request"
            )
        uow = self._uow
        if uow is None or not self._changed or answer.status >= 500:
            with suppress(_RolledBack):
                await self._roll_back(_RolledBack())
            return
        self._uow = None
        async with self._transaction:
            await stored_answers.keep(uow.connection, self._key, answer)

    async def _begin(self) -> UnitOfWork:
        uow = await self._transaction.enter_async_context(self._database.unit_of_work())
        self._uow = uow
        if not await uow.connection.fetchval(_TRY_LOCK, int.from_bytes(self._key[:8], signed=True)):
            await self._refuse(KeyInUse())
        # Look for an answer once the lock is held: its former holder may have committed since the request began.
        if found := await stored_answers.find(uow.connection, self._key):
            await self._refuse(AlreadyAnswered(found))
        return uow

    async def _refuse(self, refusal: KeyInUse | AlreadyAnswered) -> NoReturn:
        self._refusal = refusal
        await self._roll_back(refusal)

    async def _roll_back(self, error: BaseException) -> NoReturn:
        """Roll back all of the request, and raise the error, or DatabaseUnavailable if the error is an outage."""
        self._lost, self._changed, self._uow = self._lost or self._changed, False, None
        await self._transaction.__aexit__(type(error), error, error.__traceback__)
        raise error
