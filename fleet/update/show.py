"""Print the results of `fleet update` and `fleet update-all`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from fleet import output
from fleet.template.changelog import SECTIONS
from fleet.update.logs import last_lines
from fleet.update.report import Report

if TYPE_CHECKING:  # an update of one service does not need these imports
    from fleet.update.outcomes import Outcome
    from fleet.update.requests import Request

DIFF = {"+": "green", "-": "red", "@": "cyan"}


def report(report: Report, *, seed_diffs: bool) -> None:
    """Print the changes of an update, then the changes that it left to people."""
    console = output.console()
    if not report.changed:
        console.print(Text(f"{report.service} is at template {report.new}: nothing to do"))
        return
    to = f"from {report.old} to {report.new}" if report.old != report.new else f"at {report.new}"
    done = f"{report.written} of the platform's files written, {report.deleted} deleted"
    console.print(Text.assemble((report.service, "bold"), f", template {to}: {done}"))
    _section(console, "Restored first, because they had been changed by hand (in a separate commit):", report.healed)
    _diff(console, report.healed_diff)
    _section(console, "Migrated:", report.migrated)
    _section(console, "New seeds, which the team owns from now on:", report.seeds.new)
    _section(console, "Not written, because the team has deleted them or their aggregate:", report.seeds.left)
    _section(console, "Waived, so this change of the template was not applied:", report.waived)
    _diff(console, report.waived_diff)
    _section(console, "Up to the team:", report.answers)
    if report.changed_seeds and seed_diffs:
        _section(console, "The template's seeds changed; the team's files stay unchanged:", report.changed_seeds)
        _diff(console, report.changed_seeds_diff)
    elif report.changed_seeds:
        files = f"The template's seeds of {len(report.changed_seeds)} of the team's files changed; the files did not"
        console.print(f"\n{files}. `fleet update --seed-diffs` shows the differences next time.")
    for section in SECTIONS:
        notes = [f"{note.version}: {note.text}" for note in report.notes if note.section == section]
        _section(console, f"Before you deploy, {section.lower()}:", notes)
    if report.unfinished:
        _section(console, "`make specs` failed. Adapt the code to the new version, then run `make specs` again:", [])
        console.print(Padding.indent(Text(report.unfinished), 2))
    console.print("\nProve it: [bold]make setup check[/bold]")


def _section(console: Console, title: str, items: Iterable[str]) -> None:
    items = list(items)
    if items or title.startswith("`make"):
        console.print(f"\n{title}", style="bold", markup=False)
        for item in items:
            console.print(Padding.indent(Text(f"- {item}"), 2))


def _diff(console: Console, text: str) -> None:
    """Print the lines of a diff without folding them, so that a copy can be applied."""
    for line in text.splitlines():
        console.print(Text(line, style=DIFF.get(line[:1], "")), soft_wrap=True)


def outcomes(found: "list[Outcome]") -> None:
    """Print a table of all outcomes, then the end of the log of each failure."""
    from rich.table import Table

    console = output.console()
    table = Table("service", "from", "to", "", "branch", box=None, pad_edge=False)
    for one in found:
        cells = (one.name, one.old, one.new, _done(one), one.branch if one.tip else "")
        style = "red" if one.failure else "green" if one.tip else "dim"
        table.add_row(*(Text(cell, overflow="fold") for cell in cells), style=style)
    console.print(table)
    for one in found:
        if one.failure:
            console.print(Text(f"\n{one.name}: {one.failure}", style="bold"))
            if lines := last_lines(one.log):
                console.print(Text("\n".join(f"  {line}" for line in lines)))
                console.print(Text(f"  The whole log is in {one.log}"))
    if unpushed := [one for one in found if one.tip and not one.pushed and not one.failure]:
        console.print("\nNot pushed; the branches are in", style="bold")
        for one in unpushed:
            console.print(Text(f"  {one.place}"))
    console.print(Text(f"\n{_summary(found)}"))


def requests(found: "list[Request]", *, is_asked: bool) -> None:
    """Print the addresses of the opened requests, and the commands that open the others."""
    if not found:
        return
    console = output.console()
    heading = "The pull and merge requests:" if is_asked else "No request was opened. These commands, or --open, do so:"
    console.print(f"\n{heading}", style="bold")
    for one in found:
        if one.address:
            result = f"opened {one.address}" if one.is_new else f"has an open request: {one.address}"
            console.print(Text(f"  {one.service}: {result}"), soft_wrap=True)
        elif one.problem:
            console.print(Text(f"  {one.service}: {one.problem}"), soft_wrap=True)
        if one.command and not one.address:
            console.print(Text(f"  {one.command}"), soft_wrap=True)


def _done(outcome: "Outcome") -> str:
    from fleet.update.outcomes import Verdict

    if outcome.failure:
        return "failed before too" if outcome.verdict is Verdict.RED_BEFORE else "failed"
    if not outcome.tip:
        return "nothing to do"
    steps = (("updated", True), ("tested", outcome.tested), ("pushed", outcome.pushed))
    return ", ".join(word for word, is_done in steps if is_done)


def _summary(found: "list[Outcome]") -> str:
    failed = sum(bool(one.failure) for one in found)
    updated = sum(bool(one.tip) and not one.failure for one in found)
    again = "; run fleet again to continue with the failed services" if failed else ""
    return f"{len(found)} services: {updated} updated, {len(found) - failed - updated} need nothing, {failed} failed{again}"
