from builders.payments import payment_body
from httpx2 import AsyncClient


async def test_a_card_is_charged_once_for_repeated_requests(client: AsyncClient) -> None:
    body, headers = payment_body(), {"Idempotency-Key": "order-4711"}
    first, again = [await client.post("/v1/charges", json=body, headers=headers) for _ in range(2)]
    assert (first.status_code, first.json()["status"]) == (201, "captured")
    assert again.json() == first.json()
    assert len((await client.get("/v1/payments")).json()["items"]) == 1


async def test_a_refused_charge_leaves_no_payment(client: AsyncClient) -> None:
    refused = await client.post("/v1/charges", json=payment_body(amount={"amount": 0, "currency": "EUR"}))
    assert (refused.status_code, refused.json()["code"]) == (409, "payment_refused")
    assert (await client.get("/v1/payments")).json()["items"] == []
