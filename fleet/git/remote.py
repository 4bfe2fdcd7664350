"""Exchange commits with another repository, whose host may be hostile, by the configuration of the person who runs fleet."""

import os
import re
import tempfile
from pathlib import Path

from fleet.errors import FleetError
from fleet.git.configuration import settings_of
from fleet.git.environment import OF_A_REPOSITORY
from fleet.git.git import MOST_MESSAGE_BYTES, checked_output, locate, run, subcommand

# Variables that direct git to another repository, or change its answers.
_DROPPED = OF_A_REPOSITORY | {
    "GIT_DEFAULT_HASH",
    "GIT_DEFAULT_REF_FORMAT",
    "GIT_NAMESPACE",
    "GIT_QUARANTINE_PATH",
    "GIT_TEMPLATE_DIR",
}

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

# How much another host, which may be hostile, may send. FLEET_LIMIT_MIB sets another limit.
MIB = 2048
# The system refuses to write longer files. A program that ignores the signal XFSZ reports this instead of ending in silence.
_BOUNDED = ("/bin/sh", "-c", """trap '' XFSZ; ulimit -f "$0"; exec "$@\"""")
# POSIX counts the limit of `ulimit -f` in blocks of 512 bytes. Only bash outside of its POSIX mode counts blocks of 1024 bytes,
# and a shell with the name sh is in that mode.
_BLOCKS_OF_MIB = 2048
# The most bytes that are read of git's output, such as a list of branches.
_MOST_OUTPUT_BYTES = 2**26


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
            done = run(
                (command, environment | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}), stdout=output, stderr=messages
            )
        finally:
            _remove_partial_packs(folder)
        written = [file.seek(0, os.SEEK_END) for file in (output, messages)]
        output.seek(0)
        messages.seek(max(written[1] - MOST_MESSAGE_BYTES, 0))
        done.stdout, done.stderr = output.read(_MOST_OUTPUT_BYTES), messages.read()
    if max(written) >= min(most * 2**20, _MOST_OUTPUT_BYTES) or b"File too large" in done.stderr:
        raise FleetError(
            f"git {subcommand(arguments)} in {folder} was given up, because the host sends more than {most:,} MiB. If the repository "
            "has to be larger than that, set FLEET_LIMIT_MIB to a larger number"
        )
    return checked_output(folder, arguments, done)


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


def remote_address(repository: Path) -> str:
    """Return the URL or path that the repository pushes to: of `origin`, or of the only remote. Raises FleetError."""
    found = locate(repository)
    urls: dict[str, str] = {}
    for key, value in settings_of(found.shared / "config"):
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
