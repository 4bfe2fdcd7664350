"""A question about a boundary, with its evidence."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from fleet.boundaries.days import quarter, quarters
from fleet.boundaries.decision import Quote
from fleet.boundaries.past import Past

MOST_EVIDENCE = 12
"""The most repetitions that a question shows as evidence, because nobody reads more. The trend counts all repetitions."""


@dataclass(frozen=True)
class Evidence:
    """One commit, tag, file or trace of a service. `day` is empty if the source has no day."""

    service: str
    day: str
    id: str
    what: str


@dataclass(frozen=True)
class Record:
    """An answer of a service in its decision 0001."""

    service: str
    quote: Quote | None


@dataclass(frozen=True)
class Question:
    """`what` was found, and what to `ask`. `base` states what chance or the rest of the fleet would show.

    `evidence` has the newest repetitions, each with its commits. `trend` counts all repetitions by quarter.
    """

    id: str
    services: tuple[str, ...]
    what: str
    base: str
    ask: str
    evidence: tuple[tuple[Evidence, ...], ...] = ()
    trend: Mapping[str, int] | None = None
    records: tuple[Record, ...] = ()


def trend(days: Iterable[date], first: date, last: date) -> dict[str, int]:
    """Count how many of the days lie in each quarter of the calendar from `first` to `last`."""
    counts = dict.fromkeys(quarters(first, last), 0)
    for name in map(quarter, days):
        if name in counts:
            counts[name] += 1
    return counts


def records(pasts: Iterable[Past], name: str) -> tuple[Record, ...]:
    return tuple(Record(one.name, one.record.get(name)) for one in pasts)
