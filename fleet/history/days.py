"""One day of the history: what is written about each service, and how a line of the file is read."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from fleet.check.findings import Level
from fleet.check.standing import Standing
from fleet.service.waivers import today
from fleet.status.show import STATES, word

# A name, a version or the id of a convention is never longer in a line that fleet wrote.
LONGEST = 300

# Fields with a number, which a line leaves out if the number is 0.
COUNTS = ("drift", "waivers", "void")


@dataclass(frozen=True)
class Entry:
    """The state of one service on one day. `failed` has the levels of the conventions that the service does not keep."""

    state: str
    version: str = ""
    failed: Mapping[str, str] = field(default_factory=dict)
    drift: int = 0
    waivers: int = 0
    void: int = 0

    @property
    def is_readable(self) -> bool:
        return self.state != "unreadable"


@dataclass(frozen=True)
class Day:
    """The fleet on one day. `releases` are the newest releases of that day with the days of their publication."""

    day: date
    releases: Mapping[str, date]
    services: Mapping[str, Entry]

    def of(self, names: Iterable[str]) -> "Day":
        """Return the part of the day with these services."""
        return Day(self.day, self.releases, {name: self.services[name] for name in names if name in self.services})


def today_of(standings: Iterable[Standing]) -> Day:
    """Return the fleet of today."""
    standings = list(standings)
    releases = {
        one.newest: date.fromisoformat(one.newest_released) for one in standings if one.newest and one.newest_released
    }
    return Day(today(), releases, {one.name[:LONGEST]: _entry(one) for one in standings})


def _entry(standing: Standing) -> Entry:
    failed = {one.id: one.level.value for one in reversed(standing.conventions) if one.level is not Level.WAIVED}
    waivers = standing.waivers or {}
    return Entry(
        word(standing),
        standing.version,
        dict(sorted(failed.items())),
        sum(standing.drift.values()),
        waivers.get("live", 0),
        waivers.get("void", 0),
    )


def write(day: Day) -> str:
    """Write a day as one line of JSON."""
    services = {}
    for name, one in day.services.items():
        written = {"state": one.state, "version": one.version, "failed": dict(one.failed)}
        written |= {key: getattr(one, key) for key in COUNTS}
        services[name] = {key: value for key, value in written.items() if value}
    releases = {version: str(published) for version, published in day.releases.items()}
    # The line has no character that an editor takes for the end of a line.
    return json.dumps({"day": str(day.day), "releases": releases, "services": services}, separators=(",", ":"))


def parse(line: str, before: dict[str, tuple[Any, Entry]] | None = None) -> Day:
    """Read one line. Raises ValueError, which names the fault of the line.

    `before` has what was read for each service in earlier lines: most services are the same on the next day.
    """
    try:
        written = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("the line is not JSON") from None
    day = _date(_table(written, "the line").get("day"))
    # The day of the clock counts too: FLEET_TODAY may name an earlier day, and lines of later days are then valid.
    if day > max(today(), datetime.now(UTC).date()):
        raise ValueError(f"the day {day} has not come yet")
    releases = {_text(name): _date(one) for name, one in _table(written.get("releases", {}), "releases").items()}
    known = {} if before is None else before
    services = {name: _read(name, one, known) for name, one in _table(written.get("services"), "services").items()}
    return Day(day, releases, services)


def _read(name: str, written: Any, before: dict[str, tuple[Any, Entry]]) -> Entry:
    if name not in before or before[name][0] != written:
        before[_text(name)] = written, _read_entry(written)
    return before[name][1]


def _read_entry(written: Any) -> Entry:
    entry = _table(written, "a service")
    state = entry.get("state")
    if state not in STATES:
        raise ValueError(f"a service has the state {str(state)[:50]!r}, and has to have one of {', '.join(STATES)}")
    failed = {_text(id_): _text(level) for id_, level in _table(entry.get("failed", {}), "failed").items()}
    if unknown := set(failed.values()) - {level.value for level in Level}:
        raise ValueError(f"a convention has the unknown level {unknown.pop()[:50]!r}")
    return Entry(state, _text(entry.get("version", "")), failed, *(_number(entry.get(key, 0)) for key in COUNTS))


def _table(written: Any, what: str) -> dict[str, Any]:
    if not isinstance(written, dict):
        raise ValueError(f"{what} is not an object")
    return written


def _text(written: Any) -> str:
    if not isinstance(written, str) or len(written) > LONGEST:
        raise ValueError(f"{str(written)[:50]!r} is not a text of at most {LONGEST} characters")
    return written


def _number(written: Any) -> int:
    if type(written) is not int or not 0 <= written < 10**9:
        raise ValueError(f"{str(written)[:50]!r} is not a count")
    return written


def _date(written: Any) -> date:
    try:
        return date.fromisoformat(written)
    except (TypeError, ValueError):
        raise ValueError(f"{str(written)[:50]!r} is not a day such as 2026-11-30") from None
