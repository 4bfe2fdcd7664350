"""What `fleet update --all` prints."""

from pathlib import Path

from rich.table import Table
from rich.text import Text

from fleet import output
from fleet.update.update_all import Outcome

# Of a log: what went wrong is at its end.
TAIL_LINES = 15


def outcomes(found: list[Outcome]) -> None:
    """A table of all, then the end of each log of those that failed."""
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
            if (log := Path(one.log)).exists() and (said := log.read_text(errors="replace").splitlines()):
                console.print(Text("\n".join(f"  {line}" for line in said[-TAIL_LINES:])))
                console.print(Text(f"  All of it is in {log}"))
    if kept := [one for one in found if one.tip and not one.pushed and not one.failure]:
        console.print("\nNot pushed; the branches are in", style="bold")
        for one in kept:
            console.print(Text(f"  {one.place}"))
    console.print(Text(f"\n{_summary(found)}"))


def _done(outcome: Outcome) -> str:
    if outcome.failure:
        return "failed before, too" if False in outcome.before.values() else "failed"
    if not outcome.tip:
        return "nothing to do"
    steps = (("updated", True), ("tested", outcome.tested), ("pushed", outcome.pushed))
    return ", ".join(word for word, is_done in steps if is_done)


def _summary(found: list[Outcome]) -> str:
    failed = sum(bool(one.failure) for one in found)
    updated = sum(bool(one.tip) and not one.failure for one in found)
    again = "; run it again to go on with those that failed" if failed else ""
    return f"{len(found)} services: {updated} updated, {len(found) - failed - updated} need nothing, {failed} failed{again}"
