"""A service on the page: its standing, its place in the order of urgency, and its links."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

from fleet.check.findings import Finding, Level
from fleet.check.standing import Standing
from fleet.output import count
from fleet.service.forges import Forge, forge
from fleet.status.show import word

# The states of a service, the worst state last.
STATES = ("in order", "warning", "unreadable", "breach")

# A published secret does harm until it is replaced. Every other error can wait for the next working day.
URGENT = frozenset({"supply-no-secrets", "supply-settings-secrets", "deploy-no-secrets"})

# The beginnings of ids, ordered by whom a fault harms: customers and other services first, readers of the repository last.
REACH = (
    *("supply", "code", "migration", "event", "http", "map", "setting", "image", "deploy", "workflow"),
    *("tests", "drift", "waiver", "owner", "docs", "template"),
)


def urgency(finding: Finding) -> str:
    """Return the word for how much a finding matters: urgent, error, warning, notice or waived."""
    return "urgent" if finding.level is Level.ERROR and finding.id in URGENT else finding.level.value


def _rank(finding: Finding) -> tuple[int, int, str]:
    words = ("urgent", *(level.value for level in Level))
    subject = finding.id.partition("-")[0]
    return words.index(urgency(finding)), REACH.index(subject) if subject in REACH else 0, finding.id


@dataclass(frozen=True)
class Row:
    """A service on the page. `number` is part of its anchors."""

    number: int
    standing: Standing
    forge: Forge

    @property
    def word(self) -> str:
        return word(self.standing)

    @cached_property
    def findings(self) -> list[Finding]:
        """All findings, the worst first."""
        return sorted(self.standing.findings, key=_rank)

    @cached_property
    def listed(self) -> list[tuple[Finding, bool]]:
        """All findings, the worst first, and whether each is the first of its rule, which links lead to."""
        first = {one.id: place for place, one in reversed(list(enumerate(self.findings)))}
        return [(one, first[one.id] == place) for place, one in enumerate(self.findings)]

    @cached_property
    def _of_the_map(self) -> frozenset[Finding]:
        return frozenset(self.standing.neighbours)

    @cached_property
    def numbers(self) -> Counter[str]:
        """The number of conventions and other rules that fail, by urgency."""
        return Counter({one.id: urgency(one) for one in reversed(self.findings)}.values())

    @property
    def first(self) -> Finding | None:
        """The finding to fix first."""
        return self.findings[0] if self.findings and self.findings[0].level is not Level.WAIVED else None

    @property
    def is_urgent(self) -> bool:
        return bool(self.numbers["urgent"])

    @property
    def order(self) -> tuple[object, ...]:
        """The key by which services are sorted: the worst service comes first."""
        words = ("urgent", "error", "warning", "notice")
        numbers = [self.numbers[one] for one in words]
        worst = next((place for place, number in enumerate(numbers) if number), len(words))
        most_first = (*(-number for number in numbers), -self.standing.days_behind)
        return -STATES.index(self.word), worst, self._tier, *most_first, self.standing.name

    @property
    def _tier(self) -> float:
        """The tier as a number, of which 1 matters most. A tier in words has no order, and comes last."""
        return float(self.standing.tier) if self.standing.tier.isdecimal() else inf

    @property
    def tally(self) -> str:
        """Return the number of findings of each level in words."""
        numbers = Counter(one.level for one in self.findings)
        words = [count(numbers[level], level.value) for level in Level if numbers[level] and level is not Level.WAIVED]
        return ", ".join([*words, *([f"{numbers[Level.WAIVED]} waived"] if numbers[Level.WAIVED] else [])])

    @property
    def traits(self) -> dict[str, str]:
        return {"owner": self.standing.owner, "domain": self.standing.domain, "tier": self.standing.tier}

    @cached_property
    def heat(self) -> dict[str, tuple[str, int, str]]:
        """The mark of each rule with findings: urgency, number of findings, and the first reason."""
        ids = Counter(one.id for one in self.findings)
        first = {one.id: one for one in reversed(self.findings)}
        return {id_: (urgency(first[id_]), number, first[id_].reason) for id_, number in ids.items()}

    def remedy_of(self, rule: str) -> str:
        return next((one.remedy for one in self.findings if one.id == rule), "")

    def link(self, finding: Finding) -> str:
        """Return the address of the finding's line at the forge. A finding of the map may be about another repository."""
        if not finding.path or finding in self._of_the_map:
            return ""
        return self.forge.link(self.standing.commit, finding.path, finding.line)


def rows(standings: Sequence[Standing], kinds: Mapping[str, str]) -> list[Row]:
    """Return the rows, the worst first. Their numbers follow the order of fleet.toml."""
    made = (Row(number, standing, forge(standing.address, kinds)) for number, standing in enumerate(standings, 1))
    return sorted(made, key=lambda one: one.order)
