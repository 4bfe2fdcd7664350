from builders.orders import order_body
from chassis.testing import Mailbox
from httpx2 import AsyncClient


async def test_a_purchase_is_a_draft_whose_saga_begins(client: AsyncClient, mailbox: Mailbox) -> None:
    answer = await client.post("/v1/purchases", json=order_body())
    assert (answer.status_code, answer.json()["status"]) == (202, "draft")
    assert "orders.advance-saga.v1" in [sent.name for sent in await mailbox.sent()]


async def test_a_purchase_without_lines_is_refused(client: AsyncClient) -> None:
    assert (await client.post("/v1/purchases", json=order_body(lines=[]))).status_code == 422
