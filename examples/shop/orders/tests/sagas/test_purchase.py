"""Each way that a purchase can go, and in each of them an order is placed or its payment is given back."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders.orders import order_body
from chassis.messages import Contract
from chassis.sagas.testing import SagaPlayer
from chassis.testing import Mailbox
from httpx2 import AsyncClient

from orders.domain.orders import OrderAlreadyPlaced
from orders.messaging.payments import ChargeCardV1, PaymentChargedV1, PaymentRefusedV1, RefundCardV1
from orders.sagas.purchase import PAID_WITHIN, purchase

CHARGED, REFUSED = "payments.payment-charged.v1", "payments.payment-refused.v1"
CHARGE, REFUND, PLACED = "payments.charge-card.v1", "payments.refund-card.v1", "orders.order-placed.v1"
GOLDEN: dict[type[Contract], str] = {
    ChargeCardV1: "charge_card_v1.json",
    RefundCardV1: "refund_card_v1.json",
    PaymentChargedV1: "payment_charged_v1.json",
    PaymentRefusedV1: "payment_refused_v1.json",
}


def golden(contract: type[Contract]) -> dict[str, Any]:
    return json.loads((Path(__file__).parents[1] / "messaging" / "golden" / GOLDEN[contract]).read_text())


ANSWERS = {CHARGED: golden(PaymentChargedV1), REFUSED: golden(PaymentRefusedV1)}


@pytest.mark.parametrize("contract", GOLDEN)
def test_the_agreed_body_is_still_read_and_written(contract: type[Contract]) -> None:
    body = golden(contract)
    assert contract.model_validate_json(json.dumps(body)).model_dump(mode="json") == body


class Shop:
    """The customer and the payments service of one purchase."""

    def __init__(self, client: AsyncClient, sagas: SagaPlayer, mailbox: Mailbox) -> None:
        self.client, self.sagas, self.mailbox = client, sagas, mailbox
        self.order_id = ""

    async def buy(self) -> None:
        self.order_id = (await self.client.post("/v1/purchases", json=order_body())).json()["id"]
        await self.sagas.play()

    async def answer(self, name: str) -> None:
        """Deliver the answer of payments twice."""
        saga_id = (await self.sagas.state(purchase, self.order_id)).id
        await self.mailbox.receive(name, ANSWERS[name], saga=saga_id, times=2)

    async def ends(self) -> tuple[str, str | None]:
        """Run what is due. Return the state of the saga, and why the purchase was abandoned."""
        await self.sagas.play()
        found = await self.sagas.state(purchase, self.order_id)
        return found.state, found.reason

    async def order(self) -> str:
        """Return the status of the order."""
        answer = await self.client.get(f"/v1/orders/{self.order_id}")
        return answer.json()["status"] if answer.status_code == 200 else "deleted"

    async def sent(self) -> list[str]:
        return [sent.name for sent in await self.mailbox.sent() if sent.name in {CHARGE, REFUND, PLACED}]


@pytest.fixture
async def shop(client: AsyncClient, sagas: SagaPlayer, mailbox: Mailbox) -> Shop:
    shop = Shop(client, sagas, mailbox)
    await shop.buy()
    return shop


async def test_a_purchase_is_placed_when_the_card_is_charged(shop: Shop) -> None:
    assert await shop.order() == "draft"
    await shop.answer(CHARGED)
    assert await shop.ends() == ("completed", None)
    assert (await shop.order(), await shop.sent()) == ("placed", [CHARGE, PLACED])


async def test_a_purchase_is_cancelled_when_the_card_is_refused(shop: Shop) -> None:
    await shop.answer(REFUSED)
    assert await shop.ends() == ("abandoned", ANSWERS[REFUSED]["reason"])
    assert (await shop.order(), await shop.sent()) == ("deleted", [CHARGE, REFUND])


async def test_a_purchase_is_cancelled_and_refunded_when_payments_is_silent_and_a_late_charge_changes_nothing(
    shop: Shop,
) -> None:
    await shop.sagas.pass_time(PAID_WITHIN)
    timed_out = ("abandoned", "payments did not answer in time")
    assert await shop.ends() == timed_out
    await shop.answer(CHARGED)
    assert await shop.ends() == timed_out
    assert (await shop.order(), await shop.sent()) == ("deleted", [CHARGE, REFUND])


async def test_a_paid_purchase_whose_draft_was_deleted_is_refunded(shop: Shop) -> None:
    await shop.client.delete(f"/v1/orders/{shop.order_id}", headers={"If-Match": "*"})
    await shop.answer(CHARGED)
    assert await shop.ends() == ("abandoned", "the order was deleted")
    assert await shop.sent() == [CHARGE, REFUND]


@pytest.mark.parametrize(
    ("by_hand", "order", "sent"), [(True, "placed", [CHARGE, PLACED]), (False, "deleted", [CHARGE, PLACED, REFUND])]
)
async def test_a_person_decides_about_an_order_that_was_placed_and_is_not_paid(
    shop: Shop, by_hand: bool, order: str, sent: list[str]
) -> None:
    await shop.client.post(f"/v1/orders/{shop.order_id}/place", headers={"If-Match": "*"})
    await shop.answer(REFUSED)
    with pytest.raises(OrderAlreadyPlaced):
        await shop.ends()
    await shop.sagas.park("OrderAlreadyPlaced")
    assert (await shop.ends())[0] == "undoing"  # parked: nothing happens until a person decides
    if not by_hand:
        await shop.client.delete(f"/v1/orders/{shop.order_id}", headers={"If-Match": "*"})
    await shop.sagas.retry(purchase, shop.order_id, by_hand=by_hand)
    assert await shop.ends() == ("abandoned", ANSWERS[REFUSED]["reason"])
    assert (await shop.order(), await shop.sent()) == (order, sent)
