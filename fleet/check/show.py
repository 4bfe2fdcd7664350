"""Print the findings of `fleet check`: a table for people, JSON for programs, annotations for GitHub's pull requests."""

import json
from dataclasses import asdict

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fleet import output
from fleet.check.check import Report
from fleet.check.findings import Finding, Level, without_empty_since

STYLES = {Level.ERROR: "red", Level.WARNING: "yellow", Level.NOTICE: "cyan", Level.WAIVED: "dim"}
COMMANDS = {Level.ERROR: "error", Level.WARNING: "warning", Level.NOTICE: "notice", Level.WAIVED: "notice"}


def table(report: Report) -> None:
    """Print the findings and, below them, why each broken convention exists; one line if there are no findings.

    A file or a pipe gets one line for each finding, because the cells of a table would break long names.
    """
    console, found = output.console(), report.findings
    where = f"{report.name}, template {report.version}"
    if not found:
        console.print(Text(f"{where}: no findings"))
        return
    if console.is_terminal:
        console.print(_table(where, found))
    else:
        console.print("\n".join([where, *map(_line, found)]), markup=False, soft_wrap=True)
    if reasons := {finding.id: finding.why for finding in found if finding.why}:
        console.print("\nwhy", style="dim")
        for id_, why in reasons.items():
            console.print(Padding.indent(Text(f"{id_}: {why}", style="dim"), 2))


def _table(title: str, found: list[Finding]) -> Table:
    shown = Table("", "path", "what", "do", title=Text(title), title_justify="left", box=None, pad_edge=False)
    for finding in found:
        level = _level(finding)
        cells = (f"{finding.id}\n{level}" if level else finding.id, _where(finding), finding.reason, finding.remedy)
        shown.add_row(*(Text(cell, overflow="fold") for cell in cells), style=STYLES[finding.level])
    return shown


def _line(finding: Finding) -> str:
    explained = ". Do: ".join(filter(None, (finding.reason, finding.remedy)))
    return " ".join(f"{finding.id} {_level(finding)} {_where(finding)}: {explained}".split())


def _where(finding: Finding) -> str:
    return f"{finding.path}:{finding.line}" if finding.line else finding.path


def _level(finding: Finding) -> str:
    """Return the level in a word, because not everybody sees the colours.

    The result is empty for an error, or if the id names the level.
    """
    if finding.level is Level.NOTICE and finding.since:
        return f"({finding.level}, counts from {finding.since})"
    return "" if finding.level is Level.ERROR or finding.id == finding.level else f"({finding.level})"


def as_json(report: Report) -> str:
    written = {
        "service": report.name,
        "version": report.version,
        "findings": [asdict(finding, dict_factory=without_empty_since) for finding in report.findings],
    }
    return json.dumps(written, indent=2)


def github(found: list[Finding]) -> str:
    """Format workflow commands, which GitHub shows at the lines that they name."""
    return "\n".join(_annotation(finding) for finding in found) or "no findings"


def _annotation(finding: Finding) -> str:
    where = {"file": finding.path, "line": str(finding.line or ""), "title": finding.id}
    properties = ",".join(f"{name}={_property(value)}" for name, value in where.items() if value)
    remedy = f"Do: {finding.remedy}" if finding.remedy else ""
    counts = f"Counts from {finding.since}." if finding.level is Level.NOTICE and finding.since else ""
    message = "\n".join(filter(None, (finding.reason, counts, remedy, finding.why)))
    return f"::{COMMANDS[finding.level]} {properties}::{_message(message)}"


def _message(text: str) -> str:
    """Escape a text as GitHub's own toolkit does."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
