"""The fleet as one HTML file, in a real browser."""

import re
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from docs.example_fleet import content as example
from docs.example_map import with_example_map
from fleet.page import Content, write_pages
from fleet.page import page as html
from tests.fleet.page.fleets import FLEET, HOSTILE, RULES, Open, Paths, small, standing
from tests.support.needs import AXE
from tests.support.npm import packed
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def report(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, list[str]]]:
    """The page of the small fleet, opened from its file, with its errors and its network requests."""
    file = tmp_path_factory.mktemp("report") / "fleet.html"
    file.write_text(html(small()), encoding="utf-8")
    page = chromium.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(60_000)
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
    page.on("request", lambda request: trouble.extend({f"request: {request.url}"} - {f"request: {file.as_uri()}"}))
    page.goto(file.as_uri())
    yield page, trouble
    page.close()


@pytest.fixture
def page(report: tuple[Page, list[str]]) -> Iterator[Page]:
    """The page, just opened. After each test, it has neither an error nor a network request."""
    opened, trouble = report
    opened.goto(opened.url.partition("#")[0])
    opened.reload()
    yield opened
    assert trouble == []


def names(page: Page) -> list[str]:
    return page.locator("#table tbody tr:not(.group):visible th").all_inner_texts()


def test_the_page_opens_with_the_numbers_and_filters_of_the_states(page: Page) -> None:
    expect(page.locator(".hero")).to_have_text("1 of 6 services is in order")
    chips = [text.split(maxsplit=1) for text in page.locator("button.chip").all_inner_texts()]
    assert chips == [["1", "in order"], ["1", "unreadable"], ["4", "breach"]]
    releases = [text.split()[:2] for text in page.locator(".releases li").all_inner_texts()]
    expect(page.locator("#releases > .quiet")).to_have_text(
        "2 services are behind the newest release. 1 service could not be read."
    )
    assert releases == [["v1.10.0", "3"], ["v1.9.0", "1"], ["v1.2.0", "1"]]
    assert page.locator(".releases .behind").all_inner_texts() == ["billing-10", HOSTILE]


def test_the_next_steps_begin_with_the_leaked_key_though_another_service_has_more_errors(page: Page) -> None:
    steps = page.locator(".steps > li")
    assert steps.count() == 3
    first = [line for line in steps.first.inner_text().splitlines() if line]
    assert first[0].split() == ["mail", "@shop/a", "act", "today"]
    assert first[1] == "Replace the secret"
    assert first[2] == f"supply-no-secrets src/mail.py:3: {HOSTILE} has none"
    assert steps.nth(1).locator(".who .name").inner_text() == "billing-10"
    assert names(page)[:2] == ["mail", "billing-10"]


def test_a_missing_annotation_has_another_shape_and_colour_than_an_error_and_a_leaked_key(opened: Open) -> None:
    page = opened(example(40))
    tones = ("urgent", "error", "warning", "notice")
    marks = [page.locator(f"#failing .mark[data-tone={tone}]").first for tone in tones]
    shapes = {mark.locator("use").get_attribute("href") for mark in marks}
    colours = {mark.evaluate("one => getComputedStyle(one).color") for mark in marks}
    assert (len(shapes), len(colours)) == (4, 4)
    assert page.locator("#table .state[data-urgent]").count() == 3


def test_changes_since_the_last_day_are_listed_with_changes_for_the_worse_first(page: Page) -> None:
    changes = page.locator(".changes li").all_inner_texts()
    assert [re.sub(r"\s+", " ", one) for one in changes] == [
        "↓ worse: supply-no-secrets fails mail",
        f"↑ better: {HOSTILE} holds again orders",
        "↑ better: in order now orders",
        "· other: now at v1.10.0 orders, mail",
    ]


