"""A fleet with one convention, whose commands run in this process."""

from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.policy.announced import CostCentre


@pytest.fixture
def one_convention(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Replace the conventions, which have their own tests, and judge in this process, which saves the start of another."""
    for module in ("check.checks", "check.levels", "status.status"):
        monkeypatch.setattr(f"fleet.{module}.conventions", lambda: (CostCentre(),))

    def here(work: Callable[[Any], Any], items: Iterable[Any], *, jobs: int) -> Generator[tuple[Any, Any]]:
        for one in items:
            yield one, work(one)

    for module in ("check.check", "status.status", "map.reader"):
        monkeypatch.setattr(f"fleet.{module}.in_processes", here)
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
