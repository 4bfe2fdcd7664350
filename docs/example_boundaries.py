"""Invented questions about boundaries for the invented fleet."""

from datetime import date, timedelta

from fleet.boundaries.boundaries import Report
from fleet.boundaries.breaks import Break
from fleet.boundaries.days import quarters, window
from fleet.boundaries.decision import Quote
from fleet.boundaries.past import Past
from fleet.boundaries.questions import Evidence, Question, Record
from fleet.check.standing import Standing
from fleet.service.waivers import today

TEAM = Quote(
    "docs/decisions/0001-a-service-of-its-own.md",
    17,
    "Can a separate team develop, deploy and run the service on its own?",
    "yes",
)
SUBJECTS = ("Add the discount", "Name the currency", "Split the address", "Count refunds")


def boundaries(standings: list[Standing]) -> Report:
    """Ask about the first two pairs of services."""
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
    days = [last - timedelta(30 + 61 * number) for number in range(len(SUBJECTS))]
    return Question(
        "boundary-contracts-together",
        pair,
        f"{one} and {other} changed their contracts together 11 times within two working days of each other, "
        f"of 12 of {one} and 11 of {other} in their common time",
        "by chance 1.8 times would be expected; 276 pairs were compared",
        "Is there one reason that changes both? Then one team may own both, or one service may do the work of both",
        tuple(
            (
                Evidence(one, str(day), "ab44e12ab1", subject),
                Evidence(other, str(day + timedelta(1)), "3fd3c9e2ba", f"Follow {one}: {subject.lower()}"),
            )
            for day, subject in zip(days, SUBJECTS, strict=True)
        ),
        dict(zip(quarters(first, last), (0, 1, 2, 2, 1, 2, 1, 1, 1), strict=False)),
        (Record(one, TEAM), Record(other, None)),
    )
