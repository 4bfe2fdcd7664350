import json
from pathlib import Path
from typing import Any

import pytest
from chassis.database import Database
from chassis.messages import Contract
from chassis.testing import Mailbox

from notifications.domain.notifications import NotificationStatus
from notifications.messaging.deliveries import DeliverNotificationV1
from notifications.messaging.reservations import StockMissingV1, StockReservedV1
from notifications.persistence.notification_queries import list_notifications

JOB = "notifications.deliver-notification.v1"
GOLDEN: dict[type[Contract], str] = {
    StockReservedV1: "stock_reserved_v1.json",
    StockMissingV1: "stock_missing_v1.json",
    DeliverNotificationV1: "deliver_notification_v1.json",
}


def golden(contract: type[Contract]) -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "golden" / GOLDEN[contract]).read_text())


@pytest.mark.parametrize("contract", GOLDEN)
def test_the_agreed_body_is_still_read_and_written(contract: type[Contract]) -> None:
    body = golden(contract)
    assert contract.model_validate_json(json.dumps(body)).model_dump(mode="json") == body


@pytest.mark.parametrize(
    ("event", "contract", "body"),
    [
        ("inventory.stock-reserved.v1", StockReservedV1, "Your order is on its way."),
        ("inventory.stock-missing.v1", StockMissingV1, "Your order has to wait for sample."),
    ],
)
async def test_a_customer_is_notified_once_of_a_reservation(
    database: Database, mailbox: Mailbox, event: str, contract: type[Contract], body: str
) -> None:
    await mailbox.receive(event, golden(contract), times=2)
    jobs = [sent.body for sent in await mailbox.sent() if sent.name == JOB]
    assert len(jobs) == 1
    for _ in range(2):
        await mailbox.receive(JOB, jobs[0])
    [notification] = await list_notifications(database, limit=2, after=None)
    assert (notification.body, notification.status) == (body, NotificationStatus.SENT)
