"""Group the services of a map into cards: one for each domain, or for each team where all services have one domain."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fleet.map.facts import Facts
from fleet.map.model import Map

MOST_ROWS = 14
"""A domain with more services has several cards, because a long card would make the whole drawing tall."""

MOST_ALONE = 40
"""More services without domains and owners stand on common cards, whose titles can be read in a small drawing."""

OUTSIDE = "outside of this fleet"


@dataclass(frozen=True)
class Card:
    """Services that are drawn below each other. A card without a title has one service. `group` is the title of all its cards."""

    title: str
    names: tuple[str, ...]
    group: str = ""
    is_outside: bool = False


def cards(map_: Map) -> list[Card]:
    """Return all nodes of the map on cards, in the order of titles and names."""
    outside = sorted(name for name, is_service in map_.nodes.items() if not is_service)
    return [*_of_services(map_.services.values()), *_split(OUTSIDE, outside, is_outside=True)]


def _of_services(services: Iterable[Facts]) -> list[Card]:
    by: tuple[Callable[[Facts], str], ...] = (lambda one: one.domain, lambda one: one.owner)
    for key in by:
        groups: dict[str, list[str]] = {}
        for one in services:
            groups.setdefault(key(one), []).append(one.name)
        if len(groups) > 1:
            titles = sorted(groups, key=lambda title: (not title, title))
            return [card for title in titles for card in _split(title or "without a domain", sorted(groups[title]))]
    names = [one.name for one in services]
    return [Card("", (name,)) for name in names] if len(names) <= MOST_ALONE else _split("services", sorted(names))


def _split(title: str, names: list[str], *, is_outside: bool = False) -> list[Card]:
    parts = -(-len(names) // MOST_ROWS)
    size = -(-len(names) // parts) if parts else 0
    return [
        Card(
            f"{title} ({number + 1} of {parts})" if parts > 1 else title,
            tuple(names[number * size : (number + 1) * size]),
            title,
            is_outside,
        )
        for number in range(parts)
    ]


def grouped(all_cards: Iterable[Card]) -> dict[str, list[str]]:
    """Return the names of each group."""
    groups: dict[str, list[str]] = {}
    for card in all_cards:
        groups.setdefault(card.group or "services", []).extend(card.names)
    return groups
