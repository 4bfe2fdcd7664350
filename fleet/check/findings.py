"""What a check found. Every check is a function from a service to these; fleet/check/checks.py lists them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from fleet.service.service import Service


class Level(StrEnum):
    """How bad: an error fails the check; the others are told."""

    ERROR = "error"
    WARNING = "warning"
    WAIVED = "waived"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be, why that matters, and what to do. `line` counts from 1; 0 is the whole file."""

    id: str
    path: str
    reason: str
    remedy: str
    level: Level = Level.ERROR
    line: int = 0
    # Of a convention: why it is wanted.
    why: str = ""


Check = Callable[[Service], Iterable[Finding]]
