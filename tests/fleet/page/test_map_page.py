"""The map as a page, with fleets of 12, 40 and 200 services, in a real browser."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from fleet.map import show
from fleet.map.findings import findings
from fleet.page import Content
from fleet.page import page as html
from fleet.page.map_page import map_page
from tests.fleet.map.fleets import fleet
from tests.support.browser import browser
from tests.support.needs import AXE
from tests.support.npm import packed

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

SIZES = (12, 40, 200)
WIDTHS = {390: 844, 1400: 900, 3840: 2160}
"""The widths of a telephone, a laptop and a large screen, with their heights."""

OVERLAPS = """
() => {
  const visible = (one) => {
    const box = one.getBoundingClientRect();
    const around = one.closest(".map-view, .map-side")?.getBoundingClientRect() ?? box;
    return { left: Math.max(box.left, around.left), right: Math.min(box.right, around.right),
             top: Math.max(box.top, around.top), bottom: Math.min(box.bottom, around.bottom) };
  };
  const all = ".map-view text, .map-tools > :not(.map-buttons), .map-buttons > *, .map-side :is(p, h3, summary, dt, dd), .map-legend li";
  const texts = [...document.querySelectorAll(all)]
    .map((one) => [one.textContent, visible(one), one.closest(".map-view") !== null, one.checkVisibility()])
    .filter(([text, box, , isShown]) => isShown && text.trim() && box.right - box.left > 0.5 && box.bottom - box.top > 0.5);
  const found = [];
  texts.forEach(([text, one], number) => {
    for (const [other, two] of texts.slice(number + 1)) {
      const across = Math.min(one.right, two.right) - Math.max(one.left, two.left);
      const down = Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top);
      if (across > 0.5 && down > 0.5) found.push(`${text} / ${other}`);
    }
  });
  return { found, number: texts.filter(([, , isDrawn]) => isDrawn).length };
}
"""
"""Find texts that overlap, and count the texts that the drawing shows."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The page of the fleet with the map of a fleet of each size."""
    folder = tmp_path_factory.mktemp("maps")
    for size in SIZES:
        map_ = fleet(size)
        section = show.html(map_, findings(map_), dict.fromkeys(map_.services, "#details"))
        (folder / f"{size}.html").write_text(html(Content([], [], section)), encoding="utf-8")
    return {size: folder / f"{size}.html" for size in SIZES}


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page of a laptop's size. After each test, it has neither an error nor a request other than for files."""
    opened = chromium.new_page(viewport={"width": 1400, "height": 900})
    opened.set_default_timeout(60_000)
    trouble: list[str] = []
    opened.on("console", lambda message: trouble.append(f"console: {message.text}"))
    opened.on("pageerror", lambda error: trouble.append(f"error: {error}"))
    opened.on("request", lambda request: None if request.url.startswith("file:") else trouble.append(request.url))
    yield opened
    opened.close()
    assert trouble == []


@pytest.mark.parametrize("size", SIZES)
def test_no_text_is_over_another_in_any_width_at_any_zoom_or_without_script(
    chromium: Browser, page: Page, pages: dict[int, Path], size: int
) -> None:
    for width, height in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": height})
        page.goto(pages[size].as_uri())
        for _ in range(3):
            result = page.evaluate(OVERLAPS)
            assert result["found"] == []
            assert result["number"] > 2
            page.get_by_role("button", name="Zoom in").click()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    plain = chromium.new_page(java_script_enabled=False)
    plain.goto(pages[size].as_uri())
    assert plain.locator(".map-view .service").count() == size
    plain.close()


@pytest.mark.parametrize("size", SIZES)
def test_the_first_view_of_a_laptop_shows_the_whole_map_with_legible_names(
    page: Page, pages: dict[int, Path], size: int
) -> None:
    page.goto(pages[size].as_uri())
    legible = page.evaluate(
        """() => {
            const box = document.querySelector('.map-view').getBoundingClientRect();
            const texts = [...document.querySelectorAll('.map-view .card text, .map-view .badge text')]
                .map(one => [one, one.getBoundingClientRect()]).filter(([, one]) => one.width);
            const drawing = document.querySelector('.map-view svg');
            const scale = box.width / drawing.viewBox.baseVal.width;
            return texts.every(([text, one]) => one.left >= box.left && one.right <= box.right && one.top >= box.top
                && one.bottom <= box.bottom && one.height > 9);
        }"""
    )
    assert legible


