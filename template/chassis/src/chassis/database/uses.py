"""The use of a connection by one task, with a transaction or without. An `@asynccontextmanager` would take twice as long."""

import asyncio
from collections.abc import Awaitable, Callable

from asyncpg.pool import PoolConnectionProxy

from chassis.database import outages
from chassis.database.connection import ANSWER_SECONDS
from chassis.database.unit_of_work import MessageStore, UnitOfWork

Take = Callable[[], Awaitable[PoolConnectionProxy]]
GiveBack = Callable[[PoolConnectionProxy, BaseException | None], Awaitable[None]]
"""A function that ends the use of a connection, in which the error was raised."""


class Use:
    """The use of a connection without a transaction, as a context manager."""

    def __init__(self, take: Take, give_back: GiveBack) -> None:
        self._take, self._give_back = take, give_back

    async def __aenter__(self) -> PoolConnectionProxy:
        self._connection = await self._take()
        return self._connection

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        await self._give_back(self._connection, error)


class TransactionUse:
    """The use of a connection for one transaction, as a context manager."""

    def __init__(self, take: Take, give_back: GiveBack, outbox: MessageStore) -> None:
        self._take, self._give_back, self._outbox = take, give_back, outbox

    async def __aenter__(self) -> UnitOfWork:
        self._connection = connection = await self._take()
        try:
            self._transaction = connection.transaction()
            await self._transaction.start()
        except BaseException as error:
            await self._give_back(connection, error)
            raise
        connection.note_transaction_start()  # ty: ignore[missing-attribute]
        return UnitOfWork(connection, self._outbox)

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            await self._end(error)
        except BaseException as failure:
            await self._give_back(self._connection, failure)
            raise
        await self._give_back(self._connection, error)

    async def _end(self, error: BaseException | None) -> None:
        if error is None:
            await self._transaction.commit()
        # After a time-out or an outage, `_give_back` closes the session, which rolls back as well.
        elif isinstance(error, Exception) and not isinstance(error, TimeoutError) and outages.reason(error) is None:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._transaction.rollback()
