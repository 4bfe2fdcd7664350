import json
from pathlib import Path
from typing import Any

import pytest
from builders.stock_items import stored_stock_item
from chassis.database import Database
from chassis.messages import Contract
from chassis.testing import Mailbox

from inventory.messaging.order_placed import OrderPlacedV1
from inventory.messaging.reservations import StockMissingV1, StockReservedV1
from inventory.persistence.stock_item_queries import find_stock_item

GOLDEN: dict[type[Contract], str] = {
    OrderPlacedV1: "order_placed_v1.json",
    StockReservedV1: "stock_reserved_v1.json",
    StockMissingV1: "stock_missing_v1.json",
}


def golden(contract: type[Contract]) -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "golden" / GOLDEN[contract]).read_text())


@pytest.mark.parametrize("contract", GOLDEN)
def test_the_agreed_body_is_still_read_and_written(contract: type[Contract]) -> None:
    body = golden(contract)
    assert contract.model_validate_json(json.dumps(body)).model_dump(mode="json") == body


@pytest.mark.parametrize(
    ("available", "left", "name", "contract"),
    [
        (42, 0, "inventory.stock-reserved.v1", StockReservedV1),
        (41, 41, "inventory.stock-missing.v1", StockMissingV1),
    ],
)
async def test_an_order_that_is_delivered_twice_is_reserved_once(
    database: Database, mailbox: Mailbox, available: int, left: int, name: str, contract: type[Contract]
) -> None:
    async with database.unit_of_work() as uow:
        item = await stored_stock_item(uow, sku="sample", available=available)
    await mailbox.receive("orders.order-placed.v1", golden(OrderPlacedV1), times=2)
    assert (await find_stock_item(database, item.id)).available == left
    assert [(sent.name, sent.body) for sent in await mailbox.sent()] == [(name, golden(contract))]
