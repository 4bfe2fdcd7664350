"""A second checkout, so that the service's working copy stays unchanged until the update has succeeded."""

import fcntl
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from fleet.errors import FleetError
from fleet.git import git

BRANCH = "fleet-update"
PREFIX = "fleet-update-"
TERMINATION = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def worktree(repository: Path, *, keep: bool) -> Generator[Path]:
    """Provide a checkout of HEAD on no branch, and remove it at the end, also after a failure.

    With `keep` the commits of a failed update stay on the branch `fleet-update` for inspection. Raises FleetError if another
    update is running.
    """
    lock_file = git.locate(repository).shared / "fleet-update.lock"
    with open_file(lock_file) as lock, termination_as_interrupt():
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FleetError(f"another fleet update is running in {repository}") from None
        if git.succeeds(repository, "rev-parse", "--verify", "--quiet", f"refs/heads/{BRANCH}"):
            raise FleetError(
                f"there is a branch {BRANCH}, kept from an update that failed: remove it with `git branch -D {BRANCH}`"
            )
        _clean_up_after_killed_update(lock)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        checkout = folder / "service"
        try:
            lock.write(str(folder))
            lock.flush()
            git.check_out(repository, checkout, folder / "git")
            yield checkout
        except BaseException:
            if keep:
                with suppress(FleetError):
                    git.git(repository, "update-ref", f"refs/heads/{BRANCH}", git.line(checkout, "rev-parse", "HEAD"))
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.truncate(0)


def commit(worktree: Path, message: str, paths: Iterable[str] | None = None) -> bool:
    """Commit all changes, or the changes at these paths even if .gitignore names them. Return False without changes."""
    # The service's settings may ignore the executable bit, because its file system does. This checkout has the bit.
    add = ("-c", "core.fileMode=true", "--literal-pathspecs", "add", "--all")
    if paths is None:
        git.git(worktree, *add)
    elif named := "\0".join(paths).encode(errors="surrogateescape"):
        git.git(worktree, *add, "--force", "--pathspec-from-file=-", "--pathspec-file-nul", stdin=named)
    if git.succeeds(worktree, "diff", "--cached", "--quiet"):
        return False
    git.git(worktree, "commit", "--quiet", "--no-verify", "--file=-", stdin=message.encode())
    return True


def _clean_up_after_killed_update(lock: TextIO) -> None:
    """Remove the folder that a killed update has written into the lock file, if it is a folder that `worktree` makes."""
    lock.seek(0)
    folder = Path(lock.read())
    lock.truncate(0)
    if folder.parent == Path(tempfile.gettempdir()) and folder.name.startswith(PREFIX):
        shutil.rmtree(folder, ignore_errors=True)


def open_file(file: Path) -> TextIO:
    """Open a file to read and append, and create it if it is missing. Raises FleetError for a link and for other non-files.

    A repository may be crafted: through a link in it, fleet would empty a file of the person who runs fleet.
    """
    # O_NONBLOCK, because opening a pipe in the place of the file could block without an end.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        stream = os.fdopen(os.open(file, flags, 0o666), "a+")
    except OSError:
        if not file.is_symlink() and (file.is_file() or not file.exists()):
            raise
    else:
        found = os.fstat(stream.fileno())
        if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
            return stream
        stream.close()
    raise FleetError(f"{file} is a link or not a file, and fleet writes into it: delete it, then run fleet again")


@contextmanager
def ignore_interrupts() -> Generator[None]:
    """Ignore Ctrl-C and terminations, also in programs that start here: git would stop between two files."""
    before: dict[int, Any] = {}
    # In another thread than the main thread this raises ValueError, and the main thread handles signals.
    with suppress(ValueError):
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *TERMINATION)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def termination_as_interrupt() -> Generator[None]:
    """Raise KeyboardInterrupt when a CI job is cancelled or a terminal is closed, so that fleet cleans up as after Ctrl-C."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before: dict[int, Any] = {}
    # In another thread than the main thread this raises ValueError, and the main thread handles signals.
    with suppress(ValueError):
        for number in TERMINATION:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, for example, ignores SIGHUP
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
