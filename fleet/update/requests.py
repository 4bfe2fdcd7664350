"""Pull and merge requests for the branches of `fleet update-all`, by the command line of the Git host: gh or glab."""

import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from urllib.parse import urlsplit

from fleet.errors import FleetError
from fleet.service.fleet_toml import Member
from fleet.service.forge_programs import first_address, github_name, run
from fleet.service.forges import Forge, forge
from fleet.update.clone import push_address
from fleet.update.outcomes import Outcome, Verdict

NO_HOST = "its address shows neither GitHub nor GitLab: name its host in [forge] of fleet.toml, or use the browser"


@dataclass(frozen=True)
class Request:
    """The request for one service: the command that opens it, and its address or the reason why it was not opened.

    `is_new` is false for a request that was open already. If the address and the problem are empty, nobody has tried to open the
    request.
    """

    service: str
    command: str = ""
    address: str = ""
    is_new: bool = False
    problem: str = ""


class Host(ABC):
    """The requests of one repository for the branch of an outcome."""

    program: ClassVar[str]

    def __init__(self, repository: str, outcome: Outcome) -> None:
        self._repository, self._outcome = repository, outcome

    @abstractmethod
    def search(self) -> tuple[str, ...]:
        """Return the arguments that list the open requests for the branch as JSON."""

    @abstractmethod
    def find(self, printed: str) -> str:
        """Return the address of a request in the printed list, except a request from a fork. Raises FleetError."""

    @abstractmethod
    def create(self) -> tuple[str, ...]:
        """Return the arguments that open a request."""

    @property
    def command(self) -> str:
        return shlex.join((self.program, *self.create()))

    def open(self) -> Request:
        """Open a request, unless a request for the branch is open. Raises FleetError."""
        request = Request(self._outcome.name, self.command)
        if known := self.find(self._run(*self.search())):
            return replace(request, address=self._own(known))
        return replace(request, address=self._own(self._run(*self.create())), is_new=True)

    def _run(self, *arguments: str) -> str:
        return run(self.program, *arguments, otherwise="run the command elsewhere")

    def _own(self, printed: str) -> str:
        """Return the last address in a text of the program, if it is an address of this host. Raises FleetError."""
        host = urlsplit(self._repository).hostname or ""
        found = re.findall(rf"https?://{re.escape(host)}(?::\d+)?/[\w./~+-]+", printed, re.ASCII | re.IGNORECASE)
        if not found:
            raise FleetError(f"{self.program} printed no address at {host}: look there whether the request is open")
        return found[-1]


class GitHub(Host):
    program = "gh"

    def search(self) -> tuple[str, ...]:
        wanted = ("--head", self._outcome.branch, "--state", "open", "--json", "url,isCrossRepository")
        return ("pr", "list", "--repo", github_name(self._repository), *wanted)

    def find(self, printed: str) -> str:
        return first_address("gh pr list", printed, "url", lambda one: not one["isCrossRepository"])

    def create(self) -> tuple[str, ...]:
        base = ("--base", self._outcome.base) if self._outcome.base else ()
        text = ("--title", title(self._outcome), "--body", body(self._outcome))
        return ("pr", "create", "--repo", github_name(self._repository), "--head", self._outcome.branch, *base, *text)


class GitLab(Host):
    program = "glab"

    def search(self) -> tuple[str, ...]:
        return ("mr", "list", "--repo", self._repository, "--source-branch", self._outcome.branch, "--output", "json")

    def find(self, printed: str) -> str:
        def is_own(one: dict[str, Any]) -> bool:
            return one["source_project_id"] == one["target_project_id"]

        return first_address("glab mr list", printed, "web_url", is_own)

    def create(self) -> tuple[str, ...]:
        base = ("--target-branch", self._outcome.base) if self._outcome.base else ()
        text = ("--title", title(self._outcome), "--description", body(self._outcome), "--yes")
        return ("mr", "create", "--repo", self._repository, "--source-branch", self._outcome.branch, *base, *text)


HOSTS: dict[str, type[Host]] = {"github": GitHub, "gitlab": GitLab}


def requests(
    members: Sequence[Member], outcomes: Sequence[Outcome], kinds: Mapping[str, str], *, is_asked: bool
) -> list[Request]:
    """Return a request for each pushed branch, opened if that is asked for. A failure does not stop the others.

    `kinds` are the kinds of Git hosts by name.
    """
    pushed = [
        pair for pair in zip(members, outcomes, strict=True) if pair[1].verdict is Verdict.DONE and pair[1].pushed
    ]
    return [_request(outcome, page_of(member, kinds), is_asked=is_asked) for member, outcome in pushed]


def page_of(member: Member, kinds: Mapping[str, str]) -> Forge:
    """Return the page of the repository to which branches are pushed."""
    try:
        return forge(push_address(member), kinds)
    except FleetError:  # the member is a repository on this machine without a remote
        return Forge()


def _request(outcome: Outcome, found: Forge, *, is_asked: bool) -> Request:
    if found.kind not in HOSTS:
        return Request(outcome.name, problem=NO_HOST)
    host = HOSTS[found.kind](found.repository, outcome)
    if not is_asked:
        return Request(outcome.name, host.command)
    try:
        return host.open()
    except FleetError as error:
        return Request(outcome.name, host.command, problem=str(error))


def title(outcome: Outcome) -> str:
    if outcome.old == outcome.new:
        return f"Restore the files of template {outcome.new}"
    return f"Update the template from {outcome.old} to {outcome.new}"


def body(outcome: Outcome) -> str:
    """Return the text of the request, which has only words of fleet and names of versions, and nothing of the service."""
    tested = "passes with this update" if outcome.tested else "has not run with this update"
    return f"Made by fleet update-all: the platform's files of template {outcome.new}. `make setup check` {tested}."
