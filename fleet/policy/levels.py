"""The level of each convention, for all services or for a group of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from fleet.policy.reading import Table
from fleet.policy.traits import Traits

LEVELS = ("off", "notice", "warning", "error")
TRAITS = ("domain", "owner", "tier")

# The name for all conventions.
EVERY = "*"


@dataclass(frozen=True)
class Rule:
    """The level of a convention, and the day from which it counts. Before that day the convention is announced."""

    level: str = "error"
    since: date | None = None

    def level_on(self, day: date) -> str:
        return "notice" if self.since and day < self.since else self.level


@dataclass(frozen=True)
class Group:
    """Services by their traits: each trait that is named has to have one of its values."""

    traits: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __str__(self) -> str:
        return " and ".join(f"{name} {' or '.join(values)}" for name, values in self.traits)

    def matches(self, traits: Traits) -> bool:
        return all(_has(name, getattr(traits, name), values) for name, values in self.traits)


@dataclass(frozen=True)
class Scoped:
    """The rule of a convention for a group."""

    convention: str
    group: Group
    rule: Rule

    def covers(self, id_: str, traits: Traits) -> bool:
        return self.convention in (id_, EVERY) and self.group.matches(traits)

    @property
    def weight(self) -> tuple[int, bool]:
        """How specific the rule is: by the number of traits first, and then a name counts more than all conventions."""
        return len(self.group.traits), self.convention != EVERY


def read_group(table: Table) -> Group:
    return Group(tuple((name, table.texts(name)) for name in TRAITS if name in table.values))


def read_rules(table: Table, group: Group) -> Iterator[Scoped]:
    """Read the table `conventions`. Raises FleetError."""
    written = table.table("conventions")
    for id_ in written.check_ids(written.values, wildcard=EVERY):
        yield Scoped(id_, group, _read_rule(written, id_))


def _read_rule(table: Table, id_: str) -> Rule:
    value = table.values[id_]
    if isinstance(value, str):
        value = {"level": value}
    if not isinstance(value, dict):
        raise table.wrong(id_, 'has to be a level, as "warning", or { level = "error", from = 2027-03-01 }')
    one = Table(f"{table.where}: {id_}", value, table.conventions)
    one.allow("level", "from")
    level, since = one.values.get("level"), one.day("from")
    if level not in LEVELS:
        raise one.wrong("level", f"has to be one of {', '.join(LEVELS)}")
    if since and level not in ("warning", "error"):
        raise one.wrong("from", f"announces a warning or an error, and the level is {level}: remove one of them")
    return Rule(level, since)


def _has(name: str, trait: str, values: tuple[str, ...]) -> bool:
    if name != "owner":
        return trait in values
    # A team without its organisation stands for that team of any organisation.
    return bool(trait) and any(value in (trait, trait.lstrip("@")) or value == team(trait) for value in values)


def team(owner: str) -> str:
    """Return the bare name of a team: billing for @acme/billing."""
    return owner.rpartition("/")[2].lstrip("@")
