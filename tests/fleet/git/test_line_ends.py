"""Git that converts line ends, as core.autocrlf does on Windows laptops: `fleet` reads and writes the same bytes."""

from pathlib import Path

import pytest

from fleet.check.drift import check_drift
from fleet.service.service import Service
from fleet.template.template import Template
from fleet.update.update import Options, update
from tests.fleet.services import Born, commit
from tests.support.commands import git

pytestmark = pytest.mark.slow

SETTINGS = {
    "core.autocrlf": "[core]\n\tautocrlf = true\n",
    "core.eol": "[core]\n\tattributesFile = {folder}/attributes\n\teol = crlf\n",
}


@pytest.fixture(params=SETTINGS)
def converting(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "attributes").write_text("* text=auto\n")
    (tmp_path / "gitconfig").write_text(SETTINGS[request.param].format(folder=tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.usefixtures("converting")
def test_a_checkout_with_other_line_ends_has_no_drift_and_is_updated(born: Born, history: Path, tmp_path: Path) -> None:
    origin, service = born(), tmp_path / "service"
    (origin / ".gitattributes").unlink()  # as in a service that is older than this file of the template
    commit(origin)
    git(tmp_path, "clone", "--quiet", str(origin), str(service))
    assert b"\r\n" in (service / "Makefile").read_bytes()

    assert [finding for finding in check_drift(Service(service)) if finding.path != ".gitattributes"] == []
    assert update(service, Options({}, finish=False)).healed == []
    assert b"\r" not in (Template(str(history)).newest().folder / "template/ruff.toml").read_bytes()
    assert git(service, "status", "--porcelain") == ""
    assert "i/crlf" not in git(service, "ls-files", "--eol")


@pytest.mark.usefixtures("converting")
def test_a_newborn_keeps_its_line_ends(born: Born, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(born()), str(tmp_path / "service"))
    assert "w/crlf" not in git(tmp_path / "service", "ls-files", "--eol")
