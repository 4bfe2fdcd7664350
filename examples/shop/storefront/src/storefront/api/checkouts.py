"""Checkouts over HTTP."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx2
from chassis import fields
from chassis.http import reader
from chassis.identity import scopes
from chassis.problems import problems
from fastapi import APIRouter, Depends, FastAPI, Request
from pydantic import AfterValidator, Field

from storefront.domain.checkouts import BasketLine, CurrenciesMixed, ProductUnknown
from storefront.usecases import checkouts as usecases


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    settings = app.state.settings
    async with settings.client_for("orders", auth=settings.token_for("orders")) as orders:
        app.state.orders = orders
        yield


async def orders_client(request: Request) -> httpx2.AsyncClient:
    return request.app.state.orders


Orders = Annotated[httpx2.AsyncClient, Depends(orders_client)]

router = APIRouter(prefix="/v1/checkouts", tags=["checkouts"], lifespan=_lifespan)


class NewLine(fields.RequestModel):
    sku: Annotated[fields.Text, Field(max_length=40)]
    quantity: Annotated[fields.Integer, Field(ge=1, le=100)]


def _to_line(body: NewLine) -> BasketLine:
    return BasketLine(**vars(body))


class NewCheckout(fields.RequestModel):
    customer_id: fields.Identifier
    lines: Annotated[list[Annotated[NewLine, AfterValidator(_to_line)]], Field(min_length=1, max_length=50)]


class Receipt(fields.ResponseModel):
    order_id: fields.Identifier
    total: fields.MoneyField


@router.post("", status_code=202, responses=problems(ProductUnknown, CurrenciesMixed))
@scopes("checkouts:write")
async def create_checkout(body: NewCheckout, orders: Orders) -> Receipt:
    """Order the products of a basket. The order is placed when it is paid for."""
    order = await usecases.check_out(usecases.CheckOut(**vars(body)), reader(), orders)
    return Receipt(order_id=order.id, total=order.total)
