"""Print the map: a table for a terminal, JSON for programs, and the sections in the Markdown and HTML of `fleet status`."""

import json
from collections.abc import Mapping
from dataclasses import asdict

from jinja2 import Environment, StrictUndefined
from rich.table import Table
from rich.text import Text

from fleet import output
from fleet.check.findings import Level, without_empty_since
from fleet.check.show import STYLES
from fleet.map.drawing import arrows, sentence
from fleet.map.mermaid import mermaid
from fleet.map.model import Map, MapFinding
from fleet.map.svg import svg
from fleet.output import count, escaped

SECTION = """\
<p>{{ sentence }}.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Map">{{ graph | safe }}</div>
{% if found %}
<ul class="findings">
{% for one in found %}
<li class="{{ one.finding.level }}"><strong>{{ one.finding.id }}</strong> <span class="level">{{ one.finding.level }}</span>
<p>{{ one.services | join(", ") }}: {{ one.finding.reason }}</p>
{% if one.finding.remedy %}
<p class="remedy">→ {{ one.finding.remedy }}</p>
{% endif %}
<p class="why">{{ one.finding.why }}</p></li>
{% endfor %}
</ul>
{% endif %}
"""


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
    levels = [one.finding.level for one in found]
    parts = [count(levels.count(level), level.value) for level in (Level.ERROR, Level.WARNING) if level in levels]
    return f"{sentence(map_)}; {' and '.join(parts) or 'no findings'}"


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
    """Format the content of a section of fleet/page, with its styles. `links` are the targets of clicks on services."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    drawn = svg(map_, found, links)
    return environment.from_string(SECTION).render(sentence=sentence(map_), graph=drawn, found=found)
