from typing import Any

import pytest
from builders.orders import order_body
from chassis.neighbours.testing import neighbour
from chassis.testing import Mailbox
from fastapi import FastAPI
from httpx2 import AsyncClient, ConnectError, Response

from orders.api.purchases import payments_client

REFUSED = Response(
    409,
    json={"type": "about:blank", "title": "Conflict", "status": 409, "code": "payment_refused"},
    headers={"Content-Type": "application/problem+json"},
)


def purchase_body(**fields: Any) -> dict[str, Any]:
    body = order_body(**fields)
    del body["payment_id"]
    return body


async def test_a_purchase_is_a_placed_order_that_is_announced(client: AsyncClient, mailbox: Mailbox) -> None:
    answer = await client.post("/v1/purchases", json=purchase_body())
    assert (answer.status_code, answer.json()["status"]) == (201, "placed")
    assert [(sent.name, sent.key) for sent in await mailbox.sent()] == [("orders.order-placed.v1", answer.json()["id"])]


async def test_a_purchase_without_lines_is_refused(client: AsyncClient) -> None:
    assert (await client.post("/v1/purchases", json=purchase_body(lines=[]))).status_code == 422


@pytest.mark.parametrize(
    ("payments", "status", "code"),
    [
        (REFUSED, 409, "payment_refused"),
        (ConnectError, 503, "neighbour_unavailable"),
    ],
)
async def test_no_order_is_placed_without_a_payment(
    client: AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch, payments: Any, status: int, code: str
) -> None:
    async with app.state.settings.client_for("payments", transport=neighbour("payments", payments)) as refusing:
        monkeypatch.setitem(app.dependency_overrides, payments_client, lambda: refusing)
        answer = await client.post("/v1/purchases", json=purchase_body())
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (await client.get("/v1/orders")).json()["items"] == []
