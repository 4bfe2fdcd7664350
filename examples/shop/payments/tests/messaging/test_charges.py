import json
from pathlib import Path
from typing import Any

import pytest
from chassis.database import Database
from chassis.messages import Contract
from chassis.testing import Mailbox

from payments.domain.charges import LIMIT
from payments.messaging.charges import ChargeCardV1, PaymentChargedV1, PaymentRefusedV1, RefundCardV1
from payments.persistence.payment_queries import list_payments

CHARGE, REFUND = "payments.charge-card.v1", "payments.refund-card.v1"
CHARGED, REFUSED = "payments.payment-charged.v1", "payments.payment-refused.v1"
GOLDEN: dict[type[Contract], str] = {
    ChargeCardV1: "charge_card_v1.json",
    RefundCardV1: "refund_card_v1.json",
    PaymentChargedV1: "payment_charged_v1.json",
    PaymentRefusedV1: "payment_refused_v1.json",
}


def golden(contract: type[Contract]) -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "golden" / GOLDEN[contract]).read_text())


@pytest.mark.parametrize("contract", GOLDEN)
def test_the_agreed_body_is_still_read_and_written(contract: type[Contract]) -> None:
    body = golden(contract)
    assert contract.model_validate_json(json.dumps(body)).model_dump(mode="json") == body


@pytest.mark.parametrize(
    ("jobs", "outcomes", "events"),
    [
        ([CHARGE], ["charged"], [CHARGED]),
        ([CHARGE, CHARGE], ["charged"], [CHARGED, CHARGED]),
        ([CHARGE, REFUND, REFUND], ["refunded"], [CHARGED]),
        ([REFUND, CHARGE], ["refunded"], [REFUSED]),
    ],
)
async def test_an_order_has_one_payment_whatever_is_repeated(
    database: Database, mailbox: Mailbox, jobs: list[str], outcomes: list[str], events: list[str]
) -> None:
    for name in jobs:
        await mailbox.receive(name, golden(ChargeCardV1))
    assert [payment.outcome for payment in await list_payments(database, limit=2, after=None)] == outcomes
    assert [sent.name for sent in await mailbox.sent()] == events


async def test_a_refused_charge_leaves_no_payment(database: Database, mailbox: Mailbox) -> None:
    too_much = golden(ChargeCardV1) | {"amount": {"amount": LIMIT + 1, "currency": "EUR"}}
    await mailbox.receive(CHARGE, too_much)
    assert [sent.name for sent in await mailbox.sent()] == [REFUSED]
    assert await list_payments(database, limit=2, after=None) == []
