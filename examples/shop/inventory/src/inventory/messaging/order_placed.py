"""The event orders.order-placed.v1, as far as this service reads it."""

from collections import Counter

from chassis import fields
from chassis.database import UnitOfWork
from chassis.messages import Contract, OnEvent

from inventory.usecases.reservations import ReserveStock, reserve_stock


class OrderLineV1(Contract):
    sku: str
    quantity: int


class OrderPlacedV1(Contract):
    order_id: fields.Identifier
    customer_id: fields.Identifier
    lines: list[OrderLineV1]
    occurred_at: fields.Timestamp


async def on_order_placed(event: OrderPlacedV1, uow: UnitOfWork) -> None:
    wanted = Counter[str]()
    for line in event.lines:
        wanted[line.sku] += line.quantity
    command = ReserveStock(order_id=event.order_id, customer_id=event.customer_id, wanted=wanted)
    await reserve_stock(command, uow, now=event.occurred_at)


INCOMING = [
    OnEvent("orders.order-placed.v1", OrderPlacedV1, on_order_placed),
]