def test_names_reasons_and_the_history_are_text_and_nothing_else(page: Page) -> None:
    assert page.title().startswith("The fleet")
    assert HOSTILE in names(page)
    unread = page.locator("#unread li").all_inner_texts()
    mend = "Until its owner or you mend this, nobody judges the service."
    assert unread == [f"gone no owner no such repository {HOSTILE} {mend}", f"history.jsonl, line 2 {HOSTILE}"]
    assert page.locator("script").count() == 1
    assert page.locator("[onclick], [onerror], a[href^='javascript']").count() == 0
    page.get_by_text("Why these conventions").click()
    assert page.locator("#c-http-paths + dd").inner_text() == Paths().reason
    assert page.locator("#owners").get_by_text(HOSTILE).count() == 2


def test_a_file_has_a_link_to_its_line_at_the_forge_and_a_hostile_address_has_none(page: Page) -> None:
    place = "https://git.example.com/shop/mail/-/blob/" + "a" * 40 + "/src/mail.py#L3"
    assert page.locator(".steps a[rel=noreferrer]").first.get_attribute("href") == place
    page.locator("#s6 > summary").click()
    expect(page.locator("#s6 .where a")).to_have_attribute("href", "https://git.example.com/shop/mail")
    assert page.locator("#s3 .where a").count() == 0


def test_charts_have_a_table_and_a_description_each_and_a_fleet_without_history_has_none(page: Page) -> None:
    figures = page.locator("figure")
    assert figures.count() == 5
    adoption = figures.filter(has_text="Adoption of releases")
    expect(adoption.locator("svg")).to_have_attribute(
        "aria-label", re.compile("^Adoption of releases: v1.10.0 or later is at 60% of 5 readable services after")
    )
    adoption.get_by_text("Table").click()
    assert adoption.locator("tbody tr").first.inner_text().split("\t") == ["v1.10.0", "2026-10-01", "60%", "not yet"]
    orderly = figures.filter(has_text="Services in order")
    orderly.get_by_text("Table").click()
    assert [row.split("\t")[1:] for row in orderly.locator("tbody tr").all_inner_texts()] == [["1", "4", "1"]] * 2
    without = html(replace(small(), days=()))
    assert not {'id="progress"', "<figure", 'id="changes"', "#progress"} & {
        *re.findall(r'id="\w+"|<figure|#progress', without)
    }
    assert "Charts begin with the second day" in html(replace(small(), days=small().days[-1:]))


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
    def column(name: str) -> int:
        return page.locator("#table thead th").all_inner_texts().index(name)

    header = page.locator("#table thead th")
    header.nth(0).get_by_role("button").click()
    assert names(page) == [HOSTILE, "billing-9", "billing-10", "gone", "mail", "orders"]
    expect(header.nth(0)).to_have_attribute("aria-sort", "ascending")
    # v1.10.0 comes after v1.9.0.
    header.nth(column("version")).get_by_role("button").click()
    assert names(page)[:3] == ["gone", HOSTILE, "billing-10"]
    assert page.locator("#table [aria-sort]").count() == 1
    worst = {"state": "mail", "behind": HOSTILE, "drift": HOSTILE, "rules": "mail"}
    for name, service in worst.items():
        for _ in range(2):
            header.nth(column(name)).get_by_role("button").press("Enter")
        expect(header.nth(column(name))).to_have_attribute("aria-sort", "descending")
        assert names(page)[0] == service


def test_a_table_that_is_cut_states_how_many_rows_are_below_until_the_last_row_is_visible(opened: Open) -> None:
    box = opened(example(40)).locator("#services .scroll")
    seen = "one => [...one.querySelectorAll('tbody tr')].filter(row => row.getBoundingClientRect().bottom <= one.getBoundingClientRect().bottom - 31).length"
    expect(box).to_have_attribute("data-below", re.compile(r"\d+ more below"))
    assert box.get_attribute("data-below") == f"↓ {40 - box.evaluate(seen)} more below: scroll"
    box.evaluate("one => { one.scrollTop = one.scrollHeight }")
    expect(box).not_to_have_attribute("data-below", re.compile("."))


