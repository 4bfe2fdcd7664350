"""The map as Mermaid, which GitHub and GitLab draw in Markdown."""

import re
from collections.abc import Iterable

from fleet.map.drawing import arrows
from fleet.map.model import Kind, Map, MapFinding

LINES = {Kind.CALL: "-->", Kind.EVENT: "-.->", Kind.JOB: "==>"}
# The most names on one arrow.
NAMED = 3


def mermaid(map_: Map, found: Iterable[MapFinding]) -> str:
    """Draw the map: calls as solid lines, events as dotted lines, jobs as thick lines, and faults in red."""
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
    """Escape the characters that Mermaid or HTML interpret. Mermaid reads Markdown only within backticks."""
    return re.sub(r"[^\w .,:/()+-]", lambda found: f"#{ord(found[0])};", " ".join(name.split()) or "?")
