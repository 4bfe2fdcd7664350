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

# The limit stops the wait for a host that never answers, or for a pipe in the place of a file that nobody writes to.
GIT_SECONDS = 300

# Options of commands that talk to another repository, which use the configuration of the person who runs fleet. Fetched
# objects are checked, because the repository of a service may be crafted to do harm.
_EXCHANGE_OPTIONS = tuple(
    word
    for setting in (
        "clone.defaultRemoteName=origin",
        "clone.rejectShallow=false",
        "color.ui=false",
        f"core.hooksPath={os.devnull}",
        "fetch.fsckObjects=true",
        "fetch.recurseSubmodules=false",
        "fetch.unpackLimit=1",  # git writes one pack, which `ulimit` bounds, instead of a file for each object
        "push.followTags=false",
        "push.gpgSign=false",
        "push.recurseSubmodules=no",
        "safe.bareRepository=all",
        "submodule.recurse=false",
        "transfer.fsckObjects=true",
    )
    for word in ("-c", setting)
)

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


# How much another host, which may be hostile, may send. FLEET_LIMIT_MIB sets another limit.
MIB = 2048
# The system refuses to write longer files. A program that ignores the signal XFSZ reports this instead of ending in silence.
_BOUNDED = ("/bin/sh", "-c", """trap '' XFSZ; ulimit -f "$0"; exec "$@\"""")
# POSIX counts the limit of `ulimit -f` in blocks of 512 bytes. Only bash outside of its POSIX mode counts blocks of 1024 bytes,
# and a shell with the name sh is in that mode.
_BLOCKS_OF_MIB = 2048
# The most bytes to read of git's messages (the end of them), and of git's output, such as a list of branches.
_MOST_MESSAGE_BYTES = 2**16
_MOST_OUTPUT_BYTES = 2**26

_NOT_FOUND = 127


