"""Read the few settings of git that fleet passes on: the format of the repository and of the checkout, and the committer."""

import os
import re
import subprocess
from functools import cache as once
from pathlib import Path

from fleet.errors import FleetError, MachineError
from fleet.git.environment import OF_A_REPOSITORY, without_repository
from fleet.git.repository import Repository, read

CONFIGURATION_SECONDS = 60
"""The limit for reading the configuration, because an include may name a pipe that nobody writes to."""

_HAS_EXTENSIONS = re.compile(rb"^\s*\[\s*extensions", re.IGNORECASE | re.MULTILINE)
Setting = tuple[str, str]

# How files are stored in the checkout, and the committer. None of these settings can name a program.
_INERT = re.compile(
    r"core\.(autocrlf|eol|filemode|symlinks|ignorecase|precomposeunicode|excludesfile|attributesfile"
    r"|sparsecheckout|sparsecheckoutcone|trustctime|checkstat)"
    r"|(user|author|committer)\.(name|email)|user\.(useconfigonly|signingkey)|commit\.gpgsign|gpg\.format"
)
# Settings that count only if the person who runs fleet has made them: filters, such as Git LFS, and the programs that sign.
_OF_THE_PERSON = re.compile(r"filter\..*|gpg\..*")
_FORMATS = re.compile(r"extensions\.(objectformat|refstorage)")


@once
def checkout_settings(repository: Repository) -> list[Setting]:
    """Return the settings that fleet passes on to the commands of git that read files of a checkout.

    To print the configuration, git starts no program that the configuration names.
    """
    environment = {name: value for name, value in os.environ.items() if name not in OF_A_REPOSITORY}
    listed = _listed(["--show-scope", "--includes"], environment | {"GIT_DIR": str(repository.private)})
    found = []
    for scope, setting in zip(listed[::2], listed[1::2], strict=False):
        key, value = _setting(setting)
        is_theirs = scope in ("local", "worktree")
        if _INERT.fullmatch(key) or (_OF_THE_PERSON.fullmatch(key) and not is_theirs):
            found.append((key, value))
    return found


@once
def _format_of(file: Path, content: bytes) -> list[Setting]:
    if not _HAS_EXTENSIONS.search(content):
        return []
    return [setting for setting in settings_of(file) if _FORMATS.fullmatch(setting[0])]


def format_settings(shared: Path) -> list[Setting]:
    """Return the settings for the format of objects and refs.

    The settings are read without git if the repository has git's first format, as most repositories have.
    """
    file = shared / "config"
    extensions = _format_of(file, read(file))
    return [("core.repositoryformatversion", "1" if extensions else "0"), *extensions]


def settings_of(file: Path) -> list[Setting]:
    """Read one file of git's configuration, without the files that it includes. Raises FleetError."""
    return [_setting(one) for one in _listed(["--no-includes", "--file", str(file)], without_repository())]


def _listed(options: list[str], environment: dict[str, str]) -> list[str]:
    command = ["git", "config", "--null", *options, "--list"]
    try:
        done = subprocess.run(command, env=environment, cwd="/", capture_output=True, timeout=CONFIGURATION_SECONDS)
    except FileNotFoundError:
        raise MachineError("git is not installed, or not in PATH") from None
    except subprocess.TimeoutExpired:
        raise MachineError(
            f"reading the configuration of git was given up after {CONFIGURATION_SECONDS} seconds"
        ) from None
    if done.returncode != 0:
        raise FleetError(f"git cannot read its configuration: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="surrogateescape").split("\0")[:-1]


def _setting(listed: str) -> Setting:
    key, _, value = listed.partition("\n")
    return key, value if "\n" in listed else "true"
