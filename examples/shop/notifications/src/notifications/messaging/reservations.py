"""The events of inventory about reservations. Each event notifies a customer."""

from chassis import fields
from chassis.database import UnitOfWork
from chassis.messages import Contract, OnEvent

from notifications.usecases.deliveries import notify
from notifications.usecases.notifications import CreateNotification


class StockReservedV1(Contract):
    order_id: fields.Identifier
    customer_id: fields.Identifier
    occurred_at: fields.Timestamp


class StockMissingV1(Contract):
    order_id: fields.Identifier
    customer_id: fields.Identifier
    skus: list[str]
    occurred_at: fields.Timestamp


async def on_stock_reserved(event: StockReservedV1, uow: UnitOfWork) -> None:
    await _notify(event, "Your order is on its way.", uow)


async def on_stock_missing(event: StockMissingV1, uow: UnitOfWork) -> None:
    await _notify(event, f"Your order has to wait for {', '.join(event.skus)}.", uow)


async def _notify(event: StockReservedV1 | StockMissingV1, body: str, uow: UnitOfWork) -> None:
    # An order has one notification, so the notification has the id of the order.
    command = CreateNotification(notification_id=event.order_id, recipient=event.customer_id, body=body)
    await notify(command, uow, now=event.occurred_at)


INCOMING = [
    OnEvent("inventory.stock-reserved.v1", StockReservedV1, on_stock_reserved),
    OnEvent("inventory.stock-missing.v1", StockMissingV1, on_stock_missing),
]
