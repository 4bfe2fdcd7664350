"""The page of the viewer in a real browser, at the widths of a telephone, a laptop and a wide screen."""

import json
import re
import threading
import urllib.request
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from chassis.dev.viewer import log_lines
from chassis.dev.viewer import server as viewer
from opentelemetry.proto.trace.v1 import trace_pb2
from playwright.sync_api import Page, Route, expect

from tests.chassis.dev.sent_spans import CLIENT, CONSUMER, PRODUCER, TRACE, attribute, export, span

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

WIDTHS = [390, 1280, 1920]
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
STATEMENT = "SELECT id FROM billing.invoices WHERE id = $1"
LARGE = "2" * 32


def send(shown: viewer.Viewer, path: str, body: bytes) -> None:
    request = urllib.request.Request(f"{shown.endpoint}/{path}", data=body)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        assert answer.status == 200


def log(shown: viewer.Viewer, **line: Any) -> None:
    shown.store.add_lines([log_lines.read(json.dumps(line).encode(), "billing")])


def checkout() -> Iterator[Any]:
    """A request with SQL, a message that waited for 20 ms, and a handler that failed."""
    error = trace_pb2.Span.Event(name="exception", attributes=[attribute("exception.type", "CardRefused")])
    yield span(
        1, name="POST /v1/orders", http__response__status_code=201, http__route="/v1/orders", url__path="/v1/orders"
    )
    yield span(2, 1, kind=CLIENT, name="SELECT billing.invoices", db__query__text=STATEMENT)
    yield span(30, 1, kind=PRODUCER, name="send orders.order-placed.v1")
    yield span(60, 30, kind=CONSUMER, name="process orders.order-placed.v1", failed=True, events=[error])


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Generator[viewer.Viewer]:
    with viewer.running(tmp_path_factory.mktemp("viewer")) as running:
        send(running, "v1/traces", export(checkout()))
        line = {"event": "card_refused", "level": "error", "timestamp": "2027-01-15T08:00:00.0605Z", "trace_id": TRACE}
        log(running, **line, span_id=f"{60:016x}", request_id="order-7", amount=12)
        hostile = span(1, trace="3" * 32, name=HOSTILE, db__query__text=HOSTILE, failed=True)
        hostile.attributes.append(attribute(HOSTILE, HOSTILE))
        send(running, "v1/traces", export([hostile], service=HOSTILE))
        log(running, event=HOSTILE, level="warning", trace_id="3" * 32, **{HOSTILE: HOSTILE})
        many = (span(number, number // 4, trace=LARGE, name=f"step {number}") for number in range(1, 10_001))
        send(running, "v1/traces", export(many))
        yield running


def rows(page: Page, box: str = "rows") -> Any:
    return page.locator(f"#{box} .row")


def open_trace(page: Page, shown: viewer.Viewer, trace: str = TRACE) -> None:
    page.goto(f"{shown.url}#/traces/{trace}")
    expect(rows(page, "waterfall").first).to_be_visible()


@pytest.mark.parametrize("width", WIDTHS)
def test_lists_and_a_trace_fit_into_the_width(page: Page, shown: viewer.Viewer, width: int, tmp_path: Path) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    for address, row in (("", "#rows"), ("#/logs", "#rows"), (f"#/traces/{TRACE}", "#waterfall")):
        page.goto(shown.url + address)
        expect(page.locator(f"{row} .row").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(
            "[...document.querySelectorAll('.rows')].every((box) => box.scrollWidth <= box.clientWidth)"
        )
        assert page.evaluate(f"document.querySelector('{row} .row').clientWidth") > 0.9 * width
    rows(page, "waterfall").filter(has_text="SELECT").click()
    detail = page.locator("#detail")
    expect(detail).to_contain_text(STATEMENT)
    box = detail.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_names_values_and_lines_are_text_and_nothing_else(page: Page, shown: viewer.Viewer) -> None:
    page.goto(shown.url)
    expect(rows(page).filter(has_text=HOSTILE)).to_be_visible()
    open_trace(page, shown, "3" * 32)
    rows(page, "waterfall").first.click()
    expect(page.locator("#detail dt", has_text=HOSTILE)).to_be_visible()
    assert page.title() == HOSTILE
    page.goto(f"{shown.url}#/logs")
    rows(page).filter(has_text=HOSTILE).click()
    expect(page.locator("#detail h2")).to_have_text(HOSTILE)
    assert page.title() == "Logs"
    assert page.locator("img, body script").count() == 0


def test_a_trace_shows_failures_first_then_spans_with_sql_lines_and_the_wait_at_the_broker(
    page: Page, shown: viewer.Viewer
) -> None:
    open_trace(page, shown)
    expect(page.locator("#failures li")).to_have_text(
        ["billing · card_refused · amount=12", "billing · process orders.order-placed.v1 · CardRefused"]
    )
    names = ["POST /v1/orders", "SELECT billing.invoices", "send orders", "process orders", "card_refused"]
    expect(rows(page, "waterfall")).to_have_text([re.compile(name) for name in names])
    expect(rows(page, "waterfall").nth(1)).to_contain_text(STATEMENT)
    assert rows(page, "waterfall").nth(3).locator(".wait").get_attribute("title") == "waited 29.0 ms"
    page.locator("#failures button").last.click()
    expect(page.locator("#detail")).to_contain_text("CardRefused")
    expect(rows(page, "waterfall").nth(3)).to_have_attribute("aria-selected", "true")


def test_ten_thousand_spans_need_only_the_visible_rows(page: Page, shown: viewer.Viewer) -> None:
    open_trace(page, shown, LARGE)
    assert rows(page, "waterfall").count() < 100
    page.keyboard.press("End")
    last = rows(page, "waterfall").last
    expect(last).to_have_attribute("aria-selected", "true")
    assert last.get_attribute("aria-posinset") == last.get_attribute("aria-setsize") == "10000"
    assert rows(page, "waterfall").count() < 100
    page.mouse.move(300, 500)
    page.mouse.wheel(0, -100_000)
    expect(rows(page, "waterfall").filter(has_text="step 9999")).to_have_count(0)
    assert 10 < rows(page, "waterfall").count() < 100


def test_a_slow_answer_leaves_the_focus_in_the_search(page: Page, shown: viewer.Viewer) -> None:
    held: list[Route] = []
    is_typed = threading.Event()
    page.route("**/product", lambda route: route.continue_() if is_typed.is_set() else held.append(route))
    with page.expect_request("**/product"):
        page.goto(shown.url, wait_until="commit")
    page.get_by_label("Search").focus()
    page.keyboard.type("/v1/orders")
    is_typed.set()
    for route in held:
        route.continue_()
    expect(rows(page)).to_have_count(1)
    expect(page.get_by_label("Search")).to_be_focused()


def test_the_keyboard_reaches_everything(page: Page, shown: viewer.Viewer) -> None:
    page.goto(shown.url)
    expect(rows(page).first).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("/V1/ORDERS")
    expect(rows(page)).to_have_count(1)
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#trace h1")).to_have_text("POST /v1/orders")
    expect(rows(page, "waterfall")).to_have_count(5)
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    expect(rows(page, "waterfall")).to_have_count(1)
    page.keyboard.press("ArrowRight")
    expect(rows(page, "waterfall")).to_have_count(5)
    page.keyboard.press("e")
    expect(page.locator("#detail h2")).to_have_text("process orders.order-placed.v1")
    page.keyboard.press("z")
    expect(page.locator("#ruler span").first).to_have_text("59.0 ms")
    page.keyboard.press("c")
    expect(page.locator("#state")).to_have_text("copied")
    assert STATEMENT in page.evaluate("navigator.clipboard.readText()")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.locator("#list")).to_be_visible()
    page.keyboard.press("l")
    expect(rows(page).filter(has_text="card_refused")).to_be_visible()
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()


def test_an_id_of_a_request_and_a_log_line_lead_to_the_trace(page: Page, shown: viewer.Viewer) -> None:
    page.goto(f"{shown.url}#order-7")
    expect(page.locator("#trace h1")).to_have_text("POST /v1/orders")
    page.goto(f"{shown.url}#/logs")
    page.locator("select[name=level]").select_option("error")
    expect(rows(page)).to_have_count(1)
    rows(page).first.click()
    page.locator("#detail a").click()
    expect(page.locator("#trace h1")).to_have_text("POST /v1/orders")
    page.goto(f"{shown.url}#/traces")
    page.locator("input[name=text]").fill("order-7")
    page.keyboard.press("Enter")
    expect(page.locator("#trace h1")).to_have_text("POST /v1/orders")
    page.goto(f"{shown.url}#of-nobody")
    expect(page.locator("#empty")).to_have_text("Nothing matches the filters.")


def test_the_list_is_filtered_by_status_duration_and_failure(page: Page, shown: viewer.Viewer) -> None:
    page.goto(shown.url)
    expect(rows(page)).to_have_count(3)
    page.locator("select[name=status]").select_option("2")
    expect(rows(page)).to_have_count(1)
    page.locator("select[name=at_least_ms]").select_option("1000")
    expect(rows(page)).to_have_count(0)
    page.reload()
    page.locator("input[name=failed]").check()
    expect(rows(page)).to_have_count(2)


def test_a_new_trace_appears_by_itself_and_the_end_of_make_dev_is_told(page: Page, tmp_path: Path) -> None:
    with viewer.running(tmp_path) as running:
        page.goto(running.url)
        expect(page.locator("#empty")).to_contain_text("Send a request")
        send(running, "v1/traces", export([span(1, name="GET /new")]))
        expect(rows(page)).to_have_text([re.compile("GET /new")])
        page.keyboard.press("p")
        send(running, "v1/traces", export([span(1, trace="4" * 32, name="GET /newer")]))
        expect(page.locator("#state")).to_have_text("paused, with newer entries")
        expect(rows(page)).to_have_text([re.compile("GET /new")])
        page.get_by_role("button", name="Resume").click()
        expect(rows(page)).to_have_count(2)
        expect(page.locator("#state")).to_have_text("live")
        page.get_by_text("GET /new", exact=True).click()
        expect(rows(page, "waterfall")).to_have_count(1)
        send(running, "v1/traces", export([span(2, 1, name="later")]))
        expect(rows(page, "waterfall")).to_have_count(2)
    expect(page.locator("#state")).to_contain_text("make dev has stopped")


def test_the_page_is_light_or_dark_by_the_setting_of_the_reader(page: Page, shown: viewer.Viewer) -> None:
    page.goto(shown.url)
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(251, 251, 250)", "rgb(20, 24, 28)"]
