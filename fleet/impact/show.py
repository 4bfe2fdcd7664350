"""Print the impact of a change: a table for people, JSON for programs, annotations for GitHub's pull requests."""

import json
from dataclasses import asdict, replace

from rich.table import Table
from rich.text import Text

from fleet import output
from fleet.check.findings import Finding, Level, without_empty_since
from fleet.check.show import STYLES
from fleet.check.show import github as annotations
from fleet.impact.impact import Breakage, Impact
from fleet.output import count

UNKNOWN = "impact-unknown"


def table(impact: Impact) -> str:
    """Format the broken services, the services that are not known, and the summary."""
    # No text of another service is at the beginning of a line, where GitHub would read a command in it.
    shown = Table("by", "service", "its file", "what", "do", box=None, pad_edge=False)
    for one in impact.broken:
        cells = (one.by, one.service, _place(one), one.finding.reason, one.finding.remedy)
        shown.add_row(*(Text(cell, overflow="fold") for cell in cells), style=STYLES[one.finding.level])
    console = output.console()
    with console.capture() as printed:
        if impact.broken:
            console.print(shown)
        for name, reason in impact.unknown.items():
            console.print(Text(f"not compared: {name}: {reason}", style=STYLES[Level.WARNING]), soft_wrap=True)
        console.print(Text(summary(impact)), soft_wrap=True)
    return printed.get()


def summary(impact: Impact) -> str:
    """Return how many services break, in a sentence."""
    if not impact.compared and not impact.unknown:
        listed = "" if impact.is_listed else f", and fleet.toml does not list {impact.service}"
        return f"no service of fleet.toml uses {impact.service}{listed}: the change has no impact"
    broken = {one.service for one in impact.broken if one.finding.level is Level.ERROR}
    return f"the change breaks {len(broken)} of {count(len(impact.compared), 'service')} with known expectations of {impact.service}"


def as_json(impact: Impact) -> str:
    return json.dumps(asdict(impact, dict_factory=without_empty_since), indent=2) + "\n"


def github(impact: Impact) -> str:
    """Format annotations at the lines of this service, with the places in the other services."""
    found = [
        replace(one.finding, reason=f"{one.service} breaks by {one.by} ({_place(one)}): {one.finding.reason}")
        for one in impact.broken
    ]
    found += [Finding(UNKNOWN, "", f"{name}: {reason}", "", Level.WARNING) for name, reason in impact.unknown.items()]
    return f"{annotations(found)}\n" if found else f"{summary(impact)}\n"


def _place(one: Breakage) -> str:
    return f"{one.path}:{one.line}" if one.line else one.path
