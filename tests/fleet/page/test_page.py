"""The fleet as one HTML file, in a real browser."""

import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from fleet.check.findings import Finding, Level
from fleet.check.standing import Standing
from fleet.conventions import Convention, Problem
from fleet.page import page as html
from fleet.service.service import Service
from tests.support.browser import browser
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

HOSTILE = "<script>document.title = 'taken'</script>"


class Paths(Convention):
    """A path names its version & <b>nothing</b> breaks."""

    id = "http-paths"
    remedy = "begin it with /v1"

    def check(self, service: Service) -> Iterator[Problem]:
        yield from ()


class Pages(Paths):
    """A list has an end."""

    id = "http-pages"


def of(convention: str, level: Level = Level.ERROR) -> Finding:
    return Finding(convention, "specs/openapi.json", f"{HOSTILE} has none", "begin it with /v1", level, 3, "A reason.")


def standing(name: str, version: str = "v1.9.0", behind: int = 0, *conventions: Finding, drift: int = 0) -> Standing:
    edited = tuple(Finding("drift-edited", f"{number}.toml", "edited", "restore it") for number in range(drift))
    return Standing(
        name,
        f"git@git.example.com:shop/{name}.git",
        commit="a" * 40,
        version=version,
        newest="v1.10.0",
        releases_behind=behind,
        waivers={"live": 0, "expiring": 0, "void": 0},
        platform=edited,
        conventions=conventions,
    )


