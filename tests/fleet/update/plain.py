"""An update by Copier itself, as a team without `fleet` makes it."""

from pathlib import Path

from tests.support.commands import run_copier
from tests.support.quick_copier import run_quick_copier


def plain_update(service: Path, to: str | None = None, *, with_shortcuts: bool = True, **data: str) -> None:
    """Update by Copier: by the real command, or by Copier with shortcuts, which takes half of the time."""
    run = run_quick_copier if with_shortcuts else run_copier
    run("update", "--skip-answered", *(("--vcs-ref", to) if to else ()), service, **data)
