"""Commit, approve and compare the files of the services that the fixture `born` makes."""

import os
from collections.abc import Callable
from pathlib import Path

from fleet.service.waivers import ABSENT
from tests.support.commands import git

Born = Callable[..., Path]
Installed = Callable[[Path], None]


def contents(service: Path) -> dict[str, bytes]:
    """Return every file of a service, without Git's own."""
    return {
        path.relative_to(service).as_posix(): path.read_bytes()
        for path in sorted(service.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(service).parts
    }


def commit(service: Path, message: str = "Work") -> None:
    git(service, "add", "--all")
    git(service, "commit", "--quiet", "--allow-empty", "--message", message)


def waive(service: Path, *paths: str, content: str | None = None, expires: str = "2999-01-01") -> None:
    """Write waivers for the current contents of these paths."""
    entries = []
    for path in paths:
        now = git(service, "hash-object", path).strip() if (service / path).exists() else ABSENT
        entries.append(
            f"- path: {path}\n  reason: libvips\n  owner: media-team\n  approver: ana@platform\n"
            f'  expires: {expires}\n  content: "{content or now}"\n'
        )
    (service / "conventions.yml").write_text("waivers:\n" + "".join(entries))


def state(service: Path) -> tuple[str, ...]:
    """Return the whole state of a repository in Git, to check that it stays unchanged."""
    return (
        git(service, "rev-parse", "HEAD"),
        git(service, "for-each-ref"),
        git(service, "status", "--porcelain", "--branch"),
        git(service, "worktree", "list").split()[1],
        str(sorted(os.listdir(service))),
    )
