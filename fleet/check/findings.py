"""The findings of checks. A check is a function from a service to findings; fleet/check/checks.py lists the checks."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from fleet.service.service import Service


class Level(StrEnum):
    """The level of a finding. Only an error makes `fleet check` fail."""

    ERROR = "error"
    WARNING = "warning"
    WAIVED = "waived"


@dataclass(frozen=True)
class Finding:
    """One fault of a service, why the fault matters, and the remedy. `line` counts from 1; 0 is the whole file."""

    id: str
    path: str
    reason: str
    remedy: str
    level: Level = Level.ERROR
    line: int = 0
    # Why the convention exists.
    why: str = ""


Check = Callable[[Service], Iterable[Finding]]
