"""The map as Mermaid, which GitHub and GitLab draw in Markdown."""

import re
from collections.abc import Iterable

from fleet.map.drawing import arrows
from fleet.map.model import Found, Kind, Map

LINES = {Kind.CALL: "-->", Kind.EVENT: "-.->", Kind.JOB: "==>"}
# Of the services that it lists together, GitHub draws 500 arrows.
NAMED = 3


def mermaid(map_: Map, found: Iterable[Found]) -> str:
    """Calls are solid lines, events dotted ones, jobs thick ones. Red is what has a finding."""
    ids = {name: f"n{number}" for number, name in enumerate(map_.nodes)}
    lines = ["flowchart LR"]
    for name, id_ in ids.items():
        lines.append(f'    {id_}["{_text(name)}"]{"" if map_.nodes[name] else ":::outside"}')
    wrong = []
    for number, arrow in enumerate(arrows(map_, found)):
        names = [_text(name) for name in arrow.names[:NAMED]]
        names += [f"and {len(arrow.names) - NAMED} more"] if len(arrow.names) > NAMED else []
        what = "" if arrow.kind is Kind.CALL and arrow.names == (arrow.target,) else f'|"{"<br/>".join(names)}"|'
        lines.append(f"    {ids[arrow.source]} {LINES[arrow.kind]}{what} {ids[arrow.target]}")
        wrong += [str(number)] if arrow.is_wrong else []
    lines.append("    classDef outside stroke-dasharray:5 5")
    if wrong:
        lines.append(f"    linkStyle {','.join(wrong)} stroke:#d33")
    return "\n".join(lines) + "\n"


def _text(name: str) -> str:
    """As an entity what means something to Mermaid or HTML. A label is no Markdown unless it is in backticks."""
    return re.sub(r"[^\w .,:/()+-]", lambda found: f"#{ord(found[0])};", " ".join(name.split()) or "?")
