"""Find a repository and its newest commit without starting git, and without reading the configuration."""

import os
import re
from pathlib import Path
from typing import NamedTuple

MOST_BYTES = 2**22
"""The limit for files that are read here: HEAD, the commit of a branch, a path, a configuration. All are far smaller."""


class Repository(NamedTuple):
    """The folders of a repository.

    `private` has HEAD; a linked worktree has such a folder of its own. `shared` has objects, refs and the configuration.
    `root` has the files; a bare repository has none.
    """

    private: Path
    shared: Path
    root: Path | None

    @property
    def is_shallow(self) -> bool:
        """Whether the history is cut off."""
        return (self.shared / "shallow").exists()

    @property
    def is_partial(self) -> bool:
        """Whether the clone was made without all objects, for git to fetch them on demand."""
        return any((self.shared / "objects/pack").glob("*.promisor"))


def find_repository(path: Path) -> Repository | None:
    """Find the repository that contains the folder as git does, but without reading the configuration."""
    path = Path(os.path.realpath(path))
    if not path.is_dir():
        return None
    for folder in (path, *path.parents):
        private = _private(folder / ".git")
        if private is not None:
            shared = _read_path(private, private / "commondir", "") or private
            is_bare = private == shared and _IS_BARE.search(read(shared / "config")) is not None
            return Repository(private, shared, None if is_bare else folder)
        if all((folder / part).exists() for part in ("HEAD", "objects", "refs")):
            return Repository(folder, _read_path(folder, folder / "commondir", "") or folder, None)
    return None


def loose_head(path: Path, branch: str = "") -> str:
    """Return the commit of a branch or of HEAD, if git keeps the commit in a file of its own.

    The result is empty if only git can find it.
    """
    repository = find_repository(path)
    if repository is None or (repository.shared / "reftable").exists():
        return ""
    head = f"ref: refs/heads/{branch}" if branch else os.fsdecode(read(repository.private / "HEAD")).strip()
    name = _BRANCH.fullmatch(head)
    found = os.fsdecode(read(repository.shared / name[1])).strip() if name else ""
    return found if _COMMIT.fullmatch(found) else ""


def _private(dot_git: Path) -> Path | None:
    try:
        if dot_git.is_dir():
            return dot_git if (dot_git / "HEAD").is_symlink() or (dot_git / "HEAD").exists() else None
    except PermissionError:
        return dot_git  # git meets the same error later, and reports it
    return _read_path(dot_git.parent, dot_git, "gitdir: ")


def _read_path(folder: Path, file: Path, prefix: str) -> Path | None:
    """Read the path of a folder, relative to `folder`, from a file of git."""
    text = os.fsdecode(read(file)).rstrip("\n")
    if not text:
        return None
    return Path(os.path.normpath(folder / text.removeprefix(prefix))) if text.startswith(prefix) else None


def read(file: Path) -> bytes:
    """Return the bytes of a file.

    The result is empty if the file is missing, unreadable, too long, or a pipe that nobody may ever write to.
    """
    try:
        if not file.is_file():
            return b""
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except OSError:
        return b""
    return content if len(content) <= MOST_BYTES else b""


# The pattern allows no dots, because with `..` a name would lead out of the folder.
_BRANCH = re.compile(r"ref: (refs/heads/[\w/+-]+)", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_IS_BARE = re.compile(rb"^\s*bare\s*=\s*true\b", re.IGNORECASE | re.MULTILINE)
