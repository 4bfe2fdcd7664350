"""`make conventions` and `make update` run the `fleet` of the right version, from the recorded repository."""

import os
from pathlib import Path

import pytest

from fleet.service.service import Service
from tests.fleet.services import commit
from tests.support.commands import git, make
from tests.support.services import Render

pytestmark = pytest.mark.xdist_group("conventions")


@pytest.mark.slow
def test_a_newborn_service_keeps_the_conventions_and_a_violation_is_reported(service: Path) -> None:
    assert "billing, template v1.0.0" in make(service, "conventions").stdout

    (service / "ruff.toml").write_text("line-length = 80\n")
    table = make(service, "conventions", check=False)
    assert table.returncode == 2
    assert "drift-edited" in table.stdout
    annotations = make(service, "conventions", "FORMAT=github", check=False).stdout.splitlines()
    assert any(line.startswith("::error file=ruff.toml,title=drift-edited::") for line in annotations)


@pytest.mark.slow
def test_conventions_compare_with_the_base_that_was_named(service: Path) -> None:
    migration = service / "src/billing/migrations/versions/0001_create_invoices.py"
    migration.write_text(migration.read_text() + "\n# Edited since.\n")
    commit(service)
    assert "migration-unedited" in make(service, "conventions", check=False).stdout
    assert make(service, "conventions", "BASE=HEAD").returncode == 0
    assert "has no commit nowhere" in make(service, "conventions", "BASE=nowhere", check=False).stderr
    # A base that is not named may be missing, as in a repository without a remote.
    git(service, "remote", "remove", "origin")
    done = make(service, "conventions")
    assert done.returncode == 0
    assert "no remote, so the rules for changes compare nothing" in done.stderr


@pytest.mark.slow
def test_an_update_is_made_by_the_newest_version(service: Path) -> None:
    said = make(service, "update", "ARGS=--no-finish").stdout
    assert "billing, template from v1.0.0 to v1.3.0" in said
    assert Service(service).answers.version == "v1.3.0"
    assert git(service, "status", "--porcelain") == ""


@pytest.mark.slow
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
    render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, version: str, used: str
) -> None:
    (tmp_path / "Makefile").write_text((render() / "Makefile").read_text())
    (tmp_path / ".copier-answers.yml").write_text(f"_commit: {version}\n_src_path: {source}\n")
    (tmp_path / "uv").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert f"--from\ngit+{used}\nfleet\ncheck\n" in make(tmp_path, "conventions").stdout


def test_a_service_without_a_version_of_the_template_is_told_so(render: Render) -> None:
    refused = make(render(), "conventions", check=False)
    assert refused.returncode == 2
    assert "records no _commit" in refused.stdout
