"""Run git as a program. What git says on failure becomes the message of a FleetError."""

import os
import re
import subprocess
import tempfile
from pathlib import Path, PurePath
from typing import IO

from fleet.errors import FleetError, OfThisMachine
from fleet.git import isolation

# For a host that never answers, and for a pipe in the place of a file, which nobody writes to.
LIMIT_SECONDS = 300

# For commands that talk to another repository by the person's own configuration. Fetched objects are checked, because the
# repository of a service may be crafted to do harm.
_OUTSIDE = tuple(
    word
    for setting in (
        "clone.defaultRemoteName=origin",
        "clone.rejectShallow=false",
        "color.ui=false",
        f"core.hooksPath={os.devnull}",
        "fetch.fsckObjects=true",
        "fetch.recurseSubmodules=false",
        "fetch.unpackLimit=1",  # one file, which has a limit, and not one for each object
        "push.followTags=false",
        "push.gpgSign=false",
        "push.recurseSubmodules=no",
        "safe.bareRepository=all",
        "submodule.recurse=false",
        "transfer.fsckObjects=true",
    )
    for word in ("-c", setting)
)

# Commands that look at commits only, and not at a checkout.
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


# What another host may send, which may be hostile. FLEET_LIMIT_MIB sets another limit.
MIB = 2048
# The system refuses to write longer files. A program that ignores the signal XFSZ says so, instead of ending without a word.
_BOUNDED = ("/bin/sh", "-c", """trap '' XFSZ; ulimit -f "$0"; exec "$@\"""")
_BLOCKS_OF_MIB = 2048
# Of what git says, the end; and all of what it prints: the list of branches, at most.
_MOST_SAID = 2**16
_MOST_PRINTED = 2**26

_NOT_FOUND = 127


def git(repository: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    """Run git in a repository, without its configuration and a person's (fleet/git/isolation.py). Return what it printed.

    Raises FleetError.
    """
    return _printed(repository, arguments, _run(command(repository, arguments), stdin=stdin))


def exchange(folder: Path, *arguments: str) -> bytes:
    """Run git with another repository as the person who runs fleet has configured it: keys, proxies, addresses.

    `folder` is a repository that fleet made, or none. Raises FleetError.
    """
    kept = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    most = limit_mib()
    command = [*_BOUNDED, str(most * _BLOCKS_OF_MIB), "git", *_OUTSIDE, "-C", str(folder), *arguments]
    succeeded = False
    # Into files, which have the same limit. A host may send messages without end, too.
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as said:
        try:
            done = _run((command, kept | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}), stdout=printed, stderr=said)
            succeeded = done.returncode == 0
        finally:  # git leaves what it received of a pack that it could not keep
            for left in () if succeeded else folder.glob("objects/pack/tmp_*"):
                left.unlink(missing_ok=True)
        written = [file.seek(0, os.SEEK_END) for file in (printed, said)]
        printed.seek(0)
        said.seek(max(written[1] - _MOST_SAID, 0))
        done.stdout, done.stderr = printed.read(_MOST_PRINTED), said.read()
    if max(written) >= min(most * 2**20, _MOST_PRINTED) or b"File too large" in done.stderr:
        raise FleetError(
            f"git {_name(arguments)} in {folder} was given up, because the host sends more than {most:,} MiB. If the repository "
            "is to be as large as that, set FLEET_LIMIT_MIB to more"
        )
    return _printed(folder, arguments, done)


def limit_mib() -> int:
    """How much another host may send in one go. Raises FleetError if FLEET_LIMIT_MIB is no such number."""
    written = os.environ.get("FLEET_LIMIT_MIB", str(MIB))
    if not re.fullmatch("[1-9][0-9]{0,8}", written):
        raise FleetError(
            f"FLEET_LIMIT_MIB is {written!r}, and has to be a whole number of MiB, at least 1: correct it, or unset it, which "
            f"means {MIB:,}"
        )
    return int(written)


def located(repository: Path) -> isolation.Repository:
    """Where the parts of the repository are. Raises FleetError if there is none."""
    if (found := isolation.find(repository)) is None:
        raise FleetError(f"{repository} is not a git repository")
    return found


def make_bare(folder: Path) -> None:
    """Make a repository there, of the format that all versions of git read. Raises FleetError."""
    arguments = ("init", "--quiet", "--bare", "--template=", str(folder))
    _printed(folder, arguments, _run((["git", *arguments], isolation.without_repository())))


def check_out(repository: Path, checkout: Path, folder: Path, commit: str = "HEAD") -> None:
    """Write the files of a commit to `checkout`, on no branch. `folder` keeps what git notes of it. Raises FleetError."""
    arguments = ("worktree", "add", "--quiet", "--detach", str(checkout), commit)
    command = ["git", "-C", str(repository), *arguments]
    _printed(repository, arguments, _run((command, isolation.detached(located(repository), folder))))


def take(repository: Path, other: Path, branch: str) -> None:
    """Fetch a branch of another repository on this machine. Raises FleetError."""
    arguments = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", str(other), f"{branch}:{branch}")
    words, environment = command(repository, arguments)
    _printed(repository, arguments, _run((words, environment | {"GIT_ALLOW_PROTOCOL": "file"})))


def remote_address(repository: Path) -> str:
    """The URL or path that the repository pushes to: that of `origin`, or of its only remote. Raises FleetError."""
    found = located(repository)
    urls: dict[str, str] = {}
    for key, value in isolation.settings_of(found.shared / "config"):
        section, _, rest = key.partition(".")
        name, _, variable = rest.rpartition(".")
        if section == "remote" and (variable == "pushurl" or (variable == "url" and name not in urls)):
            urls[name] = value
    if "origin" not in urls and len(urls) != 1:
        listed = f"several remotes, {', '.join(urls)}, and none is called origin" if urls else "no remote to push to"
        raise FleetError(f"{repository} has {listed}: name one by `git remote rename` or `git remote add origin URL`")
    url = urls.get("origin") or next(iter(urls.values()))
    is_path = ":" not in url.partition("/")[0]
    return str((found.root or repository) / url) if is_path else url


