"""Find pairs of services whose contracts change together, and pairs that are deployed together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from fleet.boundaries.chance import FEWEST, MOST_CHANCE, Coincidence, Fleet, Series, episodes
from fleet.boundaries.days import working_day
from fleet.boundaries.decision import TEAM
from fleet.boundaries.past import Change, Past, within
from fleet.boundaries.questions import MOST_EVIDENCE, Evidence, Question, records, trend


@dataclass(frozen=True)
class Kind:
    """A kind of change that two services may make together. `tolerance` is in working days."""

    id: str
    field: str
    tolerance: int
    noun: str
    did: str
    when: str
    ask: str


CONTRACTS = Kind(
    "boundary-contracts-together",
    "contracts",
    2,
    "change of its contracts",
    "changed their contracts together",
    "within two working days of each other",
    "Is there one reason that changes both? Then the rule or the data behind it is in two places: should one of the services own it, "
    "or should both be one service? Or does one copy a part of the other's contract that it does not need?",
)
DEPLOYMENTS = Kind(
    "boundary-lockstep",
    "deployments",
    0,
    "deployment",
    "were deployed together",
    "on the same working day",
    "Could each of the two have been deployed a week before the other? If not, what in the contract between them stands in the way? "
    "If nothing does, who or what deploys them together?",
)


def together(
    kind: Kind, pasts: Mapping[str, Past], linked: set[frozenset[str]], window: tuple[date, date]
) -> Iterator[Question]:
    """Find the pairs of a kind, most repetitions first. `linked` pairs call each other or exchange messages."""
    first, last = map(working_day, window)
    changes = {
        name: {working_day(one.day): one for one in reversed(within(getattr(past, kind.field), window))}
        for name, past in pasts.items()
    }
    series = [
        Series(name, episodes(changes[name], kind.tolerance), max(working_day(past.begin), first))
        for name, past in pasts.items()
    ]
    found = Fleet(series, first, last, kind.tolerance).coincidences(linked)
    for one in sorted(found, key=lambda one: (-len(one.pairs), one.names)):
        yield _question(kind, one, changes, pasts, window)


def _question(
    kind: Kind,
    found: Coincidence,
    changes: Mapping[str, Mapping[int, Change]],
    pasts: Mapping[str, Past],
    window: tuple[date, date],
) -> Question:
    pairs = [tuple(changes[name][day] for name, day in zip(found.names, pair, strict=True)) for pair in found.pairs]
    counted = " and ".join(f"{number} of {name}" for name, number in zip(found.names, found.numbers, strict=True))
    times = f"{len(pairs)} times {kind.when}"
    return Question(
        kind.id,
        found.names,
        f"{' and '.join(found.names)} {kind.did} {times}, of {counted} in their common time",
        f"by chance {found.expected:g} times would be expected; {found.compared:,} pairs were compared, the fewest times that count are "
        f"{FEWEST}, and all pairs together show a result of chance in {MOST_CHANCE:.0%} of such fleets",
        kind.ask,
        tuple(
            tuple(
                Evidence(name, one.day.isoformat(), one.commit[:10], one.what)
                for name, one in zip(found.names, pair, strict=True)
            )
            for pair in pairs[-MOST_EVIDENCE:]
        ),
        trend((max(one.day for one in pair) for pair in pairs), *window),
        records((pasts[name] for name in found.names), TEAM),
    )
