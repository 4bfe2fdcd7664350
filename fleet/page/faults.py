"""The errors of the map at the beginning of the page: who breaks whom."""

from collections.abc import Iterable
from dataclasses import dataclass

from fleet.check.findings import Level
from fleet.map.drawing import who
from fleet.map.model import Map, MapFinding


@dataclass(frozen=True)
class Fault:
    """An error between services. `words` are a sentence such as: orders breaks billing. `victims` have nothing to correct."""

    names: tuple[str, ...]
    words: tuple[tuple[str, bool], ...]
    reason: str
    victims: tuple[str, ...] = ()


def faults(map_: Map, found: Iterable[MapFinding]) -> list[Fault]:
    """Return the errors that concern more than one service."""
    errors = (one for one in found if one.finding.level is Level.ERROR and len(one.services) > 1)
    return [
        Fault(
            one.services,
            tuple(who(map_, one)),
            one.finding.reason,
            tuple(name for name in one.services if name not in one.acting),
        )
        for one in errors
    ]


def broken_by(faults: Iterable[Fault]) -> dict[str, list[str]]:
    """Return the services that break another service, by the name of the broken service."""
    causes: dict[str, dict[str, None]] = {}
    for fault in faults:
        for name in fault.victims:
            causes.setdefault(name, {}).update(dict.fromkeys(one for one in fault.names if one not in fault.victims))
    return {name: list(found) for name, found in causes.items()}
