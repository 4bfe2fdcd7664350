"""The panels of the viewer in a real browser: the services of a product, their map, and their messages."""

import json
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from chassis.dev.viewer import otlp
from chassis.dev.viewer import server as viewer
from chassis.dev.viewer.product import Edge, RefusedAction, ServiceState
from playwright.sync_api import Page, expect

from tests.chassis.dev.sent_spans import CLIENT, CONSUMER, PRODUCER, TRACE, export, gauges, span

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
PLACED = "orders.order-placed.v1"
PARKED = {"id": "01a2065e-0000-7000-8000-000000000001", "parked_at": "2027-01-15T08:00:00+00:00", "name": PLACED}


class Shop:
    """Three services: orders calls payments, which does not start, and stock handles the message of orders."""

    command = "fleet up"

    def __init__(self) -> None:
        self.states = {"orders": "ready", "payments": "broken", "stock": "ready"}
        self.parked = [PARKED | {"direction": "incoming", "reason": f"ValueError: {HOSTILE}\nat line 3"}]

    def services(self) -> list[ServiceState]:
        addresses = {"orders": "http://127.0.0.1:8001", "payments": "javascript:document.title='taken'"}
        return [
            ServiceState(
                name,
                state,  # ty: ignore[invalid-argument-type]
                url=addresses.get(name, ""),
                docs_url="http://127.0.0.1:8001/docs" if name == "orders" else "",
                memory_bytes=86 * 2**20,
                checkout=f"/home/kim/shop/{name}",
                problem=f"Traceback\nImportError: {HOSTILE}" if state == "broken" else "",
            )
            for name, state in self.states.items()
        ]

    def declared(self) -> list[Edge]:
        return [Edge("orders", "payments", "http"), Edge("stock", "orders", "message", "stock.counted.v1")]

    def act(self, service: str, action: str) -> None:
        if service == "payments":
            raise RefusedAction("payments does not start: see its traceback.")
        self.states[service] = "stopped" if action == "stop" else "ready"

    def run(self, service: str, *arguments: str) -> str:
        if arguments[1] == "list":
            return json.dumps(self.parked)
        self.parked.clear()
        return ""


def send(shown: viewer.Viewer, path: str, body: bytes) -> None:
    request = urllib.request.Request(f"{shown.endpoint}/{path}", data=body)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        assert answer.status == 200


