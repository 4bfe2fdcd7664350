"""The panels of the viewer in a real browser: the services of a product, their map, their messages, and their sagas."""

import json
import urllib.request
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from chassis.dev.viewer import otlp
from chassis.dev.viewer import server as viewer
from chassis.dev.viewer.product import Edge, RefusedAction, ServiceState
from chassis.sagas.summary import summary
from playwright.sync_api import Page, expect

from tests.chassis.dev.sent_spans import CLIENT, CONSUMER, PRODUCER, TRACE, export, gauges, span

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
PLACED = "orders.order-placed.v1"
PARKED = {"id": "01a2065e-0000-7000-8000-000000000001", "parked_at": "2027-01-15T08:00:00+00:00", "name": PLACED}
NOW = datetime.now(UTC)
SAGA = "01a2065e-0000-7000-8000-0000000000"


def saga(number: int, state: str, steps: list[dict[str, Any]], **columns: Any) -> dict[str, Any]:
    """Return a saga as the command of a service lists it."""
    row = {"id": f"{SAGA}{number:02}", "name": "place-order", "key": f"order-{number}", "state": state, "position": ""}
    times = {"started_at": NOW - timedelta(hours=2), "deadline": None}
    trace = {"traceparent": f"00-{TRACE}-{'1' * 16}-01"}
    texts = {"problem": None, "reason": None}
    return summary(row | times | trace | texts | columns | {"steps": json.dumps(steps)})


def sagas() -> list[dict[str, Any]]:
    at = NOW.isoformat()
    reserved, charged = ({"name": name, "at": at, "result": "secret"} for name in ("reserve_stock", "request_payment"))
    refused = {"name": HOSTILE, "at": at, "answer": "CardRefused", "result": {"why": "secret"}}
    late = {"name": "CardCharged | CardRefused", "at": at, "answer": "TimedOut", "result": None}
    error = {"name": "check_limit", "at": at, "error": "orders.domain:LimitExceeded", "result": "secret"}
    problem = {"problem": f"RuntimeError: {HOSTILE}\nthe bank is closed", "reason": "payment"}
    deadline = {"position": "CardCharged | CardRefused", "deadline": NOW + timedelta(hours=4, minutes=50)}
    return [
        saga(1, "undoing", [reserved, charged | {"undone": at, "by_hand": True}, refused], **problem),
        saga(2, "running", [], key=HOSTILE * 4, problem="ValueError: no stock"),
        saga(3, "waiting", [reserved], **deadline),
        saga(4, "abandoned", [reserved | {"undone": at}, late, error], reason="payment"),
        saga(5, "completed", [reserved]),
    ]


class Shop:
    """Three services: orders calls payments, which does not start, and stock handles the message of orders."""

    command = "fleet up"

    def __init__(self) -> None:
        self.states = {"orders": "ready", "payments": "broken", "stock": "ready"}
        self.sagas = sagas()
        self.asked: list[tuple[str, ...]] = []
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
                panels=("sagas",) if name == "orders" else (),
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
        if arguments[0] == "sagas":
            return self.look_after_sagas(*arguments[1:])
        if arguments[1] == "list":
            return json.dumps(self.parked)
        self.parked.clear()
        return ""

    def look_after_sagas(self, action: str, *options: str) -> str:
        if action == "list":
            return json.dumps(self.sagas)
        self.asked.append((action, *options))
        [one] = [each for each in self.sagas if each["id"] == options[-1]]
        one["problem"] = None
        return f"{options[-1]}  tries its next step\n"


def send(shown: viewer.Viewer, path: str, body: bytes) -> None:
    request = urllib.request.Request(f"{shown.endpoint}/{path}", data=body)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        assert answer.status == 200


