"""The page of a run whose services have files and programs that are not as they should be."""

import asyncio
from pathlib import Path

import pytest
from chassis.dev.viewer.product import RefusedAction

from fleet.up.page import PageProduct
from fleet.up.product import Checkout
from fleet.up.service import ProductService
from fleet.up.wiring import Shared
from tests.fleet.up.checkouts import checkout


@pytest.fixture
def orders(tmp_path: Path) -> Checkout:
    return checkout(tmp_path / "orders", "orders")


def page(one: Checkout) -> PageProduct:
    service = object.__new__(ProductService)  # nothing starts here
    service.checkout = one
    shared: asyncio.Future[Shared] = asyncio.get_running_loop().create_future()
    shared.set_result(Shared({"orders": 8101}, {"orders": "postgresql://orders"}))
    service._tools = type("Tools", (), {"known": [one]})()  # ty: ignore[invalid-assignment]
    return PageProduct({"orders": service}, shared, {"rates": "http://127.0.0.1:8102"})


async def test_a_document_that_an_editor_locks_does_not_hide_the_map(orders: Checkout) -> None:
    (orders.folder / "specs").mkdir()
    (orders.folder / "specs/.#openapi.json").symlink_to("somebody@here.123")  # Emacs locks a file by such a link
    assert page(orders).declared() == []


async def test_the_output_of_a_command_may_be_any_bytes(orders: Checkout) -> None:
    program = orders.folder / ".venv/bin/python"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nprintf '\\377'\n")
    program.chmod(0o755)
    assert page(orders).run("orders", "parked", "list") == "\ufffd"


@pytest.mark.parametrize(
    ("answers", "panels"),
    [
        ({}, ()),
        ({"messaging_style": "queues", "sagas": "none"}, ()),
        ({"messaging_style": "events-and-queues", "sagas": "postgres"}, ("sagas",)),
        ({"messaging_style": "events", "sagas": "postgres"}, ()),  # queues were turned off later
    ],
)
async def test_a_service_has_the_panel_of_sagas_by_its_answers(
    tmp_path: Path, answers: dict[str, str], panels: tuple[str, ...]
) -> None:
    shown = page(checkout(tmp_path / "orders", "orders", **answers))
    texts = dict.fromkeys(("doing", "version", "migration", "problem"), "")
    vars(shown._all["orders"]).update(texts, state="ready", port=8101, restarts=0, process=None)
    assert [state.panels for state in shown.services()] == [panels, ()]


async def test_a_stub_is_shown_and_has_no_actions(orders: Checkout) -> None:
    shown = page(orders)
    assert [(one.name, one.state) for one in shown._stubs] == [("rates", "stub")]
    for act in (lambda: shown.act("rates", "restart"), lambda: shown.run("rates", "parked", "list")):
        with pytest.raises(RefusedAction, match="rates is a stub"):
            act()
