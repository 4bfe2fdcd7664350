"""Each way that a purchase can go as a workflow, on Temporal's development server: an order is placed, or its payment is given back."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from builders.orders import order_body
from chassis.database import Database
from chassis.money import Money
from chassis.sagas.testing import SagaPlayer
from chassis.testing import Mailbox
from httpx2 import AsyncClient
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import ActivityEnvironment

from orders.messaging.purchase_workflows import RunPurchaseV1
from orders.usecases.purchases import Purchase
from orders.workflows.activities import PurchaseActivities
from orders.workflows.client import temporal
from orders.workflows.purchase import PurchaseWorkflow

GOLDEN = Path(__file__).parents[1] / "messaging" / "golden"
CHARGED, REFUSED = "payments.payment-charged.v1", "payments.payment-refused.v1"
RUN = "orders.run-purchase.v1"
CHARGE, REFUND, PLACED = "payments.charge-card.v1", "payments.refund-card.v1", "orders.order-placed.v1"
ANSWERS = {
    name: json.loads((GOLDEN / f"payment_{word}_v1.json").read_text())
    for name, word in ((CHARGED, "charged"), (REFUSED, "refused"))
}
LIMIT_SECONDS = 60


def test_the_agreed_body_is_still_read_and_written() -> None:
    body = (GOLDEN / "run_purchase_v1.json").read_text()
    assert RunPurchaseV1.model_validate_json(body).model_dump(mode="json") == json.loads(body)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class Shop:
    """The customer and the payments service of one purchase."""

    def __init__(self, client: AsyncClient, sagas: SagaPlayer, mailbox: Mailbox, temporal: Client) -> None:
        self.client, self.sagas, self.mailbox, self.temporal = client, sagas, mailbox, temporal
        self.order_id = ""

    async def buy(self) -> None:
        """Start the workflow twice, as a job does whose first commit has failed."""
        self.order_id = (await self.client.post("/v1/purchases", json=order_body())).json()["id"]
        await self.sagas.play()
        [job] = [sent for sent in await self.mailbox.sent() if sent.name == RUN]
        await self.mailbox.receive(RUN, job.body)
        await self.mailbox.receive(RUN, job.body)
        await until(self.has_asked)

    async def has_asked(self) -> bool:
        return CHARGE in await self.sent()

    async def answer(self, name: str) -> None:
        """Deliver the answer of payments twice."""
        await self.mailbox.receive(name, ANSWERS[name], saga=self.order_id, times=2)

    @property
    def workflow(self) -> WorkflowHandle[PurchaseWorkflow, str | None]:
        return self.temporal.get_workflow_handle_for(PurchaseWorkflow.run, self.order_id)

    async def failing(self) -> list[str]:
        """Return the ids of the activities that wait for their next attempt after an error."""
        pending = (await self.workflow.describe()).raw_description.pending_activities
        return [each.activity_id for each in pending if "placed and not paid" in each.last_failure.message]

    async def has_failed(self) -> bool:
        return bool(await self.failing())

    async def complete_by_hand(self) -> None:
        """Do as `temporal activity complete` does."""
        [activity_id] = await self.failing()
        await self.temporal.get_async_activity_handle(
            workflow_id=self.order_id, run_id=None, activity_id=activity_id
        ).complete(None)

    async def order(self) -> str:
        """Return the status of the order."""
        answer = await self.client.get(f"/v1/orders/{self.order_id}")
        return answer.json()["status"] if answer.status_code == 200 else "deleted"

    async def sent(self) -> list[str]:
        return [sent.name for sent in await self.mailbox.sent() if sent.name in {CHARGE, REFUND, PLACED}]


@pytest.fixture
async def shop(client: AsyncClient, sagas: SagaPlayer, mailbox: Mailbox, workflows: None) -> Shop:
    shop = Shop(client, sagas, mailbox, await temporal())
    await shop.buy()
    return shop


async def test_a_purchase_is_placed_when_the_card_is_charged(shop: Shop) -> None:
    assert await shop.order() == "draft"
    await shop.answer(CHARGED)
    assert await shop.workflow.result() is None
    assert (await shop.order(), await shop.sent()) == ("placed", [CHARGE, PLACED])


async def test_the_messages_of_a_purchase_are_in_one_trace(shop: Shop, database: Database) -> None:
    await shop.answer(CHARGED)
    await shop.workflow.result()
    sent = await database.fetch("SELECT traceparent FROM chassis.outbox WHERE type = ANY($1)", [CHARGE, PLACED])
    traces = [row["traceparent"].split("-")[1] for row in sent]
    assert (len(traces), len(set(traces))) == (2, 1)


async def test_a_purchase_is_cancelled_when_the_card_is_refused(shop: Shop) -> None:
    await shop.answer(REFUSED)
    assert await shop.workflow.result() == ANSWERS[REFUSED]["reason"]
    assert (await shop.order(), await shop.sent()) == ("deleted", [CHARGE, REFUND])


async def test_a_paid_purchase_whose_draft_was_deleted_is_refunded(shop: Shop) -> None:
    await shop.client.delete(f"/v1/orders/{shop.order_id}", headers={"If-Match": "*"})
    await shop.answer(CHARGED)
    assert await shop.workflow.result() == "the order was deleted"
    assert await shop.sent() == [CHARGE, REFUND]


async def test_a_workflow_that_a_person_cancels_is_compensated(shop: Shop) -> None:
    await shop.workflow.cancel()
    assert await shop.workflow.result() == "a person has cancelled the workflow"
    assert (await shop.order(), await shop.sent()) == ("deleted", [CHARGE, REFUND])


@pytest.mark.parametrize(
    ("by_hand", "order", "sent"), [(True, "placed", [CHARGE, PLACED]), (False, "deleted", [CHARGE, PLACED, REFUND])]
)
async def test_a_compensation_that_fails_is_attempted_until_a_person_has_decided(
    shop: Shop, by_hand: bool, order: str, sent: list[str]
) -> None:
    await shop.client.post(f"/v1/orders/{shop.order_id}/place", headers={"If-Match": "*"})
    await shop.answer(REFUSED)
    await until(shop.has_failed)
    if by_hand:
        await shop.complete_by_hand()
    else:
        await shop.client.delete(f"/v1/orders/{shop.order_id}", headers={"If-Match": "*"})
    assert await shop.workflow.result() == ANSWERS[REFUSED]["reason"]
    assert (await shop.order(), await shop.sent()) == (order, sent)


async def test_a_purchase_is_cancelled_and_refunded_when_payments_is_silent_and_a_late_charge_changes_nothing(
    client: AsyncClient, sagas: SagaPlayer, mailbox: Mailbox, workflows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orders.sagas.purchase.PAID_WITHIN", timedelta(milliseconds=100))
    shop = Shop(client, sagas, mailbox, await temporal())
    await shop.buy()
    assert await shop.workflow.result() == "payments did not answer in time"
    await shop.answer(CHARGED)
    assert (await shop.order(), await shop.sent()) == ("deleted", [CHARGE, REFUND])


async def test_a_step_whose_answer_was_lost_has_no_second_effect(database: Database, mailbox: Mailbox) -> None:
    purchase = Purchase(order_id=UUID(int=1), customer_id=UUID(int=2), amount=Money(100, "EUR"))
    for _ in range(2):
        await ActivityEnvironment().run(PurchaseActivities(database).request_payment, purchase)
    assert [sent.name for sent in await mailbox.sent()] == [CHARGE]