def line(repository: Path, *arguments: str, stdin: bytes | None = None) -> str:
    """As `git`, for commands that print one line."""
    return git(repository, *arguments, stdin=stdin).decode().strip()


def answer(repository: Path, *arguments: str) -> str | None:
    """What git printed, its last line end left out; None if it says no by its exit status."""
    done = _run(command(repository, arguments))
    return done.stdout.decode(errors="surrogateescape").removesuffix("\n") if done.returncode == 0 else None


def succeeds(repository: Path, *arguments: str) -> bool:
    """Whether git says yes by its exit status."""
    return answer(repository, *arguments) is not None


def refuse_unreadable(repository: Path) -> None:
    """Raises FleetError if that is no repository that git can read, or a repository that has lost its last commit."""
    git(repository, "rev-parse", "--git-dir")
    head = answer(repository, "rev-parse", "--quiet", "--verify", "HEAD")
    if head and not succeeds(repository, "cat-file", "-e", head):
        raise FleetError(f"{repository} has lost its last commit, {head}: clone it anew")


def is_damaged(repository: Path) -> bool:
    """Whether files of a mirror are missing or have another content than git has written."""
    found = isolation.find(repository)
    # Without its HEAD, a mirror is a folder of whatever repository is around the cache.
    is_whole = found is not None and found.private == Path(os.path.realpath(repository))
    return not is_whole or not succeeds(repository, "fsck", "--full", "--no-dangling")


def refuse_sha256(repository: Path | str, commit: str) -> None:
    """Raises FleetError if the commit's id is one of a repository that names its objects by SHA-256."""
    if len(commit) > 40:
        raise FleetError(
            f"{repository} names its objects by SHA-256, and fleet compares names by SHA-1: import it into a repository "
            "that is made by `git init --object-format=sha1` (git fast-export, git fast-import)"
        )


def changed_paths(repository: Path) -> list[str]:
    """What differs from the last commit: changed, added, deleted and untracked (not ignored) files."""
    # Not into submodules: each of them has a configuration of its own.
    exact = ("--porcelain", "-z", "--no-renames", "--untracked-files=all", "--ignore-submodules=dirty")
    listed = git(repository, "status", *exact)
    return [entry[3:] for entry in listed.decode(errors="surrogateescape").split("\0") if entry]


def leads_through_link(root: Path, path: str) -> bool:
    """Whether a folder of the path is a symbolic link, which leads to files that are not the repository's."""
    return any((root / parent).is_symlink() for parent in list(PurePath(path).parents)[:-1])


def quoted(path: str) -> str:
    """The path as git reads paths line by line: a name may hold a line end, or begin with a quote."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def without_credentials(text: str) -> str:
    """Without a token that somebody put into a URL: reports are passed on."""
    return re.sub(r"\b(https?://)[^/@\s]*@", r"\1", text)


def command(repository: Path, arguments: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """The command line and the variables. Raises FleetError if there is no repository."""
    with_files = _name(arguments) not in _OF_COMMITS and "--bare" not in arguments
    environment = isolation.variables(located(repository), with_files=with_files)
    return ["git", "-C", str(repository), *arguments], environment


def _run(
    prepared: tuple[list[str], dict[str, str]],
    *,
    stdin: bytes | None = None,
    stdout: IO[bytes] | int = subprocess.PIPE,
    stderr: IO[bytes] | int = subprocess.PIPE,
) -> subprocess.CompletedProcess[bytes]:
    command, environment = prepared
    try:
        return subprocess.run(
            command, input=stdin, stdout=stdout, stderr=stderr, env=environment, timeout=LIMIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        asked = tuple(command[command.index("-C") + 2 :] if "-C" in command else command[1:])
        raise OfThisMachine(f"git {_name(asked)} was given up after {LIMIT_SECONDS:.0f} seconds") from None
    except FileNotFoundError:
        raise OfThisMachine("git is not installed, or not in PATH") from None


def _printed(repository: Path, arguments: tuple[str, ...], done: subprocess.CompletedProcess[bytes]) -> bytes:
    """Raises FleetError, with what git said, if it failed."""
    if done.returncode == _NOT_FOUND:  # of the shell, which `exchange` starts git by
        raise OfThisMachine("git is not installed, or not in PATH")
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        said = without_credentials(said) or f"exit status {done.returncode}"
        raise FleetError(f"git {_name(arguments)} failed in {repository}: {said}{hint(repository)}")
    return done.stdout


def hint(repository: Path) -> str:
    """What may be missing in a clone that was made without all objects: nothing is fetched while fleet reads."""
    found = isolation.find(repository)
    is_partial = found is not None and found.is_partial
    return f". {repository} is a partial clone: complete it by `git fetch --refetch --no-filter`" if is_partial else ""


def _name(arguments: tuple[str, ...]) -> str:
    return next((word for word in arguments if not word.startswith("-") and "=" not in word), "")


# What sends git to another repository, or makes it answer otherwise.
_DROPPED = isolation.OF_A_REPOSITORY | {
    "GIT_DEFAULT_HASH",
    "GIT_DEFAULT_REF_FORMAT",
    "GIT_NAMESPACE",
    "GIT_QUARANTINE_PATH",
    "GIT_TEMPLATE_DIR",
}
