"""Read the history of a repository: what was merged into its branch on which day, and its tags.

A commit of the branch itself counts, and a merge counts as one commit with all that it brought: this is what was delivered
together, whether a forge merges, squashes or rebases.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from fleet.boundaries.days import day_of
from fleet.git import git
from fleet.template.answers import ANSWERS_FILE
from fleet.template.ownership import PLATFORM_FOLDERS

MOST_COMMITS = 20_000
MOST_LOG_BYTES = 64 * 2**20
MOST_TAGS_BYTES = 4 * 2**20
LONGEST_TEXT = 120

FORMAT = "%H %ct %P%x00%ae%x00%s"
"""The first field has no text of people, so that no author and no subject can imitate the beginning of a commit."""

CONTRACTS = ("specs/openapi.json", "specs/asyncapi.json", "specs/messages/")
GENERATED = ("uv.lock", "specs/")
PLATFORM = ("uv.lock", "pyproject.toml", *PLATFORM_FOLDERS)


@dataclass(frozen=True)
class Delivery:
    """A commit of the branch. `by` is the author's address, which is compared and never shown."""

    id: str
    day: date
    parent: str
    by: str
    subject: str
    paths: tuple[str, ...]

    @property
    def has_code(self) -> bool:
        return any(path.startswith("src/") for path in self.paths)

    @property
    def has_contract(self) -> bool:
        return any(path.startswith(CONTRACTS) for path in self.paths)


@dataclass(frozen=True)
class Tag:
    """A tag, and the commit that it names."""

    name: str
    day: date
    commit: str


def deliveries(repository: Path, commit: str, first: date, last: date) -> list[Delivery]:
    """Read what was delivered in these days, the newest first. Raises FleetError."""
    options = ("--first-parent", "-m", "--raw", "-z", "--no-renames", "--no-abbrev", f"--format={FORMAT}")
    bounds = (f"--max-count={MOST_COMMITS}", f"--since={first.isoformat()}T00:00:00Z")
    output = git.bounded(repository, "log", *options, *bounds, commit, "--", most=MOST_LOG_BYTES)
    return [one for one in _parse(output) if first <= one.day <= last]


def _parse(output: bytes) -> Iterator[Delivery]:
    fields = output.split(b"\0")
    at = 0
    while at + 2 < len(fields):
        id_, seconds, *parents = fields[at].decode().split(" ")
        by, subject = fields[at + 1], fields[at + 2]
        at += 3
        paths = []
        while at + 1 < len(fields) and fields[at].lstrip(b"\n").startswith(b":"):
            paths.append(fields[at + 1].decode(errors="surrogateescape"))
            at += 2
        if day := day_of(seconds):
            yield Delivery(id_, day, parents[0], by.decode(errors="replace").casefold(), short(subject), tuple(paths))


def tags(repository: Path, first: date, last: date) -> list[Tag]:
    """Read the tags of these days, in their order. Raises FleetError."""
    fields = "%(refname:strip=2)%00%(creatordate:unix)%00%(*objectname)%00%(objectname)"
    output = git.bounded(repository, "for-each-ref", f"--format={fields}", "refs/tags", most=MOST_TAGS_BYTES)
    found = []
    for line in output.splitlines():
        name, seconds, peeled, own = line.split(b"\0")
        day = day_of(seconds.decode())
        if day and first <= day <= last:
            found.append(Tag(short(name), day, (peeled or own).decode()))
    return sorted(found, key=lambda one: (one.day, one.name))


def short(text: bytes) -> str:
    """Return a text of a repository as one line of bounded length."""
    line = " ".join(text[: 4 * LONGEST_TEXT].decode(errors="replace").split())
    return line if len(line) <= LONGEST_TEXT else f"{line[:LONGEST_TEXT]}…"


def of_the_team(newest_first: list[Delivery]) -> list[Delivery]:
    """Leave out the commits of the platform, by which all services change in the same days.

    These are updates of the template, with the specs that are generated anew after them, and updates of dependencies.
    """
    kept: list[Delivery] = []
    follows_platform = False
    for one in reversed(newest_first):
        is_generated_only = bool(one.paths) and all(path.startswith(GENERATED) for path in one.paths)
        is_platform = ANSWERS_FILE in one.paths or (
            not one.has_code and any(path.startswith(PLATFORM) for path in one.paths)
        )
        if not (is_platform or (follows_platform and is_generated_only)):
            kept.append(one)
        follows_platform = is_platform or (follows_platform and is_generated_only)
    return kept[::-1]
