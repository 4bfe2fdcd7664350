"""The step of an update that runs the service's own `make specs`."""

from pathlib import Path

from fleet.update.generated import finish
from tests.fleet.services import commit
from tests.support.commands import git


def test_output_of_make_that_is_not_utf_8_is_shown(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "uv.lock").touch()
    (tmp_path / "Makefile").write_text("specs:\n\t@printf 'no caf\\351\\n'; exit 1\n")
    commit(tmp_path)
    assert "no caf\N{REPLACEMENT CHARACTER}" in finish(tmp_path)
