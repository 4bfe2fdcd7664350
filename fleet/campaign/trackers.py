"""Open issues by the command line of the Git host: gh of GitHub, glab of GitLab."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from fleet.service.forge_programs import first_address, github_name, run
from fleet.service.forges import forge


class Tracker(ABC):
    """The issues of one repository, whose page has the address `repository`."""

    program: ClassVar[str]

    def __init__(self, repository: str) -> None:
        self._repository = repository

    @abstractmethod
    def find(self, title_start: str) -> str:
        """Return the address of an open issue whose title has this beginning; empty without such an issue. Raises FleetError."""

    @abstractmethod
    def open(self, title: str, body: str) -> str:
        """Open an issue, and return what the program prints, which is its address. Raises FleetError."""

    def _run(self, *arguments: str, stdin: str = "") -> str:
        return run(self.program, "issue", *arguments, stdin=stdin, otherwise="post the file by hand")

    def _first(self, printed: str, title_start: str, address: str) -> str:
        """Return the address of the first issue whose title has this beginning, from the JSON that the program prints."""
        command = f"{self.program} issue list"
        return first_address(command, printed, address, lambda one: one["title"].startswith(title_start))


class GitHub(Tracker):
    program = "gh"

    def find(self, title_start: str) -> str:
        name = github_name(self._repository)
        # Ask twice: the list ends after 100 issues, and GitHub's search does not find an issue of the last minutes.
        for wanted in (("--limit", "100"), ("--search", f'in:title "{title_start}"')):
            listed = self._run("list", "--repo", name, "--state", "open", *wanted, "--json", "title,url")
            if found := self._first(listed, title_start, "url"):
                return found
        return ""

    def open(self, title: str, body: str) -> str:
        name = github_name(self._repository)
        return self._run("create", "--repo", name, "--title", title, "--body-file", "-", stdin=body)


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
