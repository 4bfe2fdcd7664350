"""The changes between two days of the history, the worst first."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fleet.history.days import Day, Entry
from fleet.status.show import STATES


@dataclass(frozen=True)
class Change:
    """One change, and the services that it happened to. `tone` is worse, better or other."""

    tone: str
    text: str
    services: tuple[str, ...]


Pair = tuple[Entry, Entry]


def changes(before: Day, after: Day) -> list[Change]:
    """Compare two days: first the changes for the worse, then those for the better, the most services first."""
    pairs = {name: (before.services[name], one) for name, one in after.services.items() if name in before.services}
    readable = {name: pair for name, pair in pairs.items() if all(one.is_readable for one in pair)}
    found = [
        *_where(pairs, lambda old, new: old.is_readable and not new.is_readable, "worse", "unreadable now"),
        *_conventions(readable),
        *_where(readable, lambda old, new: new.drift > old.drift, "worse", "more drift"),
        *_where(readable, lambda old, new: new.void > old.void, "worse", "a waiver became void"),
        *_where(readable, _is_otherwise_worse, "worse", "a worse state"),
        *_where(pairs, lambda old, new: new.is_readable and not old.is_readable, "better", "readable again"),
        *_where(readable, lambda old, new: new.state == "in order" != old.state, "better", "in order now"),
        *_where(readable, lambda old, new: new.drift < old.drift, "better", "less drift"),
        *_versions(readable),
        *_named("other", "new in the fleet", sorted(after.services.keys() - before.services.keys())),
        *_named("other", "gone from the fleet", sorted(before.services.keys() - after.services.keys())),
    ]
    tones = ("worse", "better", "other")
    return sorted(found, key=lambda one: (tones.index(one.tone), -len(one.services)))


def _conventions(pairs: dict[str, Pair]) -> Iterator[Change]:
    broken, kept = defaultdict(list), defaultdict(list)
    for name, (old, new) in pairs.items():
        for id_ in new.failed.keys() - old.failed.keys():
            broken[id_].append(name)
        for id_ in old.failed.keys() - new.failed.keys():
            kept[id_].append(name)
    for id_, names in sorted(broken.items()):
        yield from _named("worse", f"{id_} fails", names)
    for id_, names in sorted(kept.items()):
        yield from _named("better", f"{id_} holds again", names)


def _versions(pairs: dict[str, Pair]) -> Iterator[Change]:
    taken = defaultdict(list)
    for name, (old, new) in pairs.items():
        if new.version != old.version:
            taken[new.version].append(name)
    for version, names in sorted(taken.items()):
        yield from _named("other", f"now at {version}", names)


def _is_otherwise_worse(old: Entry, new: Entry) -> bool:
    """Return whether the state is worse for a reason that no other change shows, such as an error of the map."""
    explained = new.failed.keys() - old.failed.keys() or new.drift > old.drift or new.void > old.void
    return STATES.index(new.state) > STATES.index(old.state) and not explained


def _where(pairs: dict[str, Pair], holds: Callable[[Entry, Entry], bool], tone: str, text: str) -> Iterator[Change]:
    yield from _named(tone, text, [name for name, pair in pairs.items() if holds(*pair)])


def _named(tone: str, text: str, services: list[str]) -> Iterator[Change]:
    if services:
        yield Change(tone, text, tuple(services))
