"""Find services whose aggregates change apart."""

from collections.abc import Iterator, Mapping
from datetime import date
from itertools import combinations
from statistics import median

from fleet.boundaries.chance import MOST_CHANCE, share_below
from fleet.boundaries.decision import TEAM
from fleet.boundaries.past import Change, Past, within
from fleet.boundaries.questions import MOST_EVIDENCE, Evidence, Question, records, trend

FEWEST_COMMITS = 20
MOST_SHARED = 0.25
"""Two parts change apart if at most this share of the commits to the part with fewer commits also changes the other part."""

ONE_PART = 0.1
"""Aggregates count as one part if they have more than this share of their commits in common."""

FEWEST_OTHERS = 5


def splits(pasts: Mapping[str, Past], window: tuple[date, date]) -> Iterator[Question]:
    """Find the candidates. The habit of the fleet is the measure: where all commits are small, all parts seem to be apart."""
    halves = {name: found for name, past in pasts.items() if (found := _halves(within(past.code, window)))}
    habits = {name: share for name, past in pasts.items() if (share := _habit(within(past.code, window))) is not None}
    for name, (parts, (one, other)) in halves.items():
        others = [share for service, share in habits.items() if service != name]
        usual = median(others) if len(others) >= FEWEST_OTHERS else None
        most = MOST_SHARED if usual is None else min(MOST_SHARED, usual)
        if share_below(len(one & other), min(len(one), len(other)), MOST_CHANCE / len(halves)) < most:
            yield _question(pasts[name], parts, (one, other), usual, most, window)


def _habit(code: list[Change]) -> float | None:
    """Return the share of commits to aggregates that change several aggregates; None if the service has only one."""
    numbers = [len(one.parts) for one in code if one.parts]
    if len({part for one in code for part in one.parts}) < 2 or len(numbers) < FEWEST_COMMITS:
        return None
    return sum(number > 1 for number in numbers) / len(numbers)


def _halves(code: list[Change]) -> tuple[tuple[str, str], tuple[set[str], set[str]]] | None:
    """Return the two largest parts with their commits, once aggregates that often change together are one part."""
    groups: list[tuple[set[str], set[str]]] = []
    names = sorted({part for one in code for part in one.parts})
    for name in names:
        commits = {one.commit for one in code if name in one.parts}
        groups.append(({name}, commits))
    while pair := next(
        ((one, other) for one, other in combinations(groups, 2) if _share(one[1], other[1]) > ONE_PART), None
    ):
        groups = [group for group in groups if group not in pair]
        groups.append((pair[0][0] | pair[1][0], pair[0][1] | pair[1][1]))
    largest = sorted(groups, key=lambda group: -len(group[1]))[:2]
    if len(largest) < 2 or len(largest[1][1]) < FEWEST_COMMITS:
        return None
    return (", ".join(sorted(largest[0][0])), ", ".join(sorted(largest[1][0]))), (largest[0][1], largest[1][1])


def _share(one: set[str], other: set[str]) -> float:
    return len(one & other) / min(len(one), len(other))


def _question(
    past: Past,
    parts: tuple[str, str],
    commits: tuple[set[str], set[str]],
    usual: float | None,
    most: float,
    window: tuple[date, date],
) -> Question:
    both = commits[0] & commits[1]
    of_part = [[one for one in past.code if one.commit in each] for each in commits]
    people = [{one.by for one in each} for each in of_part]
    shared = people[0] & people[1]
    habit = (
        f"in half of the other services more than {usual:.0%} of the commits change several aggregates"
        if usual is not None
        else "there are too few other services to know what is usual"
    )
    return Question(
        "boundary-split",
        (past.name,),
        f"of {len(commits[0])} commits to {parts[0]} and {len(commits[1])} to {parts[1]}, {len(both)} changed both; "
        f"{len(people[0] - shared)} and {len(people[1] - shared)} people changed one of them only, and {len(shared)} both",
        f"the share of common commits is below {most:.0%}, with a certainty of {1 - MOST_CHANCE:.0%} for all services together; {habit}",
        "Do two teams work here, or does one part wait for the other at a release? Then one part may become a service. If the same people "
        "change both, the parts are good modules, and stay together.",
        tuple(
            (Evidence(past.name, one.day.isoformat(), one.commit[:10], f"{part}: {one.what}"),)
            for part, each in zip(parts, of_part, strict=True)
            for one in each[-MOST_EVIDENCE // 2 :]
        ),
        trend((one.day for each in of_part for one in each if one.day >= window[0]), *window),
        records((past,), TEAM),
    )
