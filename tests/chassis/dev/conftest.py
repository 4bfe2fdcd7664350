"""A page in a real browser, for the tests of the viewer."""

from collections.abc import Generator

import pytest
from playwright.sync_api import Browser, Page

from tests.support.browser import browser


@pytest.fixture(scope="module")
def chromium() -> Generator[Browser]:
    with browser() as launched:
        yield launched


@pytest.fixture
def page(chromium: Browser) -> Generator[Page]:
    context = chromium.new_context(
        viewport={"width": 1280, "height": 800}, permissions=["clipboard-read", "clipboard-write"]
    )
    opened = context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
    yield opened
    context.close()
    assert problems == []
