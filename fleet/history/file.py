"""Read and write the file of the history: one line per day, for at most KEPT days."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fleet.cache import write_atomically
from fleet.errors import FleetError
from fleet.history import days
from fleet.history.days import Day, Entry
from fleet.output import count, warn

# The most days in the file: a year, and a month to compare with the year before.
KEPT = 400

# The largest file that is read: more than KEPT days of two thousand services take.
LARGEST_BYTES = 200 * 2**20

# The number of damaged lines that are named one by one.
NAMED = 5


def read(file: Path) -> list[Day]:
    """Read the days of the file, oldest first. A file that does not exist yet has none.

    A damaged line is named on stderr and skipped. The later of two lines for one day counts. Raises FleetError.
    """
    found = {day.day: day for _, day in _parse(file) if day}
    return [found[day] for day in sorted(found)]


def record(file: Path, today: Day) -> list[Day]:
    """Write today's line, in place of an earlier line of today, and return all days. Raises FleetError.

    Damaged lines stay in the file, because somebody may repair them. The oldest lines leave a file of more than KEPT lines.
    """
    others = [(line, day) for line, day in _parse(file) if day is None or day.day != today.day]
    kept = [*others, (days.write(today), today)][-KEPT:]
    write_atomically(file.resolve(), "".join(f"{line}\n" for line, _ in kept))
    found = {day.day: day for _, day in kept if day}
    return [found[day] for day in sorted(found)]


def _parse(file: Path) -> list[tuple[str, Day | None]]:
    """Return each line with its day; None for a damaged line."""
    parsed: list[tuple[str, Day | None]] = []
    before: dict[str, tuple[Any, Entry]] = {}
    damaged = 0
    for number, line in _lines(file):
        try:
            parsed.append((line, days.parse(line, before)))
        except ValueError as error:
            parsed.append((line, None))
            damaged += 1
            if damaged <= NAMED:
                warn(f"{file}, line {number} is skipped: {error}. Restore the line from an older version, or delete it")
    if damaged > NAMED:
        warn(f"{file} has {count(damaged - NAMED, 'more damaged line')}, which are skipped too")
    return parsed


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    if not file.exists():
        return
    if not file.is_file():
        raise FleetError(f"{file} is not a file, and the history of the fleet has to be one: name another by --record")
    if file.stat().st_size > LARGEST_BYTES:
        raise FleetError(
            f"{file} has more than {LARGEST_BYTES >> 20} MiB, the most for a history: delete its oldest lines, or name another"
        )
    with file.open(encoding="utf-8", errors="replace", newline="\n") as opened:
        for number, line in enumerate(opened, 1):
            if line.strip():
                yield number, line.rstrip("\r\n")
