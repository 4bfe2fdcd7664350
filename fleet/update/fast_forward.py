"""Move the branch and the files of a service to the updated commit: all of them, or nothing."""

from pathlib import Path

from fleet.errors import FleetError
from fleet.git import git, objects
from fleet.update.files import remove_empty_folders
from fleet.update.worktree import ignore_interrupts


def place_of(repository: Path) -> tuple[str, str]:
    """Return the branch that is checked out, HEAD if none is, and its commit."""
    branch = git.answer(repository, "symbolic-ref", "--quiet", "HEAD") or "HEAD"
    return branch, git.line(repository, "rev-parse", "HEAD")


def fast_forward(repository: Path, checkout: Path, start: tuple[str, str]) -> None:
    """Move the branch and the checkout from the commit `start` to the commit of the second checkout.

    Raises FleetError, and takes back all changes, if git stops half-way: at a full disk, a read-only folder, a locked branch.
    """
    head = git.line(checkout, "rev-parse", "HEAD")
    with ignore_interrupts():
        if place_of(repository) != start:
            raise FleetError("the service changed while it was updated; run fleet again on the branch that you mean")
        changed = git.changed_paths(repository)
        old, new = objects.tree(repository, start[1]), objects.tree(repository, head)
        # The stamps show the files that git has written. Other differences stay: an edit at the same time, or an ignored file,
        # may be the reason why git stopped.
        stamps = {path: _stamp(repository / path) for path in old.keys() | new.keys() if old.get(path) != new.get(path)}
        reason = ""
        try:
            # By default git overwrites ignored files, which may be valuable to the developer.
            git.git(repository, "merge", "--quiet", "--ff-only", "--no-overwrite-ignore", head)
        except FleetError as error:
            reason = f"\n{error}"
        if place_of(repository) == (start[0], head):
            return
        written = {path for path, stamp in stamps.items() if _stamp(repository / path) != stamp}
        _take_back(repository, written, old, reason)
    if changed or place_of(repository) != start:
        raise FleetError(f"the service changed while it was updated; run fleet again{reason}")
    raise FleetError(f"the update could not be put in place, and nothing was changed{reason}")


def _stamp(file: Path) -> tuple[int, int] | None:
    """Return a stamp that changes when the file is written; None if there is no file."""
    try:
        found = file.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns


def _take_back(repository: Path, written: set[str], old: objects.Tree, reason: str) -> None:
    """Restore these paths from HEAD, whose tree is `old`. Raises FleetError."""
    if not written:
        return
    try:
        for path in written - old.keys():
            (repository / path).unlink()
            remove_empty_folders(repository, path)
        exact = ("--literal-pathspecs", "reset", "--quiet", "--pathspec-from-file=-", "--pathspec-file-nul")
        git.git(repository, *exact, stdin=_listed(written))
        git.git(repository, "checkout-index", "-u", "--force", "-z", "--stdin", stdin=_listed(written & old.keys()))
    except (OSError, FleetError) as error:
        raise FleetError(
            "the update stopped half-way and could not be taken back. The branch is unchanged: fix the cause below, then "
            f"`git status` shows the files to restore{reason}\n{error}"
        ) from None


def _listed(paths: set[str]) -> bytes:
    return "\0".join(paths).encode(errors="surrogateescape")
