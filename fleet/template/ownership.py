"""Find the owner of a path: the team if the path is on the list in ownership/service-owned.yml, the platform otherwise."""

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

# Folders in which a file that the template does not have is drift too. In other folders such a file is the team's: a workflow
# next to the platform's, local.mk, uv.lock.
PLATFORM_FOLDERS = ("chassis/", "deploy/base/")


class Owner(StrEnum):
    """The owner of a path. Every path has exactly one owner."""

    TEAM = "team"
    PLATFORM = "platform"


class Ownership:
    """The list of the team's paths in one template version."""

    def __init__(self, patterns: Iterable[str]) -> None:
        # Copier reads _skip_if_exists in the same way: as .gitignore patterns, in this Unicode form.
        self.patterns = [normalize("NFD", pattern) for pattern in patterns]

    @classmethod
    def of(cls, template: Path) -> "Ownership":
        """Read the list of a template version in a folder. Raises FleetError."""
        try:
            return cls(yaml.safe_load((template / LIST).read_text()))
        except FileNotFoundError:
            raise FleetError(
                f"this version of the template has no {LIST}, which lists the files of the team: choose another version"
            ) from None

    @cached_property
    def _owners(self) -> dict[str, Owner]:
        return {}

    @cached_property
    def _team(self) -> "PathSpec":
        # Imported here, because a check that finds its manifest in the cache does not need it.
        from pathspec import PathSpec

        return PathSpec.from_lines("gitignore", self.patterns)

    def owner_of(self, path: str) -> Owner:
        """Return the owner of a path, relative to the service's root. A folder's path ends in /."""
        if path not in self._owners:  # most paths are the same in each service
            self._owners[path] = Owner.TEAM if self._team.match_file(path) else Owner.PLATFORM
        return self._owners[path]
