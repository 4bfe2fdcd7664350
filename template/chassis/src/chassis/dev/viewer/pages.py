"""Render one trace: JSON for the page, and text to copy."""

import json
from collections.abc import Iterable
from typing import Any

from chassis.dev.viewer.store import Entry, in_utc
from chassis.dev.viewer.tree import draw, in_tree_order


def trace_as_json(trace_id: str, entries: Iterable[Entry]) -> str:
    """Return the entries as a tree in reading order. Times are nanoseconds after the first entry."""
    ordered = in_tree_order(entries)
    began = min(entry.start_ns for entry, _ in ordered)
    # The contents are JSON already: to read and write them again would take most of the time of 10,000 spans.
    rows = [
        f'{{"id":"{entry.span_id}","parent":"{entry.parent_id}","depth":{depth},"offset":{entry.start_ns - began},'
        + entry.content[1:]
        for entry, depth in ordered
    ]
    return f'{{"id":"{trace_id}","start":"{in_utc(began)}","entries":[{",".join(rows)}]}}'


def trace_as_text(entries: Iterable[Entry]) -> str:
    return draw(_row(json.loads(entry.content), depth) for entry, depth in in_tree_order(entries))


def _row(content: dict[str, Any], depth: int) -> tuple[int, str, str, str, str]:
    if "event" in content:
        return depth, f"{content['level']}: {content['event']}", content["service"], "", json.dumps(content["facts"])
    failure = f"FAILED {content['message']}" if content["failed"] else ""
    statement = content["attributes"].get("db.query.text", "")
    return (
        depth,
        content["name"],
        content["service"],
        f"{content['duration'] / 1e6:.1f} ms",
        f"{failure} {statement}".strip(),
    )
