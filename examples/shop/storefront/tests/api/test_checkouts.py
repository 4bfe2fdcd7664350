import json
from typing import Any

import pytest
from builders.products import SOME_ID, product_body
from chassis.neighbours.testing import Neighbour, neighbour
from fastapi import FastAPI
from httpx2 import AsyncClient, ConnectError, Response

from storefront.api.checkouts import orders_client

BODY = {"customer_id": str(SOME_ID), "lines": [{"sku": "tea", "quantity": 2}]}


async def check_out(client: AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch, orders: Neighbour) -> Response:
    price: dict[str, Any] = {"amount": 450, "currency": "EUR"}
    assert (await client.post("/v1/products", json=product_body(sku="tea", price=price))).status_code == 201
    async with app.state.settings.client_for("orders", transport=orders) as asked:
        monkeypatch.setitem(app.dependency_overrides, orders_client, lambda: asked)
        return await client.post("/v1/checkouts", json=BODY)


async def test_a_basket_is_ordered_at_the_prices_of_now(
    client: AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = neighbour("orders")
    answer = await check_out(client, app, monkeypatch, orders)
    assert answer.status_code == 202, answer.text
    [asked] = orders.requests
    assert json.loads(asked.content)["total"] == {"amount": 900, "currency": "EUR"}


async def test_a_checkout_fails_for_now_while_orders_does_not_answer(
    client: AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await check_out(client, app, monkeypatch, neighbour("orders", ConnectError))
    assert (answer.status_code, answer.json()["code"]) == (503, "neighbour_unavailable")


async def test_a_product_that_the_shop_does_not_sell_is_refused(client: AsyncClient) -> None:
    answer = await client.post("/v1/checkouts", json=BODY)
    assert (answer.status_code, answer.json()["code"]) == (409, "product_unknown")
