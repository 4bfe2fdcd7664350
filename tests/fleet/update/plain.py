"""An update by Copier itself, as a team without `fleet` makes it."""

from pathlib import Path

from tests.support.commands import run_copier


def plain_update(service: Path, to: str | None = None, **data: str) -> None:
    run_copier("update", "--skip-answered", *(("--vcs-ref", to) if to else ()), service, **data)
