"""Turn a basket into an order."""

from dataclasses import dataclass
from uuid import UUID

import httpx2
from chassis.database import Executor

from storefront.domain.checkouts import BasketLine, total_of
from storefront.neighbours.orders import Money, NewPurchase, OrderDetails, PurchaseLine, create_purchase
from storefront.persistence.prices import prices_of


@dataclass(frozen=True, kw_only=True)
class CheckOut:
    customer_id: UUID
    lines: list[BasketLine]


async def check_out(command: CheckOut, reader: Executor, orders: httpx2.AsyncClient) -> OrderDetails:
    """Order the basket at the prices of now.

    Raises:
        ProductUnknown: the shop does not sell one of the products.
        CurrenciesMixed: the prices have several currencies.
        NeighbourUnavailable: the orders service does not answer.
    """
    total = total_of(command.lines, await prices_of(reader, (line.sku for line in command.lines)))
    purchase = NewPurchase(
        customer_id=command.customer_id,
        total=Money(amount=total.amount, currency=total.currency),
        lines=[PurchaseLine(sku=line.sku, quantity=line.quantity) for line in command.lines],
    )
    return await create_purchase(orders, purchase)
