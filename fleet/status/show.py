"""Print the state of the fleet: a table for a terminal, Markdown for a wiki, JSON for programs. HTML is in fleet/page."""

import json
from collections import Counter
from collections.abc import Iterable

from fleet import output
from fleet.check.findings import Finding, Level
from fleet.check.standing import Standing
from fleet.output import count, escaped
from fleet.service.waivers import today

STYLES = {Level.ERROR: "red", Level.WARNING: "yellow", None: "green"}
STATES = ("in order", "warning", "breach", "unreadable")
# The state in a word, because not everybody sees the colours.
WORDS = {Level.ERROR: "breach", Level.WARNING: "warning", None: "in order"}
# In a terminal of fewer columns, conventions are counted and not named.
NARROW = 120
COLUMNS = ("service", "state", "version", "behind", "drift", "conventions", "map", "waivers")
CONVENTIONS, MAP = COLUMNS.index("conventions"), COLUMNS.index("map")


def word(standing: Standing) -> str:
    """Return the state of a service in a word."""
    return "unreadable" if standing.unreadable else WORDS[standing.level]


def summary(standings: list[Standing]) -> dict[str, int]:
    """Count the services by state."""
    return {
        "services": len(standings),
        "in order": sum(word(one) == "in order" for one in standings),
        "warning": sum(word(one) == "warning" for one in standings),
        "breach": sum(word(one) == "breach" for one in standings),
        "unreadable": sum(word(one) == "unreadable" for one in standings),
    }


def with_maturity(standings: list[Standing]) -> bool:
    """Return whether the policy has levels of maturity, so that reports show them."""
    return any(one.maturity or one.next_maturity for one in standings)


def columns(standings: list[Standing]) -> tuple[str, ...]:
    """Return the columns of the table."""
    return (*COLUMNS, "maturity") if with_maturity(standings) else COLUMNS


def row(standing: Standing, columns: tuple[str, ...]) -> list[str]:
    """Return the row of a service in the table."""
    return [standing.name, *cells(standing), standing.maturity or ""][: len(columns)]


def cells(standing: Standing) -> tuple[str, ...]:
    """Return the cells of COLUMNS for a service, after its name."""
    if standing.unreadable:
        return (word(standing), "", "", "", "", "", "")
    behind = ""
    if standing.releases_behind:
        behind = f"{count(standing.releases_behind, 'release')}, {count(standing.days_behind, 'day')}"
    waivers = {kind: number for kind, number in (standing.waivers or {}).items() if number}
    return (
        word(standing),
        standing.version,
        behind,
        format_counts(standing.drift),
        ", ".join(
            [
                *standing.failed,
                *(f"{id_} (warning)" for id_ in standing.warned),
                *(f"{id_} from {day}" if day else f"{id_} (notice)" for id_, day in standing.announced.items()),
                *(f"({id_})" for id_ in standing.waived),
            ]
        ),
        ", ".join(dict.fromkeys(one.id for one in standing.neighbours)),
        format_counts(waivers),
    )


def table(standings: list[Standing], *, width: int | None = None) -> str:
    """Format the table: as wide as the terminal and in colour, or of the given width without colours."""
    from rich.table import Table  # imported here: the import takes as long as reading two hundred services
    from rich.text import Text

    console = output.console(width=width, no_color=True if width else None)
    shown = Table(*columns(standings), box=None, pad_edge=False)
    for standing in standings:
        texts = row(standing, columns(standings))
        if console.width < NARROW:
            # Names that are folded every few letters would be unreadable.
            numbers = {
                "failed": len(standing.failed),
                "warning": len(standing.warned),
                "announced": len(standing.announced),
                "waived": len(standing.waived),
            }
            texts[CONVENTIONS] = format_counts({kind: number for kind, number in numbers.items() if number})
            texts[MAP] = count(len(standing.neighbours), "error") if standing.neighbours else ""
        shown.add_row(*(Text(cell, overflow="fold") for cell in texts), style=STYLES[standing.level])
    with console.capture() as printed:
        console.print(shown)
        for standing in standings:
            if standing.unreadable:
                console.print(Text(f"\n{standing.name} cannot be read: {standing.unreadable}"))
        console.print(Text(f"\n{sentence(standings)}"))
    return printed.get()


def markdown(standings: list[Standing], graph: str = "") -> str:
    """Format the report. `graph` is an additional section in Markdown."""
    lines = [f"# The fleet on {today()}", "", sentence(standings), ""]
    names = columns(standings)
    lines += [f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]
    lines += [f"| {' | '.join(map(escaped, row(one, names)))} |" for one in standings]
    for standing in standings:
        if standing.unreadable:
            lines += ["", f"**{escaped(standing.name)}** cannot be read: {escaped(standing.unreadable)}"]
        elif found := [one for one in standing.findings if one.level is not Level.WAIVED]:
            lines += ["", f"## {escaped(standing.name)}", ""]
            lines += [
                f"- {escaped(_describe(one))}" + (f" *{escaped(one.remedy)}*" if one.remedy else "") for one in found
            ]
    return "\n".join([*lines, *(["", graph] if graph else []), ""])


def as_json(standings: list[Standing]) -> str:
    """Format the standings with their properties, so that a reader need not know the ids of findings."""
    unused = ("off",) if with_maturity(standings) else ("next_maturity", "lacks", "off")
    services = [
        {name: value for name, value in one.to_json().items() if name not in unused}
        | {"state": word(one), "drift": one.drift, "conventions_failed": one.failed, "conventions_waived": one.waived}
        for one in standings
    ]
    return json.dumps({"day": str(today()), "summary": summary(standings), "services": services}, indent=2) + "\n"


def sentence(standings: list[Standing]) -> str:
    """Return the summary for people."""
    numbers = summary(standings)
    total = numbers.pop("services")
    return f"{count(total, 'service')}: {', '.join(f'{number} {what}' for what, number in numbers.items() if number)}"


def versions(standings: Iterable[Standing]) -> Counter[str]:
    """Count the services by their version of the template."""
    return Counter(one.version for one in standings if one.version)


def format_counts(numbers: dict[str, int]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in numbers.items())


def _describe(finding: Finding) -> str:
    counts = f" from {finding.since}" if finding.level is Level.NOTICE and finding.since else ""
    return f"{finding.level}{counts}, {finding.id}: {place(finding.path, finding.line)}{finding.reason}."


def place(path: str, line: int) -> str:
    """Return the file and line of a finding as the beginning of a sentence; empty without a path."""
    return f"{path}{f':{line}' if line else ''}: " if path else ""