def checkout() -> dict[str, list[Any]]:
    """An order that calls payments, which fails, and whose message stock handles 24 ms later."""
    placed = {"messaging__destination__name": PLACED}
    call = {"kind": CLIENT, "http__request__method": "POST", "slipway__neighbour": "payments"}
    return {
        "orders": [span(1, name="POST /v1/orders"), span(2, 1, **call), span(3, 1, kind=PRODUCER, **placed)],
        "payments": [span(4, 2, name="POST /v1/payments", failed=True)],
        "stock": [span(28, 3, name="process", kind=CONSUMER, **placed)],
    }


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def shown(shop: Shop, tmp_path: Path) -> Generator[viewer.Viewer]:
    with viewer.running(tmp_path, product=shop) as running:
        for service, spans in checkout().items():
            running.store.add_spans([each for _, batch in otlp.batches(export(spans, service)) for each in batch])
        send(running, "v1/metrics", gauges("stock", {"messaging.outbox.messages": 12, "messaging.parked.messages": 1}))
        yield running


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_each_panel_fits_into_the_width(page: Page, shown: viewer.Viewer, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    for panel, shows in (("services", "tbody tr"), ("map", "svg .node"), ("messages", "table")):
        page.goto(f"{shown.url}#/{panel}")
        expect(page.locator(f"#{panel} {shows}").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for part in page.locator(f"#{panel} :is(svg, .scroll)").all():
            box = part.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width


def test_a_reader_stops_and_starts_a_service_and_sees_why_another_is_broken(page: Page, shown: viewer.Viewer) -> None:
    page.goto(shown.url)
    orders, payments = page.locator("#states tbody tr").nth(0), page.locator("#states tbody tr").nth(1)
    expect(page.locator("#ready")).to_have_text("2 of 3 ready")
    expect(page.locator("#wrong")).to_have_text("1")
    expect(orders).to_contain_text("86 MiB")
    assert orders.get_by_text("docs").get_attribute("href") == "http://127.0.0.1:8001/docs"
    expect(page.locator("#problems summary")).to_contain_text(f"ImportError: {HOSTILE}")
    expect(page.locator("#problems pre")).to_be_visible()
    orders.get_by_role("button", name="stop orders").click()
    expect(orders.locator(".chip")).to_have_text("stopped")
    orders.get_by_role("button", name="start orders").click()
    expect(orders.locator(".chip")).to_have_text("ready")
    payments.get_by_role("button", name="restart payments").click()
    expect(page.locator("#state")).to_have_text("payments does not start: see its traceback.")
    orders.get_by_role("button", name="Traces").click()
    expect(page.locator("#rows .row")).to_have_count(1)
    assert page.locator("#list select[name=service]").input_value() == "orders"


def test_the_table_of_services_follows_their_states_without_a_reload(
    page: Page, shown: viewer.Viewer, shop: Shop
) -> None:
    page.goto(shown.url)
    states = page.locator("#states .chip")
    expect(states).to_have_text(["ready", "broken", "ready"])
    shop.states |= {"payments": "ready", "stock": "stub"}
    shown.changed()
    expect(states).to_have_text(["ready", "ready", "stub"])
    expect(page.locator("#ready")).to_have_text("2 of 2 ready")
    expect(page.locator("#problems details")).to_have_count(0)
    expect(page.locator("#states tbody tr").nth(2).get_by_role("button", name="restart")).to_have_count(0)


def test_an_address_that_is_no_web_address_is_no_link(page: Page, shown: viewer.Viewer) -> None:
    page.goto(f"{shown.url}#/services")
    expect(page.locator("#states tbody tr").nth(1)).to_contain_text("javascript:")
    assert page.locator("a[href^=javascript]").count() == 0


def test_the_map_draws_used_edges_and_marks_undeclared_and_unused_edges(page: Page, shown: viewer.Viewer) -> None:
    page.goto(f"{shown.url}#/map")
    expect(page.locator("svg .node")).to_have_count(4)  # with the outside
    expect(page.locator("svg .edge.undeclared title")).to_contain_text(f"orders → stock: {PLACED}")
    expect(page.locator("svg .edge.failing title")).to_contain_text("orders → payments: HTTP, 0.2 a minute, 1 failed")
    expect(page.locator("svg .edge.unused title")).to_contain_text("stock → orders: stock.counted.v1")
    expect(page.locator("#undeclared")).to_have_text("1 edge that no document declares")
    row = page.locator("#edges tbody tr").filter(has_text=PLACED)
    assert row.locator("td").all_inner_texts() == [
        "orders",
        "stock",
        PLACED,
        "0.2",
        "0",
        "1.0 ms",
        "Show",
        "undeclared",
    ]
    before = page.locator("#drawing svg").inner_html()
    page.reload()
    expect(page.locator("svg .node")).to_have_count(4)
    assert page.locator("#drawing svg").inner_html() == before
    row.get_by_role("button").click()
    expect(page.locator("#rows .row")).to_have_count(1)


def test_messages_show_the_outbox_and_the_wait_and_a_parked_message_is_dropped_after_a_question(
    page: Page, shown: viewer.Viewer
) -> None:
    page.goto(f"{shown.url}#/messages")
    expect(page.locator("#messages tbody tr")).to_have_count(2)
    outbox, carried = page.locator("#messages tbody tr").all()
    assert outbox.locator("td").all_inner_texts()[:4] == ["stock", "12", "0.00 ms", "1"]
    assert carried.locator("td").all_inner_texts() == [PLACED, "orders", "1", "stock", "1", "0", "24.0 ms", "1.0 ms"]
    outbox.get_by_role("button").click()
    expect(page.locator("#parked .reason")).to_have_text(f"ValueError: {HOSTILE}")
    page.get_by_role("button", name="drop").click()
    page.get_by_text("drop for good?").click()
    expect(page.locator("#parked")).to_have_text("No message is parked in stock.")


def test_a_trace_has_its_services_and_a_link_with_its_id_opens_the_trace(page: Page, shown: viewer.Viewer) -> None:
    page.goto(f"{shown.url}?trace={TRACE}")
    expect(page.locator("#parts li")).to_have_text(["orders3", "payments1", "stock1"])
    expect(page.locator("#waterfall .row .service")).to_have_text(["orders", "payments", "stock"])
    expect(page.locator("#waterfall .row").last).to_contain_text("1.0 ms after 24.0 ms at the broker")
    shown.add_lines("payments", [json.dumps({"event": "card_refused", "trace_id": TRACE}).encode()])
    shown.add_lines("stock", [b"ModuleNotFoundError: nothing"], "stderr")
    page.keyboard.press("l")
    page.locator("select[name=service]").select_option("payments")
    expect(page.locator("#rows .row")).to_have_count(1)
    page.locator("#rows").focus()
    for key in ("j", "Enter", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#trace h1")).to_have_text("POST /v1/orders")
    page.goto(f"{shown.url}#/logs")
    page.locator("select[name=service]").select_option("stock")
    page.locator("select[name=level]").select_option("warning")
    expect(page.locator("#rows .row")).to_contain_text(["ModuleNotFoundError: nothing"])


def test_the_page_of_one_service_has_no_panel_of_services(page: Page, tmp_path: Path) -> None:
    with viewer.running(tmp_path / "alone") as alone:
        page.goto(f"{alone.url}#/services")
        expect(page.locator("#empty")).to_be_visible()
        expect(page.locator("#to-services")).to_be_hidden()
        page.keyboard.press("m")
        expect(page.locator("#unused")).to_have_text("No service was called in this time.")
        page.keyboard.press("b")
        expect(page.locator("#silent")).to_be_visible()
        page.goto("about:blank")
