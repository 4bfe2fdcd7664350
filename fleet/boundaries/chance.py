"""Tell apart services that change together from services whose changes meet by chance.

For each change of a service we ask: if the change had come on another day of the same weeks, how likely would it still have met a
change of the other service? A day on which the change would have met one is a covered day. There are two estimates, and the higher
one counts. The first is the share of covered days among the working days of these weeks: it allows for busy and quiet times, such
as the first months of two services of the same age. The second is the share of the changes of all further services that fall on
covered days: it allows for the habits of the fleet, such as release days, holidays, and changes that go through all services. The
threshold is divided by the number of pairs (Bonferroni).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, combinations

MOST_CHANCE = 0.01
"""The limit for the probability that all comparisons of one kind together show at least one pair by chance."""

FEWEST = 4
"""A pair of services with fewer common changes than this is not reported."""

LEAST_SHARE = 0.5
"""At least this share of the changes of the service with fewer changes has to meet changes of the other service."""

WEEKS = 6
"""A change could also have come on any working day from this many weeks before it to this many weeks after it."""

FEWEST_OTHERS = 8
FEWEST_ELSEWHERE = 20
"""The second estimate needs this many further services, and this many changes of further services in the same weeks."""


@dataclass(frozen=True)
class Series:
    """The changes of one service, as numbers of working days in order. Two changes are further apart than the tolerance."""

    name: str
    days: tuple[int, ...]
    begin: int


@dataclass(frozen=True)
class Coincidence:
    """Two services that change together. `pairs` are the days of the changes that met.

    Chance alone would make `expected` such pairs of days, and at least as many as there are with the probability `chance`.
    `compared` is the number of pairs of services that were compared.
    """

    names: tuple[str, str]
    pairs: tuple[tuple[int, int], ...]
    numbers: tuple[int, int]
    expected: float
    chance: float
    compared: int = 0


def episodes(days: Iterable[int], tolerance: int) -> tuple[int, ...]:
    """Leave out each day that follows a kept day within the tolerance: several commits for one change are one change."""
    kept: list[int] = []
    for day in sorted(days):
        if not kept or day - kept[-1] > tolerance:
            kept.append(day)
    return tuple(kept)


class Fleet:
    """The changes of all services between two working days."""

    def __init__(self, series: Sequence[Series], first: int, last: int, tolerance: int) -> None:
        self.first, self.last, self.tolerance = first, last, tolerance
        self.series = {one.name: one for one in series}
        self._pool = [0] * (last - first + 1)
        for one in series:
            for day in one.days:
                self._pool[day - first] += 1
        self._others = sum(bool(one.days) for one in series) - 2
        self._covers = {one.name: self._cover(one) for one in series if len(one.days) >= FEWEST}

    def _cover(self, one: Series) -> tuple[list[int], list[int]]:
        """Return running sums over the working days: of covered days, and of the fleet's changes on covered days."""
        covered = [0] * len(self._pool)
        for day in one.days:
            start = max(day - self.tolerance - self.first, 0)
            for at in range(start, min(day + self.tolerance - self.first + 1, len(covered))):
                covered[at] = 1
        changes = [count if is_covered else 0 for count, is_covered in zip(self._pool, covered, strict=True)]
        return [0, *accumulate(covered)], [0, *accumulate(changes)]

    @cached_property
    def _changes(self) -> list[int]:
        return [0, *accumulate(self._pool)]

    def coincidences(self, linked: set[frozenset[str]]) -> Iterator[Coincidence]:
        """Find the services that change together. Half of MOST_CHANCE is for `linked` pairs, which are few and more likely."""
        pairs = [frozenset(pair) for pair in combinations(self._covers, 2)]
        number = {is_linked: sum((pair in linked) is is_linked for pair in pairs) for is_linked in (True, False)}
        for one, other in combinations(self._covers, 2):
            most = MOST_CHANCE / 2 / number[frozenset((one, other)) in linked]
            if (found := self._compare(self.series[one], self.series[other])) and found.chance <= most:
                yield replace(found, compared=len(pairs))

    def _compare(self, one: Series, other: Series) -> Coincidence | None:
        begin = max(one.begin, other.begin)
        days = [[day for day in series.days if day >= begin] for series in (one, other)]
        pairs = _matched(*days, self.tolerance)
        fewer = min(map(len, days))
        if len(pairs) < max(FEWEST, LEAST_SHARE * fewer):
            return None
        chances = [self._chances(days[0], other, one, begin), self._chances(days[1], one, other, begin)]
        tails = [_at_least(len(pairs), each) for each in chances]
        expected = max(sum(each) for each in chances)
        return Coincidence(
            (one.name, other.name), tuple(pairs), (len(days[0]), len(days[1])), round(expected, 1), max(tails)
        )

    def _chances(self, days: Sequence[int], of: Series, mover: Series, begin: int) -> list[float]:
        return [self._chance(day, of, mover, begin) for day in days]

    def _chance(self, day: int, of: Series, mover: Series, begin: int) -> float:
        """Estimate how likely a change of `mover` in the weeks around this day meets a change of the other service."""
        low, high = max(begin, day - 5 * WEEKS), min(self.last, day + 5 * WEEKS)
        start, end = low - self.first, high - self.first + 1
        covered, covered_changes = self._covers[of.name]
        local = (covered[end] - covered[start]) / (end - start)
        if self._others < FEWEST_OTHERS:
            return local
        nearby = mover.days[bisect_left(mover.days, low) : bisect_right(mover.days, high)]
        own = bisect_right(of.days, high) - bisect_left(of.days, low)
        met = sum(covered[at - self.first + 1] - covered[at - self.first] for at in nearby)
        elsewhere = self._changes[end] - self._changes[start] - own - len(nearby)
        if elsewhere < FEWEST_ELSEWHERE:
            return local
        return max(local, (covered_changes[end] - covered_changes[start] - own - met) / elsewhere)


def _matched(ours: Sequence[int], theirs: Sequence[int], tolerance: int) -> list[tuple[int, int]]:
    """Pair the days that are at most `tolerance` apart. Each day is in one pair at most."""
    pairs = []
    at = 0
    for day in ours:
        while at < len(theirs) and theirs[at] < day - tolerance:
            at += 1
        if at < len(theirs) and theirs[at] <= day + tolerance:
            pairs.append((day, theirs[at]))
            at += 1
    return pairs


def _at_least(number: int, chances: Sequence[float]) -> float:
    """Return the probability that at least `number` events happen, independent but of different chances (Poisson binomial)."""
    exactly = [1.0] + [0.0] * number  # the chances of 0, 1, 2, … events; the last entry is for `number` or more
    for chance in chances:
        exactly[number] += exactly[number - 1] * chance
        for count in range(number - 1, 0, -1):
            exactly[count] += (exactly[count - 1] - exactly[count]) * chance
        exactly[0] *= 1 - chance
    return exactly[number]


def share_below(spanning: int, number: int, chance: float) -> float:
    """Return the highest share that is still likely, if `spanning` of `number` have a property (Clopper and Pearson)."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        fewer = 1 - _at_least(spanning + 1, [middle] * number)
        low, high = (middle, high) if fewer > chance else (low, middle)
    return high
