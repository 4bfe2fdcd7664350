"""Open issues by the command line of the Git host: gh of GitHub, glab of GitLab. Both use the login of the person who runs fleet."""

import json
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import urlsplit

from fleet.errors import FleetError
from fleet.service.forges import forge

SECONDS = 60


class Tracker(ABC):
    """The issues of one repository, whose page has the address `repository`."""

    program: ClassVar[str]

    def __init__(self, repository: str) -> None:
        self._repository = repository

    @abstractmethod
    def find(self, title_start: str) -> str:
        """Return the address of an open issue whose title begins so; empty if no issue does. Raises FleetError."""

    @abstractmethod
    def open(self, title: str, body: str) -> str:
        """Open an issue, and return what the program prints, which is its address. Raises FleetError."""

    def _run(self, *arguments: str, stdin: str = "") -> str:
        # A surrogate alone, as YAML and JSON can write it, is no argument of a program.
        command = [self.program, "issue", *(one.encode(errors="replace").decode() for one in arguments)]
        if not shutil.which(self.program):
            raise FleetError(f"{self.program} is not installed: install it and sign in, or post the file by hand")
        try:
            done = subprocess.run(
                command, input=stdin, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise FleetError(f"{self.program} issue {arguments[0]} did not end within {SECONDS} seconds") from None
        except OSError as error:
            raise FleetError(f"{self.program} cannot be started: {error.strerror}") from None
        if done.returncode:
            raise FleetError(
                f"{self.program} issue {arguments[0]} failed: {done.stderr.strip()[:500] or 'no reason given'}"
            )
        return done.stdout.strip()

    def _first(self, printed: str, title_start: str, address: str) -> str:
        """Return the address in the first issue with such a title, in the JSON that the program prints."""
        try:
            return next(
                (str(one[address]) for one in json.loads(printed or "[]") if one["title"].startswith(title_start)), ""
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise FleetError(f"{self.program} issue list printed no list of issues: update {self.program}") from None


class GitHub(Tracker):
    program = "gh"

    @property
    def _name(self) -> str:
        """HOST/OWNER/REPO, as gh names a repository."""
        parts = urlsplit(self._repository)
        return f"{parts.netloc}{parts.path}"

    def find(self, title_start: str) -> str:
        # GitHub's search does not know an issue of the last minutes, and the list is cut.
        for wanted in (("--limit", "100"), ("--search", f'in:title "{title_start}"')):
            listed = self._run("list", "--repo", self._name, "--state", "open", *wanted, "--json", "title,url")
            if found := self._first(listed, title_start, "url"):
                return found
        return ""

    def open(self, title: str, body: str) -> str:
        return self._run("create", "--repo", self._name, "--title", title, "--body-file", "-", stdin=body)


class GitLab(Tracker):
    program = "glab"

    def find(self, title_start: str) -> str:
        wanted = ("--search", title_start, "--in", "title", "--output", "json")
        return self._first(self._run("list", "--repo", self._repository, *wanted), title_start, "web_url")

    def open(self, title: str, body: str) -> str:
        text = ("--title", title, "--description", body, "--no-editor", "--yes")
        return self._run("create", "--repo", self._repository, *text)


TRACKERS: dict[str, type[Tracker]] = {"github": GitHub, "gitlab": GitLab}


def tracker_of(address: str, kinds: Mapping[str, str]) -> Tracker | None:
    """Return the tracker of a repository; None if its host is neither GitHub nor GitLab. `kinds` are the kinds of hosts."""
    found = forge(address, kinds)
    made = TRACKERS.get(found.kind)
    return made(found.repository) if made else None