def git(repository: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    """Run git in a repository, isolated from configuration (fleet/git/isolation.py), and return its output.

    Raises FleetError.
    """
    return _output(repository, arguments, _run(command(repository, arguments), stdin=stdin))


def exchange(folder: Path, *arguments: str) -> bytes:
    """Run git with another repository, by the configuration of the person who runs fleet: keys, proxies, addresses.

    `folder` is a repository that fleet made, or a folder without a repository. No other process may fetch into the folder.
    Raises FleetError.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    most = limit_mib()
    command = [*_BOUNDED, str(most * _BLOCKS_OF_MIB), "git", *_EXCHANGE_OPTIONS, "-C", str(folder), *arguments]
    _remove_partial_packs(folder)  # an earlier run may have been killed while it fetched
    # Output goes into files, which have the same limit, because a host may send messages without an end.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as messages:
        try:
            done = _run(
                (command, environment | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}), stdout=output, stderr=messages
            )
        finally:
            _remove_partial_packs(folder)
        written = [file.seek(0, os.SEEK_END) for file in (output, messages)]
        output.seek(0)
        messages.seek(max(written[1] - _MOST_MESSAGE_BYTES, 0))
        done.stdout, done.stderr = output.read(_MOST_OUTPUT_BYTES), messages.read()
    if max(written) >= min(most * 2**20, _MOST_OUTPUT_BYTES) or b"File too large" in done.stderr:
        raise FleetError(
            f"git {_name(arguments)} in {folder} was given up, because the host sends more than {most:,} MiB. If the repository "
            "has to be larger than that, set FLEET_LIMIT_MIB to a larger number"
        )
    return _output(folder, arguments, done)


def _remove_partial_packs(folder: Path) -> None:
    """Remove the files of packs that git did not receive completely. Each may be as large as the limit."""
    for partial in folder.glob("objects/pack/tmp_*"):
        partial.unlink(missing_ok=True)


def limit_mib() -> int:
    """Read how much another host may send in one exchange. Raises FleetError if FLEET_LIMIT_MIB is not such a number."""
    written = os.environ.get("FLEET_LIMIT_MIB", str(MIB))
    if not re.fullmatch("[1-9][0-9]{0,8}", written):
        raise FleetError(
            f"FLEET_LIMIT_MIB is {written!r}, and has to be a whole number of MiB, at least 1: correct the variable, or unset it "
            f"for the default, {MIB:,}"
        )
    return int(written)


def locate(repository: Path) -> isolation.Repository:
    """Find the parts of the repository. Raises FleetError if there is no repository."""
    if (found := isolation.find(repository)) is None:
        raise FleetError(f"{repository} is not a git repository")
    return found


def make_bare(folder: Path) -> None:
    """Make a bare repository in the format that all versions of git read. Raises FleetError."""
    arguments = ("init", "--quiet", "--bare", "--template=", str(folder))
    _output(folder, arguments, _run((["git", *arguments], isolation.without_repository())))


def check_out(repository: Path, checkout: Path, folder: Path, commit: str = "HEAD") -> None:
    """Write the files of a commit to `checkout`, on no branch. Git keeps its records of it in `folder`. Raises FleetError."""
    arguments = ("worktree", "add", "--quiet", "--detach", str(checkout), commit)
    command = ["git", "-C", str(repository), *arguments]
    _output(repository, arguments, _run((command, isolation.detach(locate(repository), folder))))


def fetch_branch(repository: Path, other: Path, branch: str) -> None:
    """Fetch a branch of another repository on this machine. Raises FleetError."""
    arguments = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", str(other), f"{branch}:{branch}")
    words, environment = command(repository, arguments)
    _output(repository, arguments, _run((words, environment | {"GIT_ALLOW_PROTOCOL": "file"})))


def remote_address(repository: Path) -> str:
    """Return the URL or path that the repository pushes to: of `origin`, or of the only remote. Raises FleetError."""
    found = locate(repository)
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
        done = subprocess.CompletedProcess(words, process.returncode, output, messages.read(_MOST_MESSAGE_BYTES))
    if is_late:
        raise MachineError(f"git {_name(arguments)} was given up after {GIT_SECONDS:.0f} seconds")
    if len(output) > most:
        raise FleetError(
            f"git {_name(arguments)} was given up in {repository}, because it prints more than {most >> 20} MiB"
        )
    return _output(repository, arguments, done)


def line(repository: Path, *arguments: str, stdin: bytes | None = None) -> str:
    """Run git as `git` does, for commands that print one line."""
    return git(repository, *arguments, stdin=stdin).decode().strip()


def answer(repository: Path, *arguments: str) -> str | None:
    """Run git as `git` does, and return its output without the last line end; None if its exit status is not 0."""
    done = _run(command(repository, arguments))
    return done.stdout.decode(errors="surrogateescape").removesuffix("\n") if done.returncode == 0 else None


def succeeds(repository: Path, *arguments: str) -> bool:
    """Return whether the exit status of git is 0."""
    return answer(repository, *arguments) is not None


def refuse_unreadable(repository: Path) -> None:
    """Refuse a folder that is not a repository, or a repository that has lost its last commit. Raises FleetError."""
    git(repository, "rev-parse", "--git-dir")
    head = answer(repository, "rev-parse", "--quiet", "--verify", "HEAD")
    if head and not succeeds(repository, "cat-file", "-e", head):
        raise FleetError(f"{repository} has lost its last commit, {head}: clone it anew")


def is_damaged(repository: Path) -> bool:
    """Return whether files of a mirror are missing or have another content than git has written."""
    found = isolation.find(repository)
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
    with_files = _name(arguments) not in _OF_COMMITS and "--bare" not in arguments
    environment = isolation.variables(locate(repository), with_files=with_files)
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
        return subprocess.run(command, input=stdin, stdout=stdout, stderr=stderr, env=environment, timeout=GIT_SECONDS)
    except subprocess.TimeoutExpired:
        arguments = tuple(command[command.index("-C") + 2 :] if "-C" in command else command[1:])
        raise MachineError(f"git {_name(arguments)} was given up after {GIT_SECONDS:.0f} seconds") from None
    except FileNotFoundError:
        raise MachineError("git is not installed, or not in PATH") from None


def _output(repository: Path, arguments: tuple[str, ...], done: subprocess.CompletedProcess[bytes]) -> bytes:
    """Return the output. Raises FleetError with git's message if git failed."""
    if done.returncode == _NOT_FOUND:  # the status of the shell by which `exchange` starts git
        raise MachineError("git is not installed, or not in PATH")
    if done.returncode != 0:
        message = (done.stderr or done.stdout).decode(errors="replace").strip()
        message = without_credentials(message) or f"exit status {done.returncode}"
        raise FleetError(f"git {_name(arguments)} failed in {repository}: {message}{hint(repository)}")
    return done.stdout


def hint(repository: Path) -> str:
    """The remedy for a partial clone, in which objects may be missing, because fleet fetches nothing while it reads."""
    found = isolation.find(repository)
    is_partial = found is not None and found.is_partial
    return f". {repository} is a partial clone: complete it by `git fetch --refetch --no-filter`" if is_partial else ""


def _name(arguments: tuple[str, ...]) -> str:
    return next((word for word in arguments if not word.startswith("-") and "=" not in word), "")


# Variables that direct git to another repository, or change its answers.
_DROPPED = isolation.OF_A_REPOSITORY | {
    "GIT_DEFAULT_HASH",
    "GIT_DEFAULT_REF_FORMAT",
    "GIT_NAMESPACE",
    "GIT_QUARANTINE_PATH",
    "GIT_TEMPLATE_DIR",
}