def test_text_state_and_owner_filter_the_table_the_heat_map_and_the_details(page: Page) -> None:
    page.get_by_role("searchbox", name="Find").fill("BILLING")
    assert names(page) == ["billing-10", "billing-9"]
    for part in ("#heatmap tbody tr", "details.service"):
        assert page.locator(f"{part}:visible").count() == 2
    expect(page.locator("output")).to_have_text("2 of 6 shown")
    page.get_by_role("combobox", name="Owner").select_option("@shop/b")
    assert names(page) == ["billing-9"]
    page.get_by_role("button", name="Show all").click()
    page.get_by_role("searchbox", name="Find").fill("http-paths")
    assert names(page) == ["billing-10"]
    page.get_by_role("searchbox", name="Find").fill("")
    page.get_by_role("combobox", name="State").select_option("unreadable")
    assert names(page) == ["gone"]
    chip = page.locator("button.chip", has_text="in order")
    chip.click()
    assert names(page) == ["orders"]
    expect(chip).to_have_attribute("aria-pressed", "true")
    chip.click()
    assert len(names(page)) == 6


def test_services_are_grouped_by_owner_and_the_address_keeps_filters_for_a_link(page: Page, opened: Open) -> None:
    page.get_by_role("combobox", name="Group by").select_option("owner")
    page.get_by_role("searchbox", name="Find").fill("v1.10")
    groups = page.locator("#table .group:visible").all_inner_texts()
    assert groups == ["@shop/a 0 of 1 in order", "@shop/b 1 of 2 in order"]
    assert names(page) == ["mail", "billing-9", "orders"]
    assert page.url.endswith("#text=v1.10&group=owner")
    url = page.url
    page.goto("about:blank")
    page.goto(url)
    assert page.locator("#table .group:visible").all_inner_texts() == groups
    page.locator("#owners").get_by_role("link", name="no owner").click()
    assert names(page) == ["gone"]
    page.locator(".releases").get_by_role("link", name="v1.9.0").click()
    assert names(page) == ["billing-10"]
    page.goto(f"{url.partition('#')[0]}#owner={'x' * 50}&state=<b>&%E0%A4%A=1")
    assert len(names(page)) == 6


def test_a_version_shows_its_services_and_no_version_that_begins_with_the_same_digits(
    opened: Open,
) -> None:
    versions = {"old": "v1.1.1", "new": "v1.1.10", "far": "v11.1.1"}
    page = opened(Content([standing(name, version, 1) for name, version in versions.items()], RULES))
    page.locator(".releases").get_by_role("link", name="v1.1.1", exact=True).click()
    assert names(page) == ["old"]
    assert page.url.endswith("#version=v1.1.1")
    page.get_by_role("combobox", name="Version").select_option("v1.1.10")
    assert names(page) == ["new"]
    page.get_by_role("button", name="Show all").click()
    for text, found in {"v1.1.1": ["old"], "1.1.1": ["old"], "v1.1": ["new", "old"], "v1.1.": ["new", "old"]}.items():
        page.get_by_role("searchbox", name="Find").fill(text)
        assert sorted(names(page)) == found
    page.get_by_role("searchbox", name="Find").fill("")
    page.get_by_role("combobox", name="Group by").select_option("version")
    assert page.locator("#table .group:visible").count() == 3


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


def test_the_heat_map_has_a_mark_for_each_service_in_breach_with_the_rules_of_drift_and_the_map(opened: Open) -> None:
    page = opened(with_example_map(example(40)))
    rows = page.locator("#heatmap tbody tr[data-state=breach]")
    assert rows.count() == 12
    assert [row.inner_text() for row in rows.all() if not row.locator(".urgent, .error").count()] == []
    page.get_by_role("link", name="fraud, map-event-unfit: not kept").click()
    expect(page.locator("details.service[open] li[data-id=map-event-unfit]")).to_be_focused()


def test_the_heat_map_is_one_stop_of_the_tab_key_and_the_arrows_go_on(page: Page) -> None:
    marks = page.locator("#heatmap td a")
    assert [marks.nth(number).get_attribute("tabindex") for number in range(3)] == ["0", "-1", "-1"]
    assert page.locator("#heatmap thead th").all_inner_texts() == [
        *("supply-no-secrets", "http-pages", "drift-edited", "http-paths")
    ]
    second_column = page.get_by_role("link", name="billing-9, http-pages")
    waived = page.get_by_role("link", name=f"{HOSTILE}, http-pages: waived")
    second_column.focus()
    second_column.press("ArrowUp")
    expect(waived).to_be_focused()
    expect(waived).to_have_attribute("tabindex", "0")
    waived.press("ArrowLeft")
    expect(waived).to_be_focused()
    waived.press("ArrowDown")
    expect(second_column).to_be_focused()
    second_column.press("ArrowDown")
    expect(second_column).to_be_focused()
    second_column.press("Enter")
    expect(page.locator("#s2-http-pages")).to_be_focused()