def test_the_first_view_of_a_telephone_has_legible_names_in_a_small_fleet(page: Page, pages: dict[int, Path]) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(pages[12].as_uri())
    heights = page.locator(".map-view .service text").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().height)"
    )
    assert min(heights) > 12


def test_a_click_on_a_service_shows_its_neighbours_and_escape_shows_all_again(
    page: Page, pages: dict[int, Path]
) -> None:
    page.goto(pages[200].as_uri())
    map_ = fleet(200)
    name = findings(map_)[0].services[0]
    neighbours = {
        end for edge in map_.edges if name in (edge.source, edge.target) for end in (edge.source, edge.target)
    }
    page.get_by_role("button", name="Zoom in").click()
    service = page.locator(f".map-view .service[data-name='{name}']")
    service.click()
    assert page.url.endswith(f"#map/{name}")
    near = page.locator(".map-view .service.near")
    assert set(near.evaluate_all("all => all.map(one => one.dataset.name)")) == neighbours
    far = page.locator(".map-view .service:not(.near)").first
    expect(far).to_have_css("opacity", "0.1")
    fills = "one => [...one.querySelectorAll('rect, text')].map(part => getComputedStyle(part).fill)"
    assert service.evaluate(fills) == ["rgb(47, 111, 181)", "rgb(251, 251, 250)"]
    chosen = page.locator(".map-chosen")
    expect(chosen.get_by_role("heading")).to_have_text(name)
    for other in neighbours - {name}:
        assert chosen.get_by_role("link", name=other, exact=True).count()
    assert "✕ error" in chosen.inner_text()
    assert page.evaluate(OVERLAPS)["found"] == []
    # A link in the list opens the other service, and the browser's Back button returns.
    other = sorted(neighbours - {name})[0]
    chosen.get_by_role("link", name=other, exact=True).first.click()
    expect(chosen.get_by_role("heading")).to_have_text(other)
    page.go_back()
    expect(chosen.get_by_role("heading")).to_have_text(name)
    service.focus()
    service.press("Escape")
    expect(chosen).to_be_hidden()
    assert page.locator(".map-view svg.chosen").count() == 0
    # The drawing has no background, whose edge would show in the middle of a view that has moved.
    expect(page.locator(".map-view .paper")).to_have_css("fill", "none")
    page.goto(f"{pages[200].as_uri()}#map/{other}")
    expect(chosen.get_by_role("heading")).to_have_text(other)


def test_each_error_has_a_number_at_its_arrow_and_in_the_list_which_names_both_services(
    page: Page, pages: dict[int, Path]
) -> None:
    map_ = fleet(40)
    found = findings(map_)
    page.goto(pages[40].as_uri())
    for number, one in enumerate(found, 1):
        row = page.locator(f".map-findings li[data-number='{number}']")
        breaking, broken = one.services
        assert row.locator(".who").inner_text() == f"{breaking} breaks {broken}"
        badge = page.locator(".map-view .badge", has_text=re.compile(rf"\b{number}\b"))
        assert (badge.get_attribute("data-from"), badge.get_attribute("data-to")) == (breaking, broken)
        row.hover()
        assert set(page.locator(".service.near").evaluate_all("all => all.map(one => one.dataset.name)")) == {
            breaking,
            broken,
        }
        assert page.locator(".map-view .arrow.near").count() == 1


def test_the_search_finds_services_messages_and_domains(page: Page, pages: dict[int, Path]) -> None:
    page.goto(pages[200].as_uri())
    box = page.get_by_role("searchbox", name="Find", exact=False).last
    box.fill("LEDG")
    hits = page.locator(".map-view .service.hit")
    assert "ledger" in hits.evaluate_all("all => all.map(one => one.dataset.name)")
    expect(page.locator(".map-tools output")).to_have_text(re.compile(r"^\d+ of 200 found$"))
    assert page.locator(".map-services li:visible").count() == hits.count()
    box.fill("finance")
    assert hits.count() == 12
    box.fill("ledger")
    box.press("Enter")
    expect(page.locator(".map-chosen").get_by_role("heading")).to_have_text("ledger")
    box.fill("nothing of the kind")
    expect(page.locator(".map-tools output")).to_have_text("0 of 200 found")
    box.fill("")
    assert page.locator(".map-services li:visible").count() == 200


