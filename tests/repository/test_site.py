"""The documentation site, built strictly, and opened in a real browser at the width of a desktop and of a telephone."""

import ast
import functools
import http.server
import re
import threading
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import chassis
import pytest
from playwright.sync_api import Page, expect

from docs import site
from tests.support.browser import browser
from tests.support.services import Render

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

TELEPHONE = {"width": 390, "height": 844}
LIMIT_MILLISECONDS = 60_000


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def built() -> Path:
    """The site, which `make lint` has built before, if its sources are the same."""
    assert site.main() == 0
    return site.FOLDER / "site"


@pytest.fixture(scope="module")
def address(built: Path) -> Iterator[str]:
    handler = functools.partial(Silent, directory=str(built))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def opened(address: str) -> Iterator[tuple[Page, list[str]]]:
    """Open a page, and collect its requests to other hosts and its errors."""
    trouble: list[str] = []
    with browser() as chromium:
        page = chromium.new_page()
        page.set_default_timeout(LIMIT_MILLISECONDS)
        page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((address, "blob:", "data:")) else trouble.append(request.url)
            ),
        )
        yield page, trouble


@pytest.fixture
def page(opened: tuple[Page, list[str]]) -> Iterator[Page]:
    page, trouble = opened
    page.set_viewport_size({"width": 1280, "height": 720})
    yield page
    assert trouble == []


def places(built: Path) -> list[str]:
    return sorted(file.parent.relative_to(built).as_posix() for file in built.rglob("index.html"))


def test_the_front_page_leads_to_each_kind_of_reader(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.locator("h1")).to_have_text(re.compile("slipway"))
    tabs = " ".join(page.locator(".md-tabs__link").all_inner_texts())
    for kind in ("Build a service", "Operate a service", "Run a platform", "Explanation", "Reference", "Decisions"):
        assert kind in tabs


def test_the_search_finds_a_page(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_role("button", name="Search").first.click()
    page.keyboard.type("Handle parked messages")
    expect(page.get_by_role("option", name=re.compile("Handle parked messages")).first).to_be_visible(
        timeout=LIMIT_MILLISECONDS
    )


def test_no_page_is_wider_than_a_telephone(page: Page, address: str, built: Path) -> None:
    page.set_viewport_size(TELEPHONE)
    wide = {}
    for place in places(built):
        if place.startswith("decisions/00") and not place.startswith("decisions/0001"):
            continue  # all decision records have the same form, so the first is enough
        page.goto(f"{address}/{place}/", wait_until="domcontentloaded")
        if (width := width_of(page)) > TELEPHONE["width"]:
            wide[place] = width
    assert wide == {}
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p style=\"width: 900px\">wide</p>')")
    assert width_of(page) > TELEPHONE["width"]  # the check above can fail


def width_of(page: Page) -> int:
    return page.evaluate("document.documentElement.scrollWidth")


def test_every_page_of_the_manual_is_in_the_navigation_once() -> None:
    listed = list(chain.from_iterable([each] if isinstance(each, str) else each for each in site.navigation().values()))
    assert sorted(listed) == sorted(place for place in site.pages().values() if place.endswith(".md"))


def test_the_page_of_the_chassis_lists_each_public_module_with_its_content() -> None:
    docstring = ast.get_docstring(ast.parse(site.file_of("__init__").read_text())) or ""
    rows = {
        f"| [`chassis.{name}`](../../{site.file_of(name).relative_to(site.ROOT)}) | {content} |"
        for name, content in re.findall(r"^(\w+)  +(\S.*)$", docstring, re.MULTILINE)
    }
    lines = (site.ROOT / "docs/reference/chassis.md").read_text().splitlines()
    assert rows == {line for line in lines if line.startswith("| [")}, "write these rows into docs/reference/chassis.md"


def test_the_reference_has_every_name_that_a_newborn_service_imports_from_the_chassis(
    built: Path, render: Render
) -> None:
    reference = (built / "reference/chassis/index.html").read_text()
    assert sorted(site.public_modules()) == sorted(chassis.__all__)
    service = render()
    missing = set()
    for file in chain((service / "src").rglob("*.py"), (service / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("chassis."):
                names = {f"{node.module}.{name.name}" for name in node.names}
                missing |= {name for name in names if f'id="{name}"' not in reference}
    assert missing == set()


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "zensical.toml").write_text(site.settings({"Home": "index.md"}))
    page = tmp_path / "pages/index.md"
    page.parent.mkdir()
    page.write_text("# Home\n\n[here](#home)\n")
    assert site.built(tmp_path) == ""
    page.write_text("# Home\n\n[nowhere](missing.md)\n")
    assert "page does not exist" in site.built(tmp_path)


def test_the_site_is_built_again_after_a_change_or_a_fault_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page, faults = tmp_path / "page.md", ["a fault", "", ""]
    page.touch()
    monkeypatch.setattr(site, "FOLDER", tmp_path)
    monkeypatch.setattr(site, "pages", lambda: {page: "page.md"})
    monkeypatch.setattr(site, "build", lambda _: faults.pop(0))
    assert (site.main(), faults) == (1, ["", ""])
    assert (site.main(), faults) == (0, [""])
    assert (site.main(), faults) == (0, [""])
    page.write_text("A change")
    assert (site.main(), faults) == (0, [])