def test_a_link_from_elsewhere_opens_the_service(page: Page) -> None:
    page.goto(f"{page.url}#s4")
    expect(page.locator("#s4")).to_have_attribute("open", "")
    expect(page.locator("#s4")).to_contain_text("No findings")


def test_a_page_that_is_older_than_a_day_states_its_age(opened: Open) -> None:
    fresh = small()
    assert not opened(fresh).locator("#age").is_visible()
    old = replace(fresh, generated=fresh.generated - timedelta(days=3, hours=1))
    expect(opened(old).locator("#age")).to_have_text("This page is 3 days old")


def test_the_page_is_light_or_dark_by_the_setting_of_the_reader(page: Page) -> None:
    papers = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert papers == ["rgb(246, 247, 248)", "rgb(18, 22, 26)"]


@pytest.mark.parametrize("services", [12, 40, 200])
def test_an_example_fleet_fits_each_screen_and_has_no_fault_of_accessibility(opened: Open, services: int) -> None:
    shown = with_example_map(example(services)) if services == 12 else example(services)
    # axe takes many seconds on a large page, and 200 services have the same parts as 40.
    asked = {12: "light", 40: "dark"}.get(services)
    for width, scheme in ((3840, "light"), (390, "dark")):
        page = opened(shown, width, scheme)
        assert page.locator("#table tbody tr").count() == services
        page.evaluate("[...document.querySelectorAll('details')].slice(0, 12).forEach(one => { one.open = true })")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        if scheme == asked:
            page.evaluate(packed(AXE, "axe.min.js").read_text(encoding="utf-8"))
            faults = page.evaluate("axe.run(document)")["violations"]
            assert [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in faults] == []


def test_each_owner_has_a_page_and_the_page_of_an_owner_without_services_goes(opened: Open, tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    stale, kept = folder / "team-left-0123abcd.html", folder / "team.html"
    for file in (stale, kept):
        file.write_text("")
    write_pages(folder, small())
    written = sorted(file.name for file in folder.iterdir())
    assert len([name for name in written if name.startswith("team-")]) == 4
    assert (stale.exists(), kept.exists()) == (False, True)
    page = opened(folder / "index.html")
    page.locator("#owners").get_by_role("link", name="@shop/b").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("@shop/b")
    assert names(page) == ["billing-9", "orders"]
    expect(page.locator(".hero")).to_have_text("1 of 2 services is in order")
    assert page.locator("figure").count() == 5
    assert page.get_by_role("link", name="mail").count() == 0
    page.get_by_role("link", name="Whole fleet").click()
    assert len(names(page)) == 6
    page.locator("#owners").get_by_role("link", name=HOSTILE).first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)


def test_a_graph_is_a_section_of_its_own_in_a_fleet_that_has_a_graph(page: Page) -> None:
    assert page.locator("#map svg circle").count() == 1
    assert page.get_by_role("link", name="Map").count() == 1
    assert 'id="map"' not in html(small(graph=""))


def test_a_fleet_and_a_list_of_conventions_may_be_empty() -> None:
    assert "No service fails a rule." in html(Content([], []))
    assert "no service has a finding" in html(Content([FLEET[3]], RULES))


def test_the_parts_of_the_page_are_in_the_wheel(tmp_path: Path) -> None:
    done = subprocess.run(
        ["uv", "build", "--quiet", "--wheel", "--out-dir", tmp_path, ROOT], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        parts = {f"fleet/page/{file.name}" for file in (ROOT / "fleet/page").iterdir() if file.is_file()}
        assert "fleet/page/page.html.jinja" in parts
        assert parts <= set(wheel.namelist())
