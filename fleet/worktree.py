"""A second working copy on a branch of its own, so that nothing happens to the service's until all has gone well."""

import fcntl
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from fleet import git
from fleet.errors import FleetError

BRANCH = "fleet-update"
PREFIX = "fleet-update-"
TERMINATION = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def worktree(repository: Path, *, keep: bool) -> Generator[Path]:
    """A checkout of HEAD on the branch `fleet-update`, removed at the end, however that comes about.

    With `keep` the branch of a failed update stays, for inspection. Raises FleetError if another update is running.
    """
    private = Path(git.line(repository, "rev-parse", "--path-format=absolute", "--git-common-dir"))
    with (private / "fleet-update.lock").open("w") as lock, termination_as_interrupt():
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FleetError(f"another fleet update is running in {repository}") from None
        _clean_up_after_a_killed_one(repository)
        if _has_branch(repository):
            raise FleetError(
                f"there is a branch {BRANCH}, kept from an update that failed: remove it with `git branch -D {BRANCH}`"
            )
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        failed = True
        try:
            git.git(repository, *git.NO_HOOKS, "worktree", "add", "--quiet", "-b", BRANCH, str(folder / "service"))
            yield folder / "service"
            failed = False
        finally:
            _remove(repository, folder, branch=not (failed and keep))


def commit(worktree: Path, message: str, paths: Iterable[str] | None = None) -> bool:
    """Commit what changed there, or at these paths, even if .gitignore names them. False if nothing did."""
    # The service may be where nothing is executable, and git told so; this checkout is not.
    add = ("-c", "core.fileMode=true", "--literal-pathspecs", "add", "--all")
    if paths is None:
        git.git(worktree, *add)
    elif named := "\0".join(paths).encode():
        git.git(worktree, *add, "--force", "--pathspec-from-file=-", "--pathspec-file-nul", stdin=named)
    if git.succeeds(worktree, "diff", "--cached", "--quiet"):
        return False
    # The hooks of the service are for people: they may need what is not installed in this checkout.
    git.git(worktree, *git.NO_HOOKS, "commit", "--quiet", "--no-verify", "--file=-", stdin=message.encode())
    return True


def _has_branch(repository: Path) -> bool:
    return git.succeeds(repository, "rev-parse", "--verify", "--quiet", f"refs/heads/{BRANCH}")


def _clean_up_after_a_killed_one(repository: Path) -> None:
    """Only what `worktree` made: somebody may have checked out a branch that was kept."""
    for entry in git.line(repository, "worktree", "list", "--porcelain").split("\n\n"):
        fields = dict(field.partition(" ")[::2] for field in entry.splitlines())
        folder = Path(fields.get("worktree", ""))
        if folder.parent.name.startswith(PREFIX) and fields.get("branch") == f"refs/heads/{BRANCH}":
            _remove(repository, folder.parent, branch=True)


def _remove(repository: Path, folder: Path, *, branch: bool) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    git.succeeds(repository, "worktree", "prune")
    if branch and _has_branch(repository):
        git.succeeds(repository, "branch", "--quiet", "-D", BRANCH)


@contextmanager
def undisturbed() -> Generator[None]:
    """No Ctrl-C nor the like ends this, nor what it starts: git, stopped between two files, would leave half of them."""
    before: dict[int, Any] = {}
    # Not the main thread: whoever started it looks after signals.
    with suppress(ValueError):
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *TERMINATION)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def termination_as_interrupt() -> Generator[None]:
    """A CI job that is cancelled, or a terminal that is closed, ends this as Ctrl-C does, cleaning up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before: dict[int, Any] = {}
    # Not the main thread: whoever started it looks after signals.
    with suppress(ValueError):
        for number in TERMINATION:
            if signal.getsignal(number) is not signal.SIG_IGN:  # by nohup, say
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
