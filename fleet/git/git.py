"""Run git as a program. A failure of git becomes a FleetError with git's message."""

import os
import re
import subprocess
import tempfile
import threading
from pathlib import Path, PurePath
from typing import IO

from fleet.errors import FleetError, MachineError
from fleet.git import isolation
from fleet.git.environment import without_repository
from fleet.git.repository import Repository, find_repository

# The limit stops the wait for a host that never answers, or for a pipe in the place of a file that nobody writes to.
GIT_SECONDS = 300

# Commands that read commits only, and not a checkout.
_OF_COMMITS = {
    "cat-file",
    "describe",
    "for-each-ref",
    "log",
    "ls-tree",
    "merge-base",
    "rev-list",
    "rev-parse",
    "symbolic-ref",
    "update-ref",
}

# Only the last bytes of git's messages are read.
MOST_MESSAGE_BYTES = 2**16

# The exit status of the shell by which fleet/git/remote.py starts git, if git is not installed.
_NOT_FOUND = 127


def git(repository: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    """Run git in a repository, isolated from configuration (fleet/git/isolation.py), and return its output.

    Raises FleetError.
    """
    return checked_output(repository, arguments, run(command(repository, arguments), stdin=stdin))


def locate(repository: Path) -> Repository:
    """Find the parts of the repository. Raises FleetError if there is no repository."""
    if (found := find_repository(repository)) is None:
        raise FleetError(f"{repository} is not a git repository")
    return found


def make_bare(folder: Path) -> None:
    """Make a bare repository in the format that all versions of git read. Raises FleetError."""
    arguments = ("init", "--quiet", "--bare", "--template=", str(folder))
    checked_output(folder, arguments, run((["git", *arguments], without_repository())))


def check_out(repository: Path, checkout: Path, folder: Path, commit: str = "HEAD") -> None:
    """Write the files of a commit to `checkout`, on no branch. Git keeps its records of it in `folder`. Raises FleetError."""
    arguments = ("worktree", "add", "--quiet", "--detach", str(checkout), commit)
    command = ["git", "-C", str(repository), *arguments]
    checked_output(repository, arguments, run((command, isolation.detach(locate(repository), folder))))


def fetch_branch(repository: Path, other: Path, branch: str) -> None:
    """Fetch a branch of another repository on this machine. Raises FleetError."""
    arguments = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", str(other), f"{branch}:{branch}")
    words, environment = command(repository, arguments)
    checked_output(repository, arguments, run((words, environment | {"GIT_ALLOW_PROTOCOL": "file"})))


def bounded(repository: Path, *arguments: str, most: int) -> bytes:
    """Run git as `git` does, and give it up once it has printed more than `most` bytes. Raises FleetError."""
    words, environment = command(repository, arguments)
    with tempfile.TemporaryFile() as messages:
        try:
            process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=messages, env=environment)
        except FileNotFoundError:
            raise MachineError("git is not installed, or not in PATH") from None
        late = threading.Timer(GIT_SECONDS, process.kill)
        late.start()
        with process:
            assert process.stdout is not None
            output = process.stdout.read(most + 1)
            if len(output) > most:
                process.kill()
        is_late = not late.is_alive()
        late.cancel()
        messages.seek(0)
        done = subprocess.CompletedProcess(words, process.returncode, output, messages.read(MOST_MESSAGE_BYTES))
    if is_late:
        raise MachineError(f"git {subcommand(arguments)} was given up after {GIT_SECONDS:.0f} seconds")
    if len(output) > most:
        raise FleetError(
            f"git {subcommand(arguments)} was given up in {repository}, because it prints more than {most >> 20} MiB"
        )
    return checked_output(repository, arguments, done)


def line(repository: Path, *arguments: str, stdin: bytes | None = None) -> str:
    """Run git as `git` does, for commands that print one line."""
    return git(repository, *arguments, stdin=stdin).decode().strip()


def answer(repository: Path, *arguments: str) -> str | None:
    """Run git as `git` does, and return its output without the last line end; None if its exit status is not 0."""
    done = run(command(repository, arguments))
    return done.stdout.decode(errors="surrogateescape").removesuffix("\n") if done.returncode == 0 else None


def succeeds(repository: Path, *arguments: str) -> bool:
    """Return whether the exit status of git is 0."""
    return answer(repository, *arguments) is not None


