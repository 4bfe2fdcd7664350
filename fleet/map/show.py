"""Print the map: a table for a terminal, JSON for programs, and the sections in the Markdown and HTML of `fleet status`."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined
from rich.table import Table
from rich.text import Text

from fleet import output
from fleet.check.findings import Level, without_empty_since
from fleet.check.show import STYLES
from fleet.map.cards import cards, grouped
from fleet.map.drawing import arrows, describe_service, printable, sentence, who
from fleet.map.mermaid import mermaid
from fleet.map.model import Map, MapFinding
from fleet.map.svg import DASHES, LEGEND, ON_A_PAGE, svg
from fleet.output import count, escaped

_Listed = tuple[int, MapFinding, list[tuple[str, bool]]]

LEVELS = ((Level.ERROR, "Errors"), (Level.WARNING, "Warnings"), (Level.NOTICE, "Notices"), (Level.WAIVED, "Waived"))


def table(map_: Map, found: list[MapFinding], *, width: int | None = None) -> str:
    """Format the edges, then the findings: as wide as the terminal, or of the given width without colours."""
    edges = Table("from", "", "to", "what", box=None, pad_edge=False)
    for arrow in arrows(map_, found):
        cells = (arrow.source, arrow.kind, arrow.target, ", ".join(arrow.names))
        edges.add_row(*(Text(cell, overflow="fold") for cell in cells), style="red" if arrow.is_wrong else "")
    wrong = Table("", "service", "what", "do", box=None, pad_edge=False)
    for one in found:
        cells = (one.finding.id, ", ".join(one.services), one.finding.reason, one.finding.remedy)
        wrong.add_row(*(Text(cell, overflow="fold") for cell in cells), style=STYLES[one.finding.level])
    console = output.console(width=width, no_color=True if width else None)
    with console.capture() as printed:
        if edges.row_count:
            console.print(edges)
        if found:
            console.print()
            console.print(wrong)
            console.print("\nwhy", style="dim")
            for id_, why in {one.finding.id: one.finding.why for one in found}.items():
                console.print(Text(f"  {id_}: {why}", style="dim"))
        console.print(Text(f"\n{summary(map_, found)}"))
    return printed.get()


def summary(map_: Map, found: list[MapFinding]) -> str:
    """Return the numbers of services, edges and findings as a sentence."""
    return f"{sentence(map_)}; {format_levels(found)}"


def format_levels(found: list[MapFinding]) -> str:
    levels = [one.finding.level for one in found]
    parts = [count(levels.count(level), level.value) for level in (Level.ERROR, Level.WARNING) if level in levels]
    return " and ".join(parts) or "no findings"


def as_json(map_: Map, found: list[MapFinding]) -> str:
    written = {
        "services": {name: facts.to_json() for name, facts in map_.services.items()},
        "unread": map_.unread,
        "edges": [asdict(edge) for edge in map_.edges],
        "findings": [
            {"services": one.services, **asdict(one.finding, dict_factory=without_empty_since)} for one in found
        ],
    }
    return json.dumps(written, indent=2) + "\n"


def markdown(map_: Map, found: list[MapFinding]) -> str:
    """Format a section in Markdown: the drawing, which GitHub and GitLab render, and the findings."""
    lines = [
        "## Calls and messages between services",
        "",
        f"{sentence(map_)}.",
        "",
        "```mermaid",
        mermaid(map_, found).rstrip(),
        "```",
        "",
    ]
    for one in found:
        text = f"{one.finding.level}, {one.finding.id}: {', '.join(one.services)}: {one.finding.reason}."
        lines.append(f"- {escaped(text)}" + (f" *{escaped(one.finding.remedy)}*" if one.finding.remedy else ""))
    return "\n".join(lines) + "\n"


def html(map_: Map, found: list[MapFinding], links: Mapping[str, str] | None = None) -> str:
    """Format the content of a section of fleet/page. `links` are the targets of details by the names in fleet.toml."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    details = {map_.names.get(name, name): link for name, link in (links or {}).items()}
    environment.filters["printable"] = printable
    targets = {name: f"#map/{quote(printable(name), safe='')}" for name in map_.nodes}
    template = files("fleet.map").joinpath("section.html.jinja").read_text(encoding="utf-8")
    levels = Counter(one.finding.level for one in found)
    return environment.from_string(template).render(
        sentence=sentence(map_),
        tally=format_levels(found),
        graph=svg(map_, found, targets),
        targets=targets,
        found=found,
        levels=LEVELS,
        groups={level: _grouped(map_, found, level) for level, _ in LEVELS},
        numbers=levels,
        services=len(map_.nodes),
        legend=(*LEGEND, *ON_A_PAGE),
        dashes=defaultdict(str, DASHES),
        listing=[
            (title, [(name, _words(map_, name), details.get(name)) for name in names])
            for title, names in grouped(cards(map_)).items()
        ],
    )


def _grouped(map_: Map, found: list[MapFinding], level: Level) -> list[tuple[str, str, str, list[_Listed]]]:
    """Return the findings of a level by their id, with the reason and the remedy that they share, and with their numbers."""
    groups: dict[tuple[str, str], list[_Listed]] = {}
    for number, one in enumerate(found, 1):
        if one.finding.level is level:
            listed = number, one, who(map_, one)
            groups.setdefault((one.finding.id, one.finding.why), []).append(listed)
    return [(id_, why, _shared(listed), listed) for (id_, why), listed in groups.items()]


def _shared(listed: list[_Listed]) -> str:
    """Return the remedy that several findings share; an empty text if they have different remedies."""
    remedies = {one.finding.remedy for _, one, _ in listed}
    return remedies.pop() if len(listed) > 1 and len(remedies) == 1 else ""


def _words(map_: Map, name: str) -> str:
    return describe_service(map_, name).removeprefix(f"{name}: ")