def test_the_drawing_is_one_stop_of_the_tab_key_and_the_arrow_keys_go_from_service_to_service(
    page: Page, pages: dict[int, Path]
) -> None:
    page.goto(pages[40].as_uri())
    assert page.locator(".map-view [tabindex='0']").count() == 1
    first = page.locator(".map-view .service[tabindex='0']")
    first.focus()
    names = [first.get_attribute("data-name")]
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowUp", "ArrowLeft"):
        page.keyboard.press(key)
        names.append(page.evaluate("document.activeElement.dataset.name"))
    assert len(set(names)) >= 4
    assert all(names)
    page.keyboard.press("Enter")
    expect(page.locator(".map-chosen").get_by_role("heading")).to_have_text(names[-1] or "")
    width = "document.querySelector('.map-view svg').viewBox.baseVal.width"
    page.keyboard.press("0")
    before = page.evaluate(width)
    page.keyboard.press("+")
    assert page.evaluate(width) < before
    page.keyboard.press("-")
    assert page.evaluate(width) == pytest.approx(before)


def test_the_map_moves_under_the_pointer_and_zooms_by_the_wheel_with_control_alone(
    page: Page, pages: dict[int, Path]
) -> None:
    page.goto(pages[200].as_uri())
    view = page.locator(".map-view")
    view.scroll_into_view_if_needed()
    shown = "[...Object.values(document.querySelector('.map-view svg').getAttribute('viewBox').split(' ').map(Number))]"
    box = view.bounding_box() or {}
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    whole = page.evaluate(shown)
    page.mouse.wheel(0, -50)
    assert page.evaluate(shown) == whole
    page.keyboard.down("Control")
    page.mouse.wheel(0, -400)
    page.keyboard.up("Control")
    page.wait_for_function(f"{shown}[2] < {whole[2] - 100}")
    close = page.evaluate(shown)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 - 120, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    moved = page.evaluate(shown)
    assert moved[0] > close[0]
    assert "#map/" not in page.url
    page.get_by_role("button", name="Whole map").click()
    assert page.evaluate(shown) == whole


@pytest.mark.parametrize("size", SIZES)
def test_the_map_is_on_one_sheet_of_paper_with_all_errors_below(page: Page, pages: dict[int, Path], size: int) -> None:
    page.goto(pages[size].as_uri())
    page.evaluate("window.print = () => { document.title = 'printed'; }")
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Print").click()
    assert page.title() == "printed"
    sheets = page.pdf(prefer_css_page_size=True, print_background=True)
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", sheets)) == 1
    assert re.search(rb"/MediaBox\s*\[0 0 84[12]\S* 59[45]", sheets)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    result = page.evaluate(OVERLAPS)
    assert result["found"] == []
    assert result["number"] >= size
    assert page.locator(".map-findings.error .who:visible").count() == len(findings(fleet(size)))


def test_axe_finds_nothing_in_light_and_dark_and_with_a_chosen_service(page: Page, pages: dict[int, Path]) -> None:
    axe = packed(AXE, "axe.min.js").read_text(encoding="utf-8")
    for scheme, hash_ in (("light", ""), ("dark", ""), ("light", "#map/ledger"), ("dark", "#map/ledger")):
        page.emulate_media(color_scheme=scheme)
        page.goto("about:blank")
        page.goto(pages[40].as_uri() + hash_)
        page.evaluate(axe)
        found = page.evaluate("axe.run('#map').then(result => result.violations)")
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


def test_the_map_is_a_page_of_its_own_for_fleet_map(page: Page, tmp_path: Path) -> None:
    map_ = fleet(12)
    file = tmp_path / "map.html"
    file.write_text(map_page(show.html(map_, findings(map_))), encoding="utf-8")
    page.goto(file.as_uri())
    assert page.locator(".map-view .service").count() == 12
    page.locator(".map-view .service").first.click()
    expect(page.locator(".map-chosen")).to_be_visible()
    assert page.locator(".map-chosen").get_by_role("link", name="Details").count() == 0
