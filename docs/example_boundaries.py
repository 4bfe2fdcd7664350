"""Invented questions about boundaries for the invented fleet."""

import hashlib
from datetime import date, timedelta
from itertools import cycle

from fleet.boundaries.boundaries import Report
from fleet.boundaries.breaks import Break
from fleet.boundaries.days import window
from fleet.boundaries.decision import Quote
from fleet.boundaries.past import Past
from fleet.boundaries.questions import Evidence, Question, Record, trend
from fleet.check.standing import Standing
from fleet.service.waivers import today

TEAM = Quote(
    "docs/decisions/0001-a-service-of-its-own.md",
    17,
    "Can a separate team develop, deploy and run the service on its own?",
    "yes",
)
SUBJECTS = ("Add the discount", "Name the currency", "Split the address", "Count refunds")
TIMES = 11


def boundaries(standings: list[Standing]) -> Report:
    """Make a report with one question about each of the first two pairs of services."""
    first, last = window(today())
    names = [one.name for one in standings if not one.unreadable][:4]
    pairs = list(zip(names[::2], names[1::2], strict=False))
    questions = tuple(_together(pair, first, last) for pair in pairs)
    broken = (
        Break("HTTP", last - timedelta(40), "3fd3c9e2ba", "GET /v1/orders no longer returns `total`"),
        Break("messages", first),
    )
    pasts = {one.name: Past(one.name, one.owner, "", first, breaks=broken) for one in standings if not one.unreadable}
    return Report(first, last, questions, pasts, {})


def _together(pair: tuple[str, str], first: date, last: date) -> Question:
    one, other = pair
    days = [last - timedelta(30 + 61 * number) for number in range(TIMES)]
    return Question(
        "boundary-contracts-together",
        pair,
        f"{one} and {other} changed their contracts together {TIMES} times within two working days of each other, "
        f"of 12 of {one} and 11 of {other} in their common time",
        "by chance 1.8 times would be expected; 276 pairs were compared",
        "Is there one reason that changes both? Then one team may own both, or one service may do the work of both",
        tuple(
            (
                Evidence(one, str(day), _commit(one, day), subject),
                Evidence(other, str(day + timedelta(1)), _commit(other, day), f"Follow {one}: {subject.lower()}"),
            )
            for day, subject in zip(days, cycle(SUBJECTS), strict=False)
        ),
        trend((day + timedelta(1) for day in days), first, last),
        (Record(one, TEAM), Record(other, None)),
    )


def _commit(name: str, day: date) -> str:
    return hashlib.sha256(f"{name} {day}".encode()).hexdigest()[:10]
