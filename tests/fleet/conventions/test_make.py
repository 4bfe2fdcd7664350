"""`make conventions` and `make update` run the `fleet` of the right version, from the recorded repository."""

import os
import re
from pathlib import Path

import pytest

from fleet.service.service import Service
from tests.fleet.services import commit
from tests.support.commands import git, make
from tests.support.services import Render

pytestmark = pytest.mark.xdist_group("conventions")


@pytest.mark.slow
def test_a_violation_is_reported_until_the_base_that_is_named_has_the_change(service: Path) -> None:
    migration = service / "src/billing/migrations/versions/0001_create_invoices.py"
    migration.write_text(migration.read_text() + "\n# Edited since.\n")
    commit(service)
    (service / "ruff.toml").write_text("line-length = 80\n")
    done = make(service, "conventions", "FORMAT=github", check=False)
    assert done.returncode == 2
    for file, convention in ((migration.relative_to(service), "migration-unedited"), ("ruff.toml", "drift-edited")):
        assert re.search(f"^::error file={file},.*title={convention}::", done.stdout, re.MULTILINE)
    git(service, "restore", "ruff.toml")
    assert "billing, template v1.0.0" in make(service, "conventions", "BASE=HEAD").stdout


@pytest.fixture
def printing_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a stand-in for uv on PATH. The stand-in prints its arguments, one on each line."""
    program = tmp_path / "bin/uv"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)


@pytest.mark.slow
@pytest.mark.usefixtures("printing_uv")
def test_conventions_compare_with_the_base_that_was_named(service: Path) -> None:
    def told(*arguments: str) -> str:
        return " ".join(make(service, "conventions", *arguments).stdout.split()).partition(" fleet check ")[2]

    assert told() == "--format table --base origin/main"
    assert told("BASE=HEAD", "FORMAT=github") == "--format github --base HEAD"
    # A base that is not named may be missing, as in a repository without a remote.
    git(service, "remote", "remove", "origin")
    assert told() == "--format table"
    assert "no remote, so the rules for changes compare nothing" in make(service, "conventions").stderr
    assert told("BASE=nowhere") == "--format table --base nowhere"


@pytest.mark.slow
def test_an_update_is_made_by_the_newest_version(service: Path) -> None:
    said = make(service, "update", "ARGS=--no-finish").stdout
    assert "billing, template from v1.0.0 to v1.3.0" in said
    assert Service(service).answers.version == "v1.3.0"
    assert git(service, "status", "--porcelain") == ""


@pytest.mark.slow
@pytest.mark.usefixtures("printing_uv")
@pytest.mark.parametrize(
    ("source", "version", "used"),
    [
        ("gh:acme/slipway", "v1.2.0", "https://github.com/acme/slipway@v1.2.0"),
        ("gl:acme/slipway.git", "'1.10'", "https://gitlab.com/acme/slipway.git@1.10"),
        ("https://git.example.com/slipway.git", "v1.2.0-3-gabcdef0", "https://git.example.com/slipway.git@abcdef0"),
        ("git+https://git.example.com/slipway", "abcdef0", "https://git.example.com/slipway@abcdef0"),
        ("git@git.example.com:acme/slipway.git", "v1", "ssh://git@git.example.com/acme/slipway.git@v1"),
        ("ssh://git@git.example.com:2222/slipway.git", "v1", "ssh://git@git.example.com:2222/slipway.git@v1"),
        ("'/srv/our templates/slipway'", "v1", "file:///srv/our templates/slipway@v1"),
    ],
)
def test_uv_can_use_every_address_that_copier_records(
    render: Render, tmp_path: Path, source: str, version: str, used: str
) -> None:
    (tmp_path / "Makefile").write_text((render() / "Makefile").read_text())
    (tmp_path / ".copier-answers.yml").write_text(f"_commit: {version}\n_src_path: {source}\n")
    assert f"--from\ngit+{used}\nfleet\ncheck\n" in make(tmp_path, "conventions").stdout


def test_a_service_without_a_version_of_the_template_is_told_so(render: Render) -> None:
    refused = make(render(), "conventions", check=False)
    assert refused.returncode == 2
    assert "records no _commit" in refused.stdout
