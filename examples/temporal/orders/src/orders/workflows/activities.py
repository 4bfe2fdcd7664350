"""The steps of a purchase as activities. Each calls its use case once, in one commit."""

from datetime import UTC, datetime

from chassis.database import Database, UnitOfWork
from temporalio import activity

from orders.persistence.activities import record_activity
from orders.usecases import purchases
from orders.usecases.purchases import Purchase


class PurchaseActivities:
    def __init__(self, database: Database) -> None:
        self._database = database

    @activity.defn
    async def request_payment(self, purchase: Purchase) -> None:
        async with self._database.unit_of_work() as uow:
            if await is_first(uow):
                await purchases.request_payment(purchase, uow)

    @activity.defn
    async def place_purchase(self, purchase: Purchase) -> None:
        async with self._database.unit_of_work() as uow:
            if await is_first(uow):
                await purchases.place_purchase(purchase, uow, now=datetime.now(UTC))

    @activity.defn
    async def cancel_purchase(self, purchase: Purchase) -> None:
        async with self._database.unit_of_work() as uow:
            if await is_first(uow):
                await purchases.cancel_purchase(purchase, uow)


async def is_first(uow: UnitOfWork) -> bool:
    """Record the activity in this commit, and let all messages carry the workflow's id. False if an earlier attempt was committed."""
    info = activity.info()
    uow.saga = info.workflow_id
    return await record_activity(uow, f"{info.workflow_id} {info.activity_type}")
