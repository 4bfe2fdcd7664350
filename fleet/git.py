"""Git, run as a program. What it says on failure becomes the message of a FleetError."""

import os
import re
import subprocess
import threading
import weakref
from pathlib import Path
from typing import NamedTuple

from fleet.errors import FleetError

# A service's own hooks are for its people: they may need tools that are not there, and must not see half an update.
NO_HOOKS = ("-c", "core.hooksPath=/dev/null")


# A host that is asked and never answers must not hold up anybody for ever.
LIMIT_SECONDS = 300

# Override a user's own configuration, because we parse the output of git and look for `origin`. Check fetched objects,
# because the repository of a service may be crafted to do harm.
_PLAIN = tuple(
    word
    for setting in (
        "color.ui=false",
        "color.diff=false",
        "color.grep=false",
        "clone.defaultRemoteName=origin",
        "transfer.fsckObjects=true",
        "fetch.fsckObjects=true",
    )
    for word in ("-c", setting)
)


class Entry(NamedTuple):
    """A file as git records it: mode (100644, 100755, 120000) and the id of its bytes."""

    mode: str
    blob: str


Tree = dict[str, Entry]


def git(
    repository: Path,
    *arguments: str,
    stdin: bytes | None = None,
    index: Path | None = None,
    limit_seconds: float | None = None,
) -> bytes:
    """Run git there, on an index of its own if one is named, and return what it printed. Raises FleetError."""
    try:
        done = _run(repository, arguments, stdin=stdin, index=index, limit_seconds=limit_seconds)
    except subprocess.TimeoutExpired:
        raise FleetError(f"git {_command(arguments)} was given up after {limit_seconds:.0f} seconds") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        said = without_credentials(said) or f"exit status {done.returncode}"
        raise FleetError(f"git {_command(arguments)} failed in {repository}: {said}")
    return done.stdout


def line(repository: Path, *arguments: str, stdin: bytes | None = None) -> str:
    """As `git`, for commands that print one line."""
    return git(repository, *arguments, stdin=stdin).decode().strip()


def answer(repository: Path, *arguments: str) -> str | None:
    """What git printed, its last line end left out; None if it says no by its exit status."""
    done = _run(repository, arguments)
    return done.stdout.decode(errors="surrogateescape").removesuffix("\n") if done.returncode == 0 else None


def succeeds(repository: Path, *arguments: str) -> bool:
    """Whether git says yes by its exit status."""
    return answer(repository, *arguments) is not None


def refuse_unreadable(repository: Path) -> None:
    """Raises FleetError if that is no repository, or none that git reads: somebody else's, or one that lost its commit."""
    try:
        git(repository, "rev-parse", "--git-dir")
    except FleetError as error:
        if repository.is_dir() and "not a git repository" not in str(error):
            raise
        raise FleetError(f"{repository} is not a git repository") from None
    head = answer(repository, "rev-parse", "--quiet", "--verify", "HEAD")
    if head and not succeeds(repository, "cat-file", "-e", head):
        raise FleetError(f"{repository} has lost its last commit, {head}: clone it anew")


def show(repository: Path, commit: str, path: str) -> bytes | None:
    """The bytes of one file at a commit; None if it has none. Raises FleetError."""
    found = tree(repository, commit, path)
    return git(repository, "cat-file", "blob", found[path].blob) if path in found else None


def tree(repository: Path, ref: str = "HEAD", *paths: str) -> Tree:
    """Every file of a commit, or those of these paths. Reads the object database only: a bare clone will do."""
    listed = git(repository, "ls-tree", "-r", "-z", ref, "--", *paths).decode(errors="surrogateescape")
    found: Tree = {}
    for entry in filter(None, listed.split("\0")):
        meta, path = entry.split("\t", 1)
        mode, kind, blob = meta.split()
        if kind == "blob":
            _refuse_harmful(path)
            found[path] = Entry(mode, blob)
    return found


