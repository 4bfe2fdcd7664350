"""A fleet with one convention, whose commands run in this process."""

from pathlib import Path

import pytest

from tests.fleet.policy.announced import CostCentre


@pytest.fixture
def one_convention(
    in_this_process: None, rendered_once: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Replace the conventions, which have their own tests."""
    for module in ("check.checks", "check.levels", "status.status"):
        monkeypatch.setattr(f"fleet.{module}.conventions", lambda: (CostCentre(),))
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
