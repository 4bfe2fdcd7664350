"""Actions and questions that the tests of sagas share."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from chassis.database import Database
from chassis.messages import Messages
from chassis.sagas import Saga, Sagas
from chassis.sagas.testing import SagaPlayer

from tests.chassis.sagas.ordering import PlaceOrder, place_order

Play = Callable[..., SagaPlayer]


def messages_of(*sagas: Saga) -> Messages:
    """Return the messages of a service with these sagas, as messages_in finds them."""
    found = Sagas(list(sagas), idle=timedelta(minutes=1), keep=timedelta(days=30))
    return Messages("orders", tuple(found.outgoing), tuple(found.incoming), sagas=found)


async def start(database: Database, key: str = "17", *, saga: Saga | str = place_order) -> UUID:
    async with database.unit_of_work() as uow:
        return await uow.start(saga, PlaceOrder(key), key=key)


async def effects(database: Database) -> list[str]:
    return [row["what"] for row in await database.fetch("SELECT what FROM done ORDER BY seq")]
