"""The history of the fleet: a file with one line per day, which `fleet status --record` writes and the page draws."""

import os
from pathlib import Path

from fleet.cache import offline
from fleet.check.standing import Standing
from fleet.history import days, file
from fleet.history.days import Day
from fleet.output import warn
from fleet.service.waivers import TODAY, today


def remember(record: Path, standings: list[Standing]) -> list[Day]:
    """Write a line for today, and return all days, oldest first. Raises FleetError.

    No line is written for a run that does not show the fleet of today.
    """
    if offline():
        return _only_read(record, "--offline shows the commits of an earlier run")
    if os.environ.get(TODAY):
        return _only_read(record, f"{TODAY} or --on judges as on another day")
    return file.record(record, days.today_of(standings))


def _only_read(record: Path, reason: str) -> list[Day]:
    warn(f"{record} gets no line for today, because {reason}")
    return [one for one in file.read(record) if one.day <= today()]