def refuse_unreadable(repository: Path) -> None:
    """Refuse a folder that is no repository, or whose HEAD names a commit that is missing. Raises FleetError."""
    git(repository, "rev-parse", "--git-dir")
    head = answer(repository, "rev-parse", "--quiet", "--verify", "HEAD")
    if head and not succeeds(repository, "cat-file", "-e", head):
        raise FleetError(f"{repository} has lost its last commit, {head}: clone it anew")


def is_damaged(repository: Path) -> bool:
    """Return whether files of a mirror are missing or have another content than git has written."""
    found = find_repository(repository)
    # A mirror without HEAD is an ordinary folder, for which git would find a repository around the cache.
    is_whole = found is not None and found.private == Path(os.path.realpath(repository))
    return not is_whole or not succeeds(repository, "fsck", "--full", "--no-dangling")


def refuse_sha256(repository: Path | str, commit: str) -> None:
    """Refuse a commit of a repository that names its objects by SHA-256. Raises FleetError."""
    if len(commit) > 40:
        raise FleetError(
            f"{repository} names its objects by SHA-256, and fleet compares names by SHA-1: import the repository into one "
            "made by `git init --object-format=sha1` (git fast-export, git fast-import)"
        )


def changed_paths(repository: Path) -> list[str]:
    """Return the paths that differ from the last commit: changed, added, deleted and untracked (not ignored) files."""
    # Git does not look into submodules, because each of them has a configuration of its own.
    exact = ("--porcelain", "-z", "--no-renames", "--untracked-files=all", "--ignore-submodules=dirty")
    listed = git(repository, "status", *exact)
    return [entry[3:] for entry in listed.decode(errors="surrogateescape").split("\0") if entry]


def leads_through_link(root: Path, path: str) -> bool:
    """Return whether a folder of the path is a symbolic link, so that the file is not the repository's."""
    return any((root / parent).is_symlink() for parent in list(PurePath(path).parents)[:-1])


def quote(path: str) -> str:
    """Quote a path for a command that reads one path per line: a name may contain a line end, or begin with a quote."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def without_credentials(text: str) -> str:
    """Remove tokens and passwords from the URLs in a text, because reports are passed on."""
    return re.sub(r"\b(https?://)[^/@\s]*@", r"\1", text)


def command(repository: Path, arguments: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """Prepare the command line and the variables. Raises FleetError if there is no repository."""
    with_files = subcommand(arguments) not in _OF_COMMITS and "--bare" not in arguments
    environment = isolation.variables(locate(repository), with_files=with_files)
    return ["git", "-C", str(repository), *arguments], environment


def run(
    prepared: tuple[list[str], dict[str, str]],
    *,
    stdin: bytes | None = None,
    stdout: IO[bytes] | int = subprocess.PIPE,
    stderr: IO[bytes] | int = subprocess.PIPE,
) -> subprocess.CompletedProcess[bytes]:
    command, environment = prepared
    try:
        return subprocess.run(command, input=stdin, stdout=stdout, stderr=stderr, env=environment, timeout=GIT_SECONDS)
    except subprocess.TimeoutExpired:
        arguments = tuple(command[command.index("-C") + 2 :] if "-C" in command else command[1:])
        raise MachineError(f"git {subcommand(arguments)} was given up after {GIT_SECONDS:.0f} seconds") from None
    except FileNotFoundError:
        raise MachineError("git is not installed, or not in PATH") from None


def checked_output(repository: Path, arguments: tuple[str, ...], done: subprocess.CompletedProcess[bytes]) -> bytes:
    """Return the output. Raises FleetError with git's message if git failed."""
    if done.returncode == _NOT_FOUND:
        raise MachineError("git is not installed, or not in PATH")
    if done.returncode != 0:
        message = (done.stderr or done.stdout).decode(errors="replace").strip()
        message = without_credentials(message) or f"exit status {done.returncode}"
        raise FleetError(f"git {subcommand(arguments)} failed in {repository}: {message}{hint(repository)}")
    return done.stdout


def hint(repository: Path) -> str:
    """Return the remedy if the repository is a partial clone: its missing objects are not fetched while fleet reads."""
    found = find_repository(repository)
    is_partial = found is not None and found.is_partial
    return f". {repository} is a partial clone: complete it by `git fetch --refetch --no-filter`" if is_partial else ""


def subcommand(arguments: tuple[str, ...]) -> str:
    return next((word for word in arguments if not word.startswith("-") and "=" not in word), "")