def checkout() -> dict[str, list[Any]]:
    """An order that calls payments, which fails, and whose message stock handles 24 ms later."""
    placed: dict[str, Any] = {"messaging__destination__name": PLACED}
    call: dict[str, Any] = {"kind": CLIENT, "http__request__method": "POST", "slipway__neighbour": "payments"}
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
    for panel, shows in (("services", "tbody tr"), ("map", "svg .node"), ("messages", "table"), ("sagas", "article")):
        page.goto(f"{shown.url}#/{panel}")
        expect(page.locator(f"#{panel} {shows}").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        parts = page.locator(f"#{panel} :is(svg, .scroll, article, article *)")
        boxes = parts.evaluate_all(
            "parts => parts.map(part => part.getClientRects().length && part.getBoundingClientRect())"
        )
        assert all(boxes), "a part is hidden"
        assert all(box["left"] >= 0 and box["right"] <= width for box in boxes)


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
    expect(page.locator("svg .node")).to_have_count(4)  # three services, and a node for callers from outside
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


def test_sagas_are_a_line_of_steps_with_the_deadline_and_the_trace(page: Page, shown: viewer.Viewer) -> None:
    page.goto(shown.url)
    expect(page.locator("#to-sagas")).to_be_visible()
    page.keyboard.press("g")
    cards = page.locator("#sagas article")
    expect(cards).to_have_count(5)
    expect(page.locator("#sagas h2")).to_have_text("orders5 sagas2 parked")
    undoing, running, waiting, abandoned, completed = (cards.nth(number).locator("ol li") for number in range(5))
    expect(undoing).to_have_text(
        [
            "reserve_stockdone",
            "request_paymentundone by hand",
            f"{HOSTILE}CardRefused",
            "next compensationfailed",
        ]
    )
    for number, shape in enumerate(("done", "undone", "answered", "refused")):
        expect(undoing.nth(number)).to_have_class(shape)
    expect(running).to_have_text(["next stepfailed"])
    expect(waiting).to_have_text(["reserve_stockdone", "CardCharged | CardRefusedtime is up in 4 hours"])
    expect(waiting.last).to_have_class("waits")
    expect(abandoned).to_have_text(
        ["reserve_stockundone", "CardCharged | CardRefusedtime is up", "check_limitLimitExceeded"]
    )
    expect(completed).to_have_text(["reserve_stockdone"])
    expect(cards.first.locator(".problem")).to_contain_text("the bank is closed")
    expect(cards.nth(3)).to_contain_text("Abandoned because of: payment")
    assert "secret" not in page.locator("#sagas").inner_text()
    assert page.title() == "Sagas"
    cards.nth(2).get_by_role("link", name="Trace").click()
    expect(page.locator("#trace h1")).to_have_text("POST /v1/orders")


def test_a_reader_decides_about_parked_sagas_only_and_confirms_a_decision_that_is_final(
    page: Page, shown: viewer.Viewer, shop: Shop
) -> None:
    page.goto(f"{shown.url}#/sagas")
    cards = page.locator("#sagas article")
    expect(cards.nth(2)).to_be_visible()
    expect(cards.nth(0).get_by_role("button")).to_have_text(["Retry", "Retry, done by hand"])
    expect(cards.nth(1).get_by_role("button")).to_have_text(["Retry", "Abandon"])
    expect(cards.nth(2).get_by_role("button")).to_have_count(0)
    cards.nth(1).get_by_role("button").last.focus()
    page.keyboard.press("Enter")
    expect(cards.nth(1).get_by_role("button").last).to_have_text("Undo all steps?")
    expect(cards.nth(1).get_by_role("button").last).to_be_focused()
    assert shop.asked == []
    page.keyboard.press("Enter")
    expect(cards.nth(1).get_by_role("button")).to_have_count(0)
    cards.nth(0).get_by_role("button").last.click()
    page.get_by_text("Really done by hand?").click()
    expect(page.locator("#state")).to_have_text("place-order order-1: tries its next step")
    expect(page.locator("#sagas button")).to_have_count(0)
    assert shop.asked == [("abandon", f"{SAGA}02"), ("retry", "--by-hand", f"{SAGA}01")]


def test_the_states_of_steps_differ_in_shape_and_have_the_colours_of_the_readers_setting(
    page: Page, shown: viewer.Viewer
) -> None:
    page.goto(f"{shown.url}#/sagas")
    marks = page.locator("#sagas ul li")
    expect(marks).to_have_count(6)
    look = "each => { const mark = getComputedStyle(each, '::before'); return [mark.content, mark.color]; }"
    seen = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        seen.append([mark.evaluate(look) for mark in marks.all()])
    assert len({content for content, _ in seen[0]}) == 6
    assert all(light[1] != dark[1] for light, dark in zip(*seen, strict=True))


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
        expect(page.locator("#to-sagas")).to_be_hidden()
        page.keyboard.press("m")
        expect(page.locator("#unused")).to_have_text("No service was called in this time.")
        page.keyboard.press("b")
        expect(page.locator("#silent")).to_be_visible()
        page.goto("about:blank")
