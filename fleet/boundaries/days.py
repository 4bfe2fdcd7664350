"""Count time in working days: a change on Friday and a change on Monday are neighbours. Saturday and Sunday count as Friday."""

from datetime import UTC, date, datetime

WINDOW_MONTHS = 24
"""Older history says little about the boundaries of today."""


def window(today: date) -> tuple[date, date]:
    """Return the first and the last day that count."""
    days = round(WINDOW_MONTHS * 365.25 / 12)
    return date.fromordinal(max(today.toordinal() - days, 1)), today


def working_day(day: date) -> int:
    """Return the number of a working day, so that working days follow each other without gaps."""
    weeks, weekday = divmod(day.toordinal() - 1, 7)
    return 5 * weeks + min(weekday, 4)


def day_of(seconds: str) -> date | None:
    """Return the day of a time since 1970; None for a time that no calendar has, which a crafted commit may have."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC).date()
    except (OSError, OverflowError, ValueError):
        return None


def months_between(earlier: date, later: date) -> int:
    """Return the number of whole months."""
    return (later.year - earlier.year) * 12 + later.month - earlier.month - (later.day < earlier.day)


def quarter(day: date) -> str:
    return f"{day.year} Q{(day.month + 2) // 3}"


def quarters(first: date, last: date) -> list[str]:
    """Return the quarters of a window in order."""
    months = range(first.year * 12 + first.month - 1, last.year * 12 + last.month)
    return list(dict.fromkeys(f"{month // 12} Q{month % 12 // 3 + 1}" for month in months))
