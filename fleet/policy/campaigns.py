"""Campaigns: what the services of a group are to reach, and by when."""

import re
from dataclasses import dataclass, field
from datetime import date

from fleet.errors import FleetError
from fleet.policy.levels import TRAITS, Group, read_group
from fleet.policy.maturity import Maturity
from fleet.policy.reading import Table, suggest
from fleet.template.release import as_version

GOALS = ("version", "conventions", "maturity")
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,49}")


@dataclass(frozen=True)
class Campaign:
    """One campaign. Exactly one of version, conventions and maturity is the goal."""

    name: str
    by: date
    why: str = ""
    ask: str = ""
    version: str = ""
    conventions: tuple[str, ...] = ()
    maturity: str = ""
    group: Group = field(default_factory=Group)

    @property
    def goal(self) -> str:
        """The goal for people, as the end of a sentence."""
        if self.version:
            return f"be at version {self.version} of the template, or a later version"
        if self.maturity:
            return f"reach the level {self.maturity}"
        return f"keep {', '.join(self.conventions)}"


def read_campaigns(tables: list[Table], levels: tuple[Maturity, ...]) -> tuple[Campaign, ...]:
    """Read the campaigns in their order. Raises FleetError."""
    found: list[Campaign] = []
    for table in tables:
        one = _read(table, levels)
        if one.name in [other.name for other in found]:
            raise FleetError(f"{table.where}: {one.name} is the name of two campaigns: give one of them another name")
        found.append(one)
    return tuple(found)


def _read(table: Table, levels: tuple[Maturity, ...]) -> Campaign:
    table.allow("name", "by", "why", "ask", *GOALS, *TRAITS)
    name = table.text("name", is_required=True)
    if not NAME.fullmatch(name):
        raise table.wrong("name", "has to be in kebab-case, as typed-clients, of at most 50 characters")
    if not (by := table.day("by")):
        raise table.wrong("by", "has to be the day by which the goal is to be reached, as 2027-03-01")
    if len([goal for goal in GOALS if goal in table.values]) != 1:
        raise FleetError(f"{table.where} ({name}) needs exactly one goal: write one of {', '.join(GOALS)}")
    version, maturity = table.text("version"), table.text("maturity")
    if "version" in table.values and not as_version(version):
        raise table.wrong("version", "has to be a version of the template, as v1.2.0")
    names = [level.name for level in levels]
    if "maturity" in table.values and maturity not in names:
        raise table.wrong("maturity", f"has to be the name of a [[maturity]]{suggest(maturity, names)}")
    conventions = table.check_ids(table.texts("conventions"))
    return Campaign(name, by, table.text("why"), table.text("ask"), version, conventions, maturity, read_group(table))
