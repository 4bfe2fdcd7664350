"""The errors of the map at the beginning of the page: who breaks whom."""

from collections.abc import Iterable
from dataclasses import dataclass

from fleet.check.findings import Level
from fleet.map.drawing import who
from fleet.map.model import Map, MapFinding


@dataclass(frozen=True)
class Fault:
    """An error between services. `words` are a sentence such as: orders breaks billing."""

    names: tuple[str, ...]
    words: tuple[tuple[str, bool], ...]
    reason: str


def faults(map_: Map, found: Iterable[MapFinding]) -> list[Fault]:
    """Return the errors that concern more than one service."""
    errors = (one for one in found if one.finding.level is Level.ERROR and len(one.services) > 1)
    return [Fault(one.services, tuple(who(map_, one)), one.finding.reason) for one in errors]
