"""Levels of maturity: sets of conventions. A service has the highest level of which it keeps all conventions."""

from collections.abc import Iterable
from dataclasses import dataclass

from fleet.errors import FleetError
from fleet.policy.levels import EVERY
from fleet.policy.reading import Table


@dataclass(frozen=True)
class Maturity:
    """One level: the conventions that it asks for, without the conventions of the lower levels."""

    name: str
    conventions: tuple[str, ...]

    def lacks(self, broken: Iterable[str]) -> list[str]:
        """Return the broken conventions that the level asks for."""
        return [one for one in broken if one in self.conventions or EVERY in self.conventions]


def read_maturity(tables: list[Table]) -> tuple[Maturity, ...]:
    """Read the levels, the lowest first. Raises FleetError."""
    found: list[Maturity] = []
    for table in tables:
        table.allow("name", "conventions")
        name = table.text("name", is_required=True)
        if name in [one.name for one in found]:
            raise FleetError(f"{table.where}: {name} is the name of two levels: give one of them another name")
        if not (conventions := table.check_ids(table.texts("conventions"), wildcard=EVERY)):
            raise table.wrong("conventions", f'has to list what the level asks for, or "{EVERY}" for all')
        found.append(Maturity(name, conventions))
    return tuple(found)


def find_level(levels: Iterable[Maturity], broken: Iterable[str]) -> str | None:
    """Return the name of the highest level that is met with all levels below it; None if the lowest is not met."""
    name = None
    for level in levels:
        if level.lacks(broken):
            break
        name = level.name
    return name
