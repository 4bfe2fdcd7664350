"""The questions about boundaries on the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleet.boundaries import show
from fleet.boundaries.boundaries import Report
from fleet.boundaries.questions import Question
from fleet.page.rows import Row


@dataclass(frozen=True)
class Boundaries:
    """The questions about some services, the last break of each of their contracts, and the unread histories with reasons."""

    summary: str
    questions: tuple[Question, ...]
    breaks: tuple[tuple[str, ...], ...]
    unread: Mapping[str, str]


def boundaries_of(report: Report, names: Mapping[str, object], ordered: Sequence[Row]) -> Boundaries:
    """Return the part of the report about these services. `names` are their own names, and fleet.toml may have others."""
    listed = {row.standing.name for row in ordered}
    return Boundaries(
        show.summary(report),
        tuple(one for one in report.questions if names.keys() & {*one.services}),
        tuple(row for row in show.breaks(report) if row[0] in names),
        {name: reason for name, reason in report.unread.items() if name in listed},
    )
