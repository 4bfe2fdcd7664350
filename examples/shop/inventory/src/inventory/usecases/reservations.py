"""Reserve stock. The caller owns the transaction: no use case commits."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from chassis.database import UnitOfWork

from inventory.domain.reservations import StockMissing, StockReserved, take
from inventory.persistence.reservations import lock_stock_items
from inventory.persistence.stock_items import StockItemRepository


@dataclass(frozen=True, kw_only=True)
class ReserveStock:
    """`wanted` has the quantity for each SKU."""

    order_id: UUID
    customer_id: UUID
    wanted: Mapping[str, int]


async def reserve_stock(command: ReserveStock, uow: UnitOfWork, *, now: datetime) -> None:
    """Reserve the stock of an order, and publish whether there was enough."""
    items = await lock_stock_items(uow.connection, command.wanted)
    order = {"order_id": command.order_id, "customer_id": command.customer_id}
    if missing := take(command.wanted, items, at=now):
        await uow.publish(StockMissing(**order, skus=missing, occurred_at=now))
        return
    for item in items:
        await StockItemRepository(uow).save(item)
    await uow.publish(StockReserved(**order, occurred_at=now))
