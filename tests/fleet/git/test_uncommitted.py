"""Uncommitted changes, read as Git would commit them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.service.service import Service
from fleet.update.conflicts import refuse_conflicts
from tests.fleet.services import commit
from tests.support.commands import git


def replace_by_link(file: Path, target: str) -> None:
    file.unlink()
    file.symlink_to(target)


def replace_folder_by_link(repository: Path) -> None:
    """Both folders have a file of the same name, so that the old path still leads to a file."""
    (repository / "docs/page.md").unlink()
    (repository / "docs").rmdir()
    (repository / "docs").symlink_to("other")


CHANGES: dict[str, Callable[[Path], object]] = {
    "a link": lambda r: (r / "link").symlink_to("file.txt"),
    "a link to nothing": lambda r: (r / "link").symlink_to("nowhere"),
    "a link to a folder": lambda r: (r / "link").symlink_to("docs"),
    "a link in the place of a file": lambda r: replace_by_link(r / "file.txt", "docs/page.md"),
    "a link in the place of a folder": replace_folder_by_link,
    "a line end in a name": lambda r: (r / "two\nlines.txt").write_text("new"),
    "quotes in a name": lambda r: (r / '"quoted\\n".txt').write_text("new"),
    "a file that was changed": lambda r: (r / "file.txt").write_text("changed"),
    "a file that was deleted": lambda r: (r / "file.txt").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_read_alike_before_and_after_its_commit(tmp_path: Path, change: str) -> None:
    for path in ("file.txt", "docs/page.md", "other/page.md"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(f"The content of {path}.\n")
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    commit(tmp_path)
    CHANGES[change](tmp_path)

    before = contents(Service(tmp_path))
    commit(tmp_path)
    assert before == contents(Service(tmp_path, "HEAD"))


def contents(service: Service) -> dict[str, tuple[str, bytes | None]]:
    return {path: (entry.mode, service.read(path)) for path, entry in service.tree.items()}


def test_conflict_markers_are_looked_for_in_no_file_that_a_link_leads_to(tmp_path: Path) -> None:
    repository, theirs = tmp_path / "repository", tmp_path / "theirs"
    for folder in (repository / "docs", theirs):
        folder.mkdir(parents=True)
    (repository / "docs/page.md").write_text("A page.\n")
    git(repository, "init", "--quiet")
    commit(repository)
    (theirs / "page.md").write_text("<<<<<<< ours\n>>>>>>> theirs\n")
    (repository / "docs/page.md").unlink()
    (repository / "docs").rmdir()
    (repository / "docs").symlink_to(theirs)
    refuse_conflicts(repository, "No conflict")
