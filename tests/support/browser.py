"""A real headless browser: Chromium, from Debian's package or from this machine.

Debian has Chromium without a window as a package of its own, which takes 40 % of the processor time of the whole Chromium.
"""

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.support.tools import install_from_debian, one_at_a_time

WITHOUT_A_WINDOW = "chromium-headless-shell"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
APPLICATIONS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)

# Without these options Chromium would call hosts of its maker at each start.
QUIET = (
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
    *("--disable-gpu", "--no-first-run"),
)


@contextmanager
def browser() -> Generator[Browser]:
    """Start the browser. Skips the test, with the reason, if no browser can be installed."""
    program = chromium()
    expect.set_options(timeout=60_000)  # a condition of a page becomes true later on a busy machine
    # Chromium's sandbox does not start as root.
    arguments = [*QUIET, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            yield launched
        finally:
            launched.close()


def chromium() -> str:
    with one_at_a_time("chromium"):
        if not shutil.which(WITHOUT_A_WINDOW) and shutil.which("apt-get") and os.geteuid() == 0:
            with suppress(RuntimeError):
                install_from_debian(WITHOUT_A_WINDOW)
    found = next(filter(None, map(shutil.which, (WITHOUT_A_WINDOW, *NAMES, *APPLICATIONS))), None)
    return found or pytest.skip(
        f"there is no Chromium, and only root on Debian can install it here: apt-get install {WITHOUT_A_WINDOW}"
    )
