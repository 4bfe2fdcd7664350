"""Stock items by SKU, for a reservation."""

from collections.abc import Iterable

import sqlalchemy as sa
from chassis.database import Executor, Statement
from sqlalchemy.dialects.postgresql import ARRAY

from inventory.domain.stock_items import StockItem
from inventory.persistence.stock_items import from_row, stock_items

_SKUS = sa.bindparam("skus", type_=ARRAY(sa.String))
# All reservations lock items in the same order, so that no two reservations wait for each other.
_LOCKED = Statement(
    sa.select(stock_items).where(stock_items.c.sku == sa.any_(_SKUS)).order_by(stock_items.c.sku).with_for_update()
)


async def lock_stock_items(executor: Executor, skus: Iterable[str]) -> list[StockItem]:
    """Load the items that exist, locked until the transaction ends."""
    return [from_row(row) for row in await _LOCKED.all(executor, skus=sorted(skus))]
