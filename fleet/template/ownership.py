"""Who owns a path: the team, if it is on the one list in ownership/service-owned.yml; the platform otherwise."""

from collections.abc import Iterable
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import normalize

import yaml

from fleet.errors import FleetError

if TYPE_CHECKING:
    from pathspec import PathSpec

LIST = Path("ownership/service-owned.yml")

# Folders in which a file that the template does not have is drift too. Elsewhere it is the team's: a workflow beside
# ours, local.mk, uv.lock.
PLATFORM_FOLDERS = ("chassis/", "deploy/base/")


class Owner(StrEnum):
    """Every path has exactly one."""

    TEAM = "team"
    PLATFORM = "platform"


class Ownership:
    """The list of one template version."""

    def __init__(self, patterns: Iterable[str]) -> None:
        # As Copier does it for _skip_if_exists: .gitignore patterns, in this Unicode form.
        self.patterns = [normalize("NFD", pattern) for pattern in patterns]

    @classmethod
    def of(cls, template: Path) -> "Ownership":
        """The list of a template that lies in a folder. Raises FleetError."""
        try:
            return cls(yaml.safe_load((template / LIST).read_text()))
        except FileNotFoundError:
            raise FleetError(f"this version of the template has no {LIST}: fleet cannot tell whose a file is") from None

    @cached_property
    def _team(self) -> "PathSpec":
        # Here, because a check that finds its manifest in the cache does without.
        from pathspec import PathSpec

        return PathSpec.from_lines("gitignore", self.patterns)

    def owner_of(self, path: str) -> Owner:
        """The owner of a path, relative to the service's root. A folder's path ends in /."""
        return Owner.TEAM if self._team.match_file(path) else Owner.PLATFORM
