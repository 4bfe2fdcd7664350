"""Format the results of `fleet update-all` as one HTML file, which needs no network, no other files, no server and no script."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from fleet.output import count
from fleet.page.parts import environment, part
from fleet.service.fleet_toml import Member
from fleet.service.waivers import today
from fleet.update.logs import failed_steps, last_lines
from fleet.update.outcomes import Outcome, Verdict
from fleet.update.requests import Request, page_of


@dataclass(frozen=True)
class Section:
    """The words about a verdict. `tone` is a shape and a colour of the page."""

    title: str
    tone: str
    advice: str


SECTIONS = {
    Verdict.BROKEN: Section(
        "Broken by the update",
        "breach",
        "Adapt the code in the clone, commit it there on the branch of the update, and run `fleet update-all` again.",
    ),
    Verdict.UNCLEAR: Section(
        "Failed, cause unknown",
        "unreadable",
        "`make setup` fails before the update. Fix that on the team's own branch, and run `fleet update-all` again.",
    ),
    Verdict.SKIPPED: Section(
        "Skipped", "notice", "Each reason states the remedy. Then run `fleet update-all` again for these services."
    ),
    Verdict.RED_BEFORE: Section(
        "Red before the update",
        "warning",
        "The update has not broken these services. Their teams fix them on their own branches; then run `fleet update-all` again.",
    ),
    Verdict.DONE: Section("Done", "in order", "The teams review the branches and merge them."),
    Verdict.UP_TO_DATE: Section("Up to date", "waived", "Skipped, because the service has this version already."),
}


@dataclass(frozen=True)
class Part:
    """The result of one service. `link` is the page of its repository, if that is known."""

    outcome: Outcome
    link: str = ""
    request: Request | None = None
    # The end of the log, and the steps of `make check` that failed.
    lines: Sequence[str] = ()
    steps: Sequence[str] = ()


@dataclass(frozen=True)
class Run:
    """The content of the page."""

    parts: Sequence[Part]
    generated: datetime = field(default_factory=lambda: datetime.now(UTC))


def gather(
    members: Sequence[Member], outcomes: Sequence[Outcome], requests: Sequence[Request], kinds: Mapping[str, str]
) -> Run:
    """Read the logs of the failures, and return the content of the page."""
    opened = {one.service: one for one in requests}
    parts = []
    for member, outcome in zip(members, outcomes, strict=True):
        link, request = page_of(member, kinds).repository, opened.get(outcome.name)
        lines = last_lines(outcome.log) if outcome.failure else []
        steps = failed_steps(outcome.log) if outcome.gate == "check" else []
        parts.append(Part(outcome, link, request, lines, steps))
    return Run(parts)


def update_page(run: Run) -> str:
    """Format the page: the failures first, then the updated services, then the services that needed nothing."""
    groups = {verdict: [one for one in run.parts if one.outcome.verdict is verdict] for verdict in Verdict}
    versions = {one.outcome.new for one in run.parts if one.outcome.new}
    return (
        environment()
        .get_template("update.html.jinja")
        .render(
            run=run,
            groups={verdict: found for verdict, found in groups.items() if found},
            sections=SECTIONS,
            done=len(groups[Verdict.DONE]),
            wanted=len(run.parts) - len(groups[Verdict.UP_TO_DATE]),
            version=versions.pop() if len(versions) == 1 else "",
            today=today(),
            style=part("page.css") + part("update.css"),
            count=count,
        )
        + "\n"
    )
