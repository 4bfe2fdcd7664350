"""A generated service as a process of its own, on a Postgres of its own."""

import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from chassis.dev import embedded

from tests.support.commands import service_environment

START_SECONDS = 120


@contextmanager
def running(service: Path, folder: Path, **settings: str) -> Generator[str]:
    """Serve a service from its own environment, on an empty and migrated Postgres. Yields its base URL."""
    package = next(service.glob("src/*/main.py")).parent.name
    python = [str(service / ".venv/bin/python"), "-m", package]
    port = embedded.free_port()
    with embedded.temporary_postgres() as url, (folder / "service.log").open("w") as log:
        options: dict[str, Any] = {"cwd": service, "stdout": log, "stderr": log}
        settings = {"SERVE_DOCS": "true", **settings}
        options["env"] = service_environment(DATABASE_URL=url, HTTP_PORT=str(port), DRAIN_SECONDS="0", **settings)
        subprocess.run([*python, "migrate"], check=True, **options)
        process = embedded.spawn([*python, "serve"], stop_signal=signal.SIGTERM, **options)
        try:
            base = f"http://127.0.0.1:{port}"
            until_ready(base, process, folder)
            yield base
        finally:
            process.stop()


def until_ready(base: str, process: embedded.Process, folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{base}/readyz", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            if process.child.poll() is not None or time.monotonic() > deadline:
                pytest.fail((folder / "service.log").read_text())
            time.sleep(0.05)
