"""What an update that went wrong leaves behind: unmerged paths, conflict markers, rejected hunks."""

import re
from pathlib import Path

from fleet.errors import FleetError
from fleet.git import git

MARKER = re.compile(rb"^<{7} .*?^>{7} ", re.MULTILINE | re.DOTALL)


def refuse_scars(repository: Path, because: str) -> None:
    """Raises FleetError, which names every path that has one. Looks at the working copy, at what git tracks."""
    unmerged = {row.split("\t", 1)[1] for row in _listed(repository, "ls-files", "--unmerged", "-z")}
    tracked = _listed(repository, "ls-files", "-z")
    rejected = {path for path in tracked if path.endswith(".rej")}
    # Git looks, and only where it finds something do we: no file is read twice.
    suspects = {path for path in _suspects(repository) if MARKER.search(_bytes(repository, path))}
    scars = [
        *(f"{path}: unmerged" for path in sorted(unmerged)),
        *(f"{path}: conflict markers" for path in sorted(suspects)),
        *(f"{path}: hunks that an update could not apply" for path in sorted(rejected)),
    ]
    if scars:
        raise FleetError(f"{because}\n" + "\n".join(f"  {scar}" for scar in scars))


def _bytes(repository: Path, path: str) -> bytes:
    """None of a link or of what a link leads to, which is no file of the repository."""
    file = repository / path
    is_ours = file.is_file() and not file.is_symlink() and not git.leads_through_link(repository, path)
    return file.read_bytes() if is_ours else b""


def _listed(repository: Path, *arguments: str) -> list[str]:
    return _rows(git.git(repository, *arguments).decode(errors="surrogateescape"))


def _suspects(repository: Path) -> list[str]:
    return _rows(git.answer(repository, "grep", "-I", "-l", "-z", "-e", "^<<<<<<< ") or "")


def _rows(printed: str) -> list[str]:
    return [row for row in printed.split("\0") if row]
