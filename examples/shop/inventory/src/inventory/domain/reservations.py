"""Reserve the stock of an order: all of it, or nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from inventory.domain.stock_items import StockItem


@dataclass(frozen=True, kw_only=True)
class StockReserved:
    """All products of the order are reserved."""

    order_id: UUID
    customer_id: UUID
    occurred_at: datetime


@dataclass(frozen=True, kw_only=True)
class StockMissing:
    """Nothing is reserved, because there is too little of the products in `skus`."""

    order_id: UUID
    customer_id: UUID
    skus: list[str]
    occurred_at: datetime


def take(wanted: Mapping[str, int], items: Iterable[StockItem], at: datetime) -> list[str]:
    """Take the quantity of each SKU out of the items. Return the SKUs that lack; then nothing was taken."""
    found = {item.sku: item for item in items}
    missing = sorted(sku for sku, quantity in wanted.items() if sku not in found or found[sku].available < quantity)
    if not missing:
        for sku, quantity in wanted.items():
            found[sku].change({"available": found[sku].available - quantity}, at)
    return missing