FLEET = [
    standing("billing-10", "v1.9.0", 1, of("http-paths"), of("http-paths")),
    standing("billing-9", "v1.10.0", 0, of("http-pages")),
    standing(HOSTILE, "v1.2.0", 8, of("http-pages", Level.WAIVED), drift=2),
    standing("orders", "v1.10.0"),
    Standing("gone", "https://git.example.com/gone.git", unreadable=f"no such repository {HOSTILE}"),
]
GRAPH = '<svg viewBox="0 0 10 10" role="img" aria-label="Who calls whom"><circle cx="5" cy="5" r="4"/></svg>'


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, list[str]]]:
    """The page, opened from its file, with its errors and its network requests."""
    file = tmp_path_factory.mktemp("report") / "fleet.html"
    file.write_text(html(FLEET, [Paths(), Pages()], GRAPH), encoding="utf-8")
    with browser() as chromium:
        page = chromium.new_page()
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        trouble: list[str] = []
        page.on("console", lambda message: trouble.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        page.on("request", lambda request: trouble.extend({f"request: {request.url}"} - {f"request: {file.as_uri()}"}))
        page.goto(file.as_uri())
        yield page, trouble


@pytest.fixture
def page(report: tuple[Page, list[str]]) -> Iterator[Page]:
    """The page, just opened. After each test, it has neither an error nor a network request."""
    opened, trouble = report
    opened.goto(opened.url.partition("#")[0])
    opened.reload()
    yield opened
    assert trouble == []


def names(page: Page) -> list[str]:
    return page.locator("#table tbody tr:visible th").all_inner_texts()


def test_the_numbers_of_the_summary(page: Page) -> None:
    tiles = [text.split(maxsplit=1) for text in page.locator("button.tile").all_inner_texts()]
    assert tiles == [["1", "in order"], ["0", "warning"], ["3", "breach"], ["1", "unreadable"]]
    versions = [text.split() for text in page.locator(".versions li").all_inner_texts()]
    assert versions == [["v1.2.0", "1"], ["v1.9.0", "1"], ["v1.10.0", "2"]]


def test_names_and_reasons_are_text_and_nothing_else(page: Page) -> None:
    assert page.title().startswith("The fleet")
    assert page.locator("#table tbody th").nth(2).inner_text() == HOSTILE
    page.locator("details.service").last.locator("summary").click()
    assert page.locator("details.service").last.locator(".unreadable").inner_text().endswith(HOSTILE)
    assert page.locator("script").count() == 1
    page.get_by_text("Why these conventions").click()
    assert page.locator("#c-http-paths + dd").inner_text() == Paths().reason


def test_a_service_that_cannot_be_read_has_the_reason_in_the_table(page: Page) -> None:
    assert (
        page.locator("#table tr[data-state=unreadable]").inner_text().strip().endswith(f"no such repository {HOSTILE}")
    )


def test_on_a_telephone_names_stay_visible_while_columns_scroll_and_rows_stay_low(page: Page) -> None:
    before = page.viewport_size
    page.set_viewport_size({"width": 390, "height": 844})
    name = page.locator("#table tbody th").first
    left = name.bounding_box()
    page.locator("#services .scroll").evaluate("one => { one.scrollLeft = 200 }")
    assert (name.bounding_box() or {})["x"] == (left or {})["x"]
    assert (page.locator("#table tbody tr").nth(1).bounding_box() or {})["height"] < 100
    page.set_viewport_size(before or {"width": 1280, "height": 720})


def test_a_click_on_a_column_sorts_by_its_meaning_and_a_second_click_reverses_the_order(page: Page) -> None:
    header = page.locator("#table thead th")
    header.nth(0).get_by_role("button").click()
    assert names(page) == [HOSTILE, "billing-9", "billing-10", "gone", "orders"]
    expect(header.nth(0)).to_have_attribute("aria-sort", "ascending")
    # v1.10.0 comes after v1.9.0.
    header.nth(2).get_by_role("button").click()
    assert names(page)[:3] == ["gone", HOSTILE, "billing-10"]
    assert page.locator("#table [aria-sort]").count() == 1
    for column, worst in ((1, {"gone"}), (3, {HOSTILE}), (4, {HOSTILE}), (5, {"billing-9", "billing-10"})):
        for _ in range(2):
            header.nth(column).get_by_role("button").press("Enter")
        expect(header.nth(column)).to_have_attribute("aria-sort", "descending")
        assert names(page)[0] in worst


def test_text_and_state_filter_the_table_the_heat_map_and_the_details(page: Page) -> None:
    page.get_by_role("searchbox", name="Find").fill("BILLING")
    assert names(page) == ["billing-10", "billing-9"]
    for part in ("#heatmap tbody tr", "details.service"):
        assert page.locator(f"{part}:visible").count() == 2
    expect(page.locator("output")).to_have_text("2 of 5 shown")
    page.get_by_role("searchbox", name="Find").fill("")
    page.get_by_role("combobox", name="State").select_option("unreadable")
    assert names(page) == ["gone"]
    tile = page.locator("button.tile", has_text="in order")
    tile.click()
    assert names(page) == ["orders"]
    expect(tile).to_have_attribute("aria-pressed", "true")
    tile.click()
    assert len(names(page)) == 5


def test_a_mark_of_the_heat_map_leads_to_its_finding_and_remedy(page: Page) -> None:
    mark = page.get_by_role("link", name="billing-10, http-paths: not kept, 2 findings")
    assert mark.inner_text() == "✕"
    assert not page.locator("#s1-http-paths").is_visible()
    mark.click()
    finding = page.locator("#s1-http-paths")
    expect(finding).to_be_visible()
    expect(finding).to_be_focused()
    assert "specs/openapi.json:3: " in finding.inner_text()
    assert "→ begin it with /v1" in finding.inner_text()
    assert "A reason." in finding.inner_text()
    # A section that was folded by hand opens again by the same link.
    page.locator("#s1 > summary").click()
    expect(finding).not_to_be_visible()
    mark.click()
    expect(finding).to_be_visible()


def test_the_heat_map_is_one_stop_of_the_tab_key_and_the_arrows_go_on(page: Page) -> None:
    marks = page.locator("#heatmap td a")
    assert [marks.nth(number).get_attribute("tabindex") for number in range(3)] == ["0", "-1", "-1"]
    assert [marks.nth(number).inner_text() for number in range(3)] == ["✕", "✕", "○"]
    second_column = page.get_by_role("link", name="billing-9, http-pages")
    waived = page.get_by_role("link", name=f"{HOSTILE}, http-pages: waived")
    second_column.focus()
    second_column.press("ArrowDown")
    expect(waived).to_be_focused()
    expect(waived).to_have_attribute("tabindex", "0")
    waived.press("ArrowDown")
    expect(waived).to_be_focused()
    waived.press("ArrowUp")
    expect(second_column).to_be_focused()
    second_column.press("Enter")
    expect(page.locator("#s2-http-pages")).to_be_focused()


def test_a_link_from_elsewhere_opens_the_service(page: Page) -> None:
    page.goto(f"{page.url}#s4")
    expect(page.locator("#s4")).to_have_attribute("open", "")
    expect(page.locator("#s4")).to_contain_text("No findings")


def test_the_page_is_light_or_dark_by_the_setting_of_the_reader(page: Page) -> None:
    papers = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert papers == ["rgb(251, 251, 250)", "rgb(20, 24, 28)"]


def test_a_graph_is_a_section_of_its_own_in_a_fleet_that_has_a_graph(page: Page) -> None:
    assert page.locator("#map svg circle").count() == 1
    assert page.get_by_role("link", name="Map").count() == 1
    assert 'id="map"' not in html(FLEET, [Paths()])


def test_a_fleet_and_a_list_of_conventions_may_be_empty() -> None:
    assert "There are none." in html([], [])


def test_the_parts_of_the_page_are_in_the_wheel(tmp_path: Path) -> None:
    done = subprocess.run(
        ["uv", "build", "--quiet", "--wheel", "--out-dir", tmp_path, ROOT], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert {"fleet/page/page.html.jinja", "fleet/page/page.css", "fleet/page/page.js"} <= set(wheel.namelist())
