"""The findings of checks. A check is a function from a service to findings; fleet/check/checks.py lists the checks."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fleet.service.service import Service


class Level(StrEnum):
    """The level of a finding. Only an error makes `fleet check` fail. A notice announces a rule."""

    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"
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
    # The day from which the policy enforces the convention (2027-03-01), if the policy names a day.
    since: str | None = None


def without_empty_since(fields: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Leave out `since` without a day: the `dict_factory` of `asdict`, for reports in which most findings have no day."""
    return {name: value for name, value in fields if name != "since" or value}


Check = Callable[[Service], Iterable[Finding]]
