"""The owners of the services, and the file of each owner's page."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from fleet.page.rows import Row

# The names of the pages that `fleet` writes for owners. Fleet removes such a page when its owner has no services any more.
FILE = re.compile(r"team-[a-z0-9-]{0,40}-[0-9a-f]{8}\.html")


@dataclass(frozen=True)
class Team:
    """An owner with the services, the worst first. An empty name stands for services without an owner."""

    owner: str
    rows: tuple[Row, ...]

    @property
    def file(self) -> str:
        """The name of the owner's page. The digest distinguishes owners whose letters and digits are the same."""
        letters = re.sub(r"[^a-z0-9]+", "-", self.owner.lower()).strip("-")[:40]
        return f"team-{letters}-{hashlib.sha256(self.owner.encode(errors='replace')).hexdigest()[:8]}.html"

    def number_of(self, state: str) -> int:
        return sum(row.word == state for row in self.rows)

    @property
    def behind(self) -> int:
        return sum(bool(row.standing.releases_behind) for row in self.rows)

    @property
    def worst(self) -> Row:
        return self.rows[0]


def teams(ordered: Iterable[Row]) -> list[Team]:
    """Group the services by owner, the owner of the worst service first. The result is empty if no service has an owner."""
    owned: dict[str, list[Row]] = defaultdict(list)
    for row in ordered:
        owned[row.standing.owner].append(row)
    return [Team(owner, tuple(rows)) for owner, rows in owned.items()] if any(owned) else []
