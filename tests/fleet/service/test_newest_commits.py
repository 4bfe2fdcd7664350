"""The newest commits of many services are found at once, and a service without a commit stops no other."""

from pathlib import Path

import pytest

from fleet.service import mirror
from fleet.service.fleet_toml import Member
from fleet.service.mirror import newest_commits
from tests.support.commands import git


def member(folder: Path) -> Member:
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "Start")
    return Member(folder.name, str(folder), is_local=True)


def test_a_commit_is_found_in_a_file_of_git_and_in_packed_refs(tmp_path: Path) -> None:
    loose, packed = (member(tmp_path / name) for name in ("loose", "packed"))
    git(tmp_path / "packed", "pack-refs", "--all")
    commits, errors = newest_commits([loose, packed])
    assert {one.name: commit.id for one, commit in commits.items()} == {
        name: git(tmp_path / name, "rev-parse", "HEAD").strip() for name in ("loose", "packed")
    }
    assert errors == {}


def test_a_folder_that_nobody_may_read_is_an_error_of_its_service_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readable, secret = (member(tmp_path / name) for name in ("readable", "secret"))
    find = mirror.loose_head

    def refuse(path: Path, branch: str = "") -> str:
        if path.name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return find(path, branch)

    monkeypatch.setattr(mirror, "loose_head", refuse)
    commits, errors = newest_commits([readable, secret])
    assert [*commits] == [readable]
    assert "permission denied" in str(errors[secret]).lower()
