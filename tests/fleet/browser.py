"""A real headless browser: Chromium, as the system has it or Debian packages it."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

TOOLS = Path(__file__).parents[2] / "build" / "tools"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
APPLICATIONS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
INSTALL_TIMEOUT_SECONDS = 540

# It would otherwise ask its maker's hosts for this and that, at each start.
QUIET = (
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
    *("--disable-gpu", "--no-first-run"),
)


@contextmanager
def browser() -> Generator[Browser]:
    """Skips the test, with the reason, where there is none and none can be installed."""
    program = _chromium()
    # As root its sandbox does not start.
    arguments = [*QUIET, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            yield chromium
        finally:
            chromium.close()


def _chromium() -> str:
    TOOLS.mkdir(parents=True, exist_ok=True)
    with (TOOLS / "chromium.lock").open("w") as lock:  # another test process may be installing the same
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (found := _found()):
            if shutil.which("apt-get") is None or os.geteuid() != 0:
                pytest.skip(
                    "there is no Chromium, and only root on Debian can install it here: apt-get install chromium"
                )
            if not _apt("install", "--yes", "--no-install-recommends", "chromium"):  # never, or long ago, updated
                _apt("update")
                _apt("install", "--yes", "--no-install-recommends", "chromium")
            found = _found()
    return found or pytest.skip("Chromium could not be installed by apt-get")


def _found() -> str | None:
    return next(filter(None, map(shutil.which, (*NAMES, *APPLICATIONS))), None)


def _apt(*arguments: str) -> bool:
    done = subprocess.run(
        ["apt-get", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=INSTALL_TIMEOUT_SECONDS,
    )
    return done.returncode == 0
