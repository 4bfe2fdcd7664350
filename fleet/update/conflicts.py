"""Find the conflicts that a failed update leaves: unmerged paths, conflict markers, rejected hunks."""

import re
from pathlib import Path

from fleet.errors import FleetError
from fleet.git import git

MARKER = re.compile(rb"^<{7} .*?^>{7} ", re.MULTILINE | re.DOTALL)


def refuse_conflicts(repository: Path, because: str) -> None:
    """Refuse conflicts in the tracked files of the working copy. Raises FleetError, which names every path."""
    unmerged = {row.split("\t", 1)[1] for row in _listed(repository, "ls-files", "--unmerged", "-z")}
    tracked = _listed(repository, "ls-files", "-z")
    rejected = {path for path in tracked if path.endswith(".rej")}
    # Git searches all files, and only the files that it finds are read here.
    suspects = {path for path in _suspects(repository) if MARKER.search(_bytes(repository, path))}
    conflicts = [
        *(f"{path}: unmerged" for path in sorted(unmerged)),
        *(f"{path}: conflict markers" for path in sorted(suspects)),
        *(f"{path}: hunks that an update could not apply" for path in sorted(rejected)),
    ]
    if conflicts:
        raise FleetError(f"{because}\n" + "\n".join(f"  {conflict}" for conflict in conflicts))


def _bytes(repository: Path, path: str) -> bytes:
    """Return the bytes of a file; empty for a link or behind a link, which leads out of the repository."""
    file = repository / path
    is_ours = file.is_file() and not file.is_symlink() and not git.leads_through_link(repository, path)
    return file.read_bytes() if is_ours else b""


def _listed(repository: Path, *arguments: str) -> list[str]:
    return _rows(git.git(repository, *arguments).decode(errors="surrogateescape"))


def _suspects(repository: Path) -> list[str]:
    return _rows(git.answer(repository, "grep", "-I", "-l", "-z", "-e", "^<<<<<<< ") or "")


def _rows(printed: str) -> list[str]:
    return [row for row in printed.split("\0") if row]
