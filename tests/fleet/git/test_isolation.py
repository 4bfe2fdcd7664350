"""The stand-in repository for Git: several processes and threads make the same stand-in, and use it at once."""

import os
from pathlib import Path

import pytest

from fleet.cache import cache
from fleet.git import isolation
from fleet.git.repository import Repository, find_repository, loose_head
from tests.support.commands import git


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    git(tmp_path, "init", "--quiet", "service")
    found = find_repository(tmp_path / "service")
    assert found is not None
    return found


def stand_in(repository: Repository) -> Path:
    return Path(isolation.variables(repository, with_files=False)["GIT_COMMON_DIR"])


def test_a_stand_in_that_another_process_uses_stays_in_its_place(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    listdir, used = os.listdir, []

    def listed(folder: Path) -> list[str]:
        """List the folder as a process sees it just before another process has made the stand-in."""
        if not used and folder.parent == cache() / "repositories":
            used.append(None)  # the calls in the next line are the other process, and see the real folder
            used.append(stand_in(repository).stat().st_ino)
            raise FileNotFoundError(folder)
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", listed)
    assert stand_in(repository).stat().st_ino == used[1]


def test_a_stand_in_that_has_lost_a_part_is_made_again(repository: Repository) -> None:
    folder = stand_in(repository)
    (folder / "objects").unlink()
    assert stand_in(repository) == folder
    assert (folder / "objects").is_dir()


def test_a_stand_in_is_kept_where_git_has_written_something_of_its_own(repository: Repository) -> None:
    folder = stand_in(repository)
    (folder / "logs.new").touch()
    before = folder.stat().st_ino
    assert stand_in(repository).stat().st_ino == before


def test_the_commit_of_a_branch_in_a_file_of_its_own_is_read_without_git(tmp_path: Path) -> None:
    service = tmp_path / "service"
    git(tmp_path, "init", "--quiet", "--initial-branch", "main", "service")
    assert loose_head(service) == ""
    for message in ("First", "Second"):
        git(service, "commit", "--quiet", "--allow-empty", "--message", message)
        newest = git(service, "rev-parse", "HEAD").strip()
        assert loose_head(service) == loose_head(service, "main") == newest
    git(service, "worktree", "add", "--quiet", "-b", "other", str(tmp_path / "other"), "HEAD~1")
    assert loose_head(tmp_path / "other") == git(service, "rev-parse", "HEAD~1").strip()
    assert loose_head(tmp_path / "other", "main") == newest


def test_a_file_of_git_that_is_far_too_long_is_not_read(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch", "main", "service")
    service = tmp_path / "service"
    git(service, "commit", "--quiet", "--allow-empty", "--message", "Start")
    for file, branch in (("HEAD", ""), ("refs/heads/main", "main")):
        assert loose_head(service, branch)
        with (service / ".git" / file).open("a") as opened:
            opened.write("\n" * 2**22)
        assert loose_head(service, branch) == ""
        (service / ".git/HEAD").write_text("ref: refs/heads/main\n")


def test_a_commit_that_only_git_can_tell_is_not_guessed(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch", "main", "service")
    service = tmp_path / "service"
    git(service, "commit", "--quiet", "--allow-empty", "--message", "Start")
    (tmp_path / "outside").write_text(git(service, "rev-parse", "HEAD"))
    assert loose_head(service, "../../../outside") == ""
    assert loose_head(tmp_path / "nowhere") == ""
    (service / ".git/reftable").mkdir()
    assert loose_head(service, "main") == ""
    (service / ".git/reftable").rmdir()
    assert loose_head(service, "main")
    git(service, "symbolic-ref", "refs/heads/alias", "refs/heads/main")
    assert loose_head(service, "alias") == ""
    git(service, "checkout", "--quiet", "--detach")
    assert loose_head(service) == ""
    git(service, "pack-refs", "--all")
    assert loose_head(service, "main") == ""
