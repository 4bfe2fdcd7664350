"""How fast the services took each release."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache

from fleet.history.days import Day
from fleet.template.release import as_version

# A release counts as adopted once this share of the services that can be read has it, or a later one.
ADOPTED = 0.8

# Each version is parsed once, because hundreds of days have the same few versions.
_number = cache(as_version)


@dataclass(frozen=True)
class Adoption:
    """The adoption of one release. `shares` has the share of services with this release or a later one for each day."""

    version: str
    published: date
    shares: tuple[tuple[date, float], ...]

    @property
    def share(self) -> float:
        """The share on the last day."""
        return self.shares[-1][1]

    @property
    def days(self) -> int | None:
        """The days from the publication until ADOPTED; None if that has not happened yet.

        The day of the first record with such a share counts. If days before it are missing, the result is an upper bound.
        """
        reached = next((day for day, share in self.shares if share >= ADOPTED), None)
        return None if reached is None else max((reached - self.published).days, 0)

    @property
    def is_upper_bound(self) -> bool:
        """Return whether the release had been adopted before its first record."""
        return self.shares[0][1] >= ADOPTED and self.shares[0][0] > self.published


def adoptions(days: Sequence[Day]) -> list[Adoption]:
    """Return the adoption of each release that was the newest on some day, the newest release first."""
    published: dict[str, date] = {}
    for day in days:
        published |= day.releases
    known = {version: number for version in published if (number := _number(version))}
    counts = [(day.day, Counter(one.version for one in day.services.values() if one.is_readable)) for day in days]
    return [
        Adoption(version, published[version], shares)
        for version in sorted(known, key=lambda one: known[one], reverse=True)
        if (shares := tuple(_shares(version, published[version], counts)))
    ]


def _shares(version: str, published: date, counts: Iterable[tuple[date, Counter[str]]]) -> Iterator[tuple[date, float]]:
    wanted = _number(version)
    assert wanted is not None
    for day, versions in counts:
        if versions and day >= published:
            having = sum(times for name, times in versions.items() if (number := _number(name)) and number >= wanted)
            yield day, having / versions.total()
