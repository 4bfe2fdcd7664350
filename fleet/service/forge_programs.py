"""Run the command line of a Git host: gh of GitHub, glab of GitLab. Both use the login of the person who runs fleet."""

import json
import shutil
import subprocess
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from fleet.errors import FleetError

SECONDS = 60


def run(program: str, *arguments: str, otherwise: str, stdin: str = "") -> str:
    """Run a program, and return what it prints. Raises FleetError.

    `otherwise` is the remedy for a person who does not want to install the program.
    """
    if not shutil.which(program):
        raise FleetError(f"{program} is not installed: install it and sign in, or {otherwise}")
    shown = f"{program} {' '.join(arguments[:2])}"
    try:
        done = subprocess.run(
            # A surrogate alone, as JSON can write it, is no argument of a program.
            [program, *(one.encode(errors="replace").decode() for one in arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FleetError(f"{shown} did not end within {SECONDS} seconds") from None
    except OSError as error:
        raise FleetError(f"{program} cannot be started: {error.strerror}") from None
    if done.returncode:
        raise FleetError(f"{shown} failed: {done.stderr.strip()[:500] or 'no reason given'}")
    return done.stdout.strip()


def first_address(command: str, printed: str, key: str, is_wanted: Callable[[dict[str, Any]], bool]) -> str:
    """Return the address of the first wanted item of a printed JSON list, or an empty text. Raises FleetError.

    `command` is the command that printed the list, as in `gh issue list`, and `key` is the name of the address.
    """
    try:
        return next((str(one[key]) for one in json.loads(printed or "[]") if is_wanted(one)), "")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FleetError(f"{command} printed no list: update {command.partition(' ')[0]}") from None


def github_name(repository: str) -> str:
    """Return HOST/OWNER/REPO, as gh names a repository, from the address of its page."""
    parts = urlsplit(repository)
    return f"{parts.netloc}{parts.path}"
