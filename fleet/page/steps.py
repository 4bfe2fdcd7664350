"""The next steps: the worst services with the finding to fix first, and the rules that most services fail."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fleet.check.findings import Finding, Level
from fleet.conventions import Convention
from fleet.page.rows import URGENT, Row, urgency
from fleet.template.release import as_version

# Findings about these subjects are not in files of the template, so that no release fixes them.
OF_THE_TEAM = frozenset({"drift", "map", "waiver"})

# A release is named as the fix only if the probability that all of its services keep the rule by luck is at most this.
LUCK = 0.05

# The number of next steps: as many as one person can keep in view.
STEPS = 5


@dataclass(frozen=True)
class Step:
    """The worst finding of one service, and the other services that have to begin with the same rule."""

    row: Row
    finding: Finding
    others: tuple[Row, ...]


@dataclass(frozen=True)
class Rule:
    """A rule that services fail. `fixed_by` is a release without the fault; `witnesses` counts services that have it."""

    id: str
    reason: str
    urgency: str
    failing: tuple[Row, ...]
    fixed_by: str = ""
    witnesses: int = 0


def steps(ordered: Iterable[Row]) -> list[Step]:
    """Return the next steps, that of the worst service first."""
    together: dict[str, list[Row]] = defaultdict(list)
    for row in ordered:
        if row.first:
            together[row.first.id].append(row)
    return [Step(first, first.first, tuple(others)) for first, *others in together.values() if first.first][:STEPS]


def rules(ordered: Sequence[Row], conventions: Iterable[Convention]) -> list[Rule]:
    """Return each rule that a service fails, the worst first, then the rule that most services fail."""
    reasons = {one.id: one.reason for one in conventions}
    failing: dict[str, list[tuple[Row, Finding]]] = defaultdict(list)
    for row in ordered:
        for finding in {one.id: one for one in reversed(row.findings) if one.level is not Level.WAIVED}.values():
            failing[finding.id].append((row, finding))
    words = ("urgent", *(level.value for level in Level))
    found = [_rule(id_, reasons.get(id_, ""), pairs, ordered) for id_, pairs in failing.items()]
    return sorted(found, key=lambda one: (words.index(one.urgency), -len(one.failing), one.id))


def _rule(id_: str, reason: str, pairs: list[tuple[Row, Finding]], every: Sequence[Row]) -> Rule:
    words = ("urgent", *(level.value for level in Level))
    worst = min((urgency(finding) for _, finding in pairs), key=words.index)
    failing = tuple(row for row, _ in pairs)
    reason = reason or pairs[0][1].why
    if id_ == "template-lag":  # every newer release fixes the lag
        return Rule(id_, reason, worst, failing, failing[0].standing.newest)
    if id_ in URGENT or id_.partition("-")[0] in OF_THE_TEAM:
        return Rule(id_, reason, worst, failing)
    return Rule(id_, reason, worst, failing, *_fixed_by(failing, every))


def _fixed_by(failing: Sequence[Row], every: Sequence[Row]) -> tuple[str, int]:
    """Return the oldest release from which on no service fails the rule, and the number of services with such a release.

    The release is empty if a service of the newest version in use fails the rule, or a service without a known version, or if few
    of the older services fail the rule: then no release is known to fix the rule.
    """
    ids = {row.number for row in failing}
    versions = {row.number: as_version(row.standing.version) for row in every if row.standing.version}
    broken = [versions.get(number) for number in ids]
    newest = max((one for one in broken if one), default=None)
    if None in broken or newest is None:
        return "", 0
    healthy = [row for row in every if (number := versions.get(row.number)) and number > newest]
    older = sum(1 for number in versions.values() if number and number <= newest)
    if not healthy or (1 - len(failing) / older) ** len(healthy) > LUCK:
        return "", 0
    oldest = min(healthy, key=lambda row: versions[row.number] or newest)
    return oldest.standing.version, len(healthy)