def _refuse_harmful(path: str) -> None:
    """Raises FleetError for a path that git would never check out: it leaves the folder, or is inside of .git."""
    if any(part in ("", ".", "..") or part.lower() == ".git" for part in path.split("/")):
        raise FleetError(f"the repository has a path that leaves its folder or is git's own, {path}: remove it there")


class Blobs:
    """The bytes of files by their ids. One process for all of them: a check reads a hundred files."""

    def __init__(self, repository: Path) -> None:
        self._process = subprocess.Popen(
            ["git", "-C", str(repository), "cat-file", "--batch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
        )
        self._lock = threading.Lock()
        weakref.finalize(self, self._process.communicate)

    def read(self, blob: str) -> bytes:
        """Raises FleetError if there is none."""
        asking, answer = self._process.stdin, self._process.stdout
        assert asking is not None
        assert answer is not None
        with self._lock:
            asking.write(f"{blob}\n".encode())
            asking.flush()
            header = answer.readline().decode().split()
            if len(header) != 3:
                raise FleetError(f"git has lost the file with the id {blob}: clone the repository anew")
            return answer.read(int(header[2]) + 1)[:-1]


def write_tree(repository: Path, commit: str, folder: Path, without: tuple[str, ...] = ()) -> None:
    """Write the files of a commit below the folder, their bytes as git has them; none of the folders `without` (`docs/`).

    A checkout would convert line ends and run filters, as the user has configured. Raises FleetError.
    """
    blobs = Blobs(repository)
    for path, entry in tree(repository, commit).items():
        if path.startswith(without):
            continue
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        content = blobs.read(entry.blob)
        if entry.mode == "120000":
            file.symlink_to(os.fsdecode(content))
            continue
        file.write_bytes(content)
        if entry.mode == "100755":
            file.chmod(0o755)


def changed_paths(repository: Path) -> list[str]:
    """What differs from the last commit: changed, added, deleted and untracked (not ignored) files."""
    listed = git(repository, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all")
    return [entry[3:] for entry in listed.decode(errors="surrogateescape").split("\0") if entry]


def quoted(path: str) -> str:
    """The path as git reads paths line by line: a name may hold a line end, or begin with a quote."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def without_credentials(text: str) -> str:
    """Without a token that somebody put into a URL: reports are passed on."""
    return re.sub(r"\b(https?://)[^/@\s]*@", r"\1", text)


def _run(
    repository: Path,
    arguments: tuple[str, ...],
    *,
    stdin: bytes | None = None,
    index: Path | None = None,
    limit_seconds: float | None = None,
) -> subprocess.CompletedProcess[bytes]:
    environment = _environment() | ({"GIT_INDEX_FILE": str(index)} if index else {})
    command = ["git", *_PLAIN, "-C", str(repository), *arguments]
    try:
        return subprocess.run(command, input=stdin, capture_output=True, env=environment, timeout=limit_seconds)
    except FileNotFoundError:
        raise FleetError("git is not installed, or not in PATH") from None


def _command(arguments: tuple[str, ...]) -> str:
    return next((word for word in arguments if not word.startswith("-") and "=" not in word), "")


def _environment() -> dict[str, str]:
    """Ours, without what a surrounding git process (a hook, a rebase) says about another repository."""
    kept = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    return kept | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


# What `git rev-parse --local-env-vars` lists, by all of its versions, without configuration: that may be how a proxy, a
# certificate or a token is given to CI.
OF_A_REPOSITORY = {
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
}
# What would make git answer otherwise, or commit at another time than now.
_DROPPED = OF_A_REPOSITORY | {
    "GIT_AUTHOR_DATE",
    "GIT_COMMITTER_DATE",
    "GIT_DIFF_OPTS",
    "GIT_EXTERNAL_DIFF",
    "GIT_NAMESPACE",
    "GIT_QUARANTINE_PATH",
}
