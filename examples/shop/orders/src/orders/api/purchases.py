"""Purchases over HTTP."""

from typing import Annotated

from chassis import fields
from chassis.http import new_id, transaction, utc_now
from chassis.identity import scopes
from fastapi import APIRouter
from pydantic import AfterValidator, Field

from orders.api.orders import NewOrderLine, OrderDetails, to_order_line
from orders.domain.orders import Order
from orders.usecases.orders import CreateOrder
from orders.usecases.purchases import start_purchase

router = APIRouter(prefix="/v1/purchases", tags=["purchases"])


class PurchaseLine(NewOrderLine):
    quantity: Annotated[fields.Integer, Field(ge=1, le=100)]


class NewPurchase(fields.RequestModel):
    customer_id: fields.Identifier
    total: fields.MoneyField
    lines: Annotated[list[Annotated[PurchaseLine, AfterValidator(to_order_line)]], Field(min_length=1, max_length=50)]


@router.post("", status_code=202, response_model=OrderDetails)
@scopes("purchases:write")
async def create_purchase(body: NewPurchase) -> Order:
    """Accept an order. It is placed when the customer's card is charged, and deleted if the card is refused."""
    command = CreateOrder(order_id=new_id(), **vars(body))
    async with transaction() as uow:
        return await start_purchase(command, uow, now=utc_now())
