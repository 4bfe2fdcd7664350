"""Purchases over HTTP."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx2
from chassis import fields
from chassis.http import new_id, transaction, utc_now
from chassis.identity import scopes
from chassis.problems import problems
from fastapi import APIRouter, Depends, FastAPI, Request
from pydantic import AfterValidator, Field

from orders.api.orders import NewOrderLine, OrderDetails, to_order_line
from orders.domain.orders import Order
from orders.usecases import purchases as usecases
from orders.usecases.orders import CreateOrder


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    settings = app.state.settings
    async with settings.client_for("payments", auth=settings.token_for("payments")) as payments:
        app.state.payments = payments
        yield


async def payments_client(request: Request) -> httpx2.AsyncClient:
    return request.app.state.payments


Payments = Annotated[httpx2.AsyncClient, Depends(payments_client)]

router = APIRouter(prefix="/v1/purchases", tags=["purchases"], lifespan=_lifespan)


class PurchaseLine(NewOrderLine):
    quantity: Annotated[fields.Integer, Field(ge=1, le=100)]


class NewPurchase(fields.RequestModel):
    customer_id: fields.Identifier
    total: fields.MoneyField
    lines: Annotated[list[Annotated[PurchaseLine, AfterValidator(to_order_line)]], Field(min_length=1, max_length=50)]


@router.post("", status_code=201, response_model=OrderDetails, responses=problems(usecases.PaymentRefused))
@scopes("purchases:write")
async def create_purchase(body: NewPurchase, payments: Payments) -> Order:
    """Charge the customer, and place the order."""
    # The payment comes before the transaction. A repeated request gets the same payment, by the key of the call.
    payment_id = await usecases.pay(payments, body.customer_id, body.total)
    command = CreateOrder(order_id=new_id(), payment_id=payment_id, **dict(body))
    async with transaction() as uow:
        return await usecases.purchase(command, uow, now=utc_now())
