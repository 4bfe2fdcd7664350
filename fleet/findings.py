"""What a check found. Every check is a function from a service to these; fleet/checks.py lists them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from fleet.service import Service


class Level(StrEnum):
    """How bad: an error fails the check; the others are told."""

    ERROR = "error"
    WARNING = "warning"
    WAIVED = "waived"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be, why that matters, and what to do."""

    id: str
    path: str
    reason: str
    remedy: str
    level: Level = Level.ERROR


Check = Callable[[Service], Iterable[Finding]]
