"""One browser session for all tests of the page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from fleet.page import Content
from fleet.page import page as html
from tests.fleet.page.fleets import Open
from tests.support.browser import browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as launched:
        yield launched


@pytest.fixture
def opened(chromium: Browser, tmp_path: Path) -> Iterator[Open]:
    """`opened(content, width, scheme)`: the page in a window. After the test it has neither an error nor a network request."""
    trouble: list[str] = []
    contexts = []

    def open_page(content: Content | Path, width: int = 1400, scheme: str = "light", hash_: str = "") -> Page:
        file = content if isinstance(content, Path) else tmp_path / "fleet.html"
        if isinstance(content, Content):
            file.write_text(html(content), encoding="utf-8")
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # ty: ignore[invalid-argument-type]
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: trouble.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        page.on("request", lambda request: trouble.extend([request.url] if request.url.startswith("http") else []))
        page.goto(f"{file.as_uri()}{hash_}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert trouble == []
