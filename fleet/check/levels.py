"""Apply the levels of the policy to what the conventions have found."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date

from fleet.check.findings import Finding, Level
from fleet.check.standing import Standing
from fleet.conventions import conventions
from fleet.policy.maturity import find_level
from fleet.policy.policy import Policy
from fleet.policy.traits import Traits


def known_conventions() -> frozenset[str]:
    """Return the ids of all conventions."""
    return frozenset(one.id for one in conventions())


def apply_levels(findings: Iterable[Finding], policy: Policy, traits: Traits, day: date) -> Iterator[Finding]:
    """Yield the findings with the levels of that day, without findings of conventions that are off."""
    known = known_conventions() if policy.rules else frozenset()
    for finding in findings:
        if finding.id not in known:
            yield finding
            continue
        rule = policy.rule(finding.id, traits)
        if (level := rule.level_on(day)) == "off":
            continue
        since = rule.since.isoformat() if rule.since else None
        waived = finding.level is Level.WAIVED
        yield finding if waived else replace(finding, level=Level(level), since=since)


def traits_of(standing: Standing) -> Traits:
    """Return the traits by which the policy groups services."""
    return Traits(standing.owner, standing.domain, standing.tier)


def apply_policy(standing: Standing, policy: Policy, day: date) -> Standing:
    """Return a standing with the levels of the policy and with its maturity."""
    if standing.unreadable:
        return standing
    traits = traits_of(standing)
    # For maturity a broken convention counts as broken, whatever its level is, and also if a waiver covers the finding.
    known = known_conventions() if policy.maturity or policy.rules else frozenset()
    broken = [id_ for id_ in dict.fromkeys(one.id for one in standing.conventions) if id_ in known]
    name = find_level(policy.maturity, broken)
    names = [None, *(one.name for one in policy.maturity)]
    following = policy.maturity[names.index(name) :][:1]
    return replace(
        standing,
        conventions=tuple(apply_levels(standing.conventions, policy, traits, day)),
        maturity=name,
        next_maturity=following[0].name if following else None,
        lacks=tuple(following[0].lacks(broken)) if following else (),
        off=tuple(id_ for id_ in broken if policy.rule(id_, traits).level_on(day) == "off"),
    )
