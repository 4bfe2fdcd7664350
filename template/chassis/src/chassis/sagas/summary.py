"""One saga of a list as JSON: its steps, without parameters, results and answers, which may be personal data."""

import json
from collections.abc import Mapping
from typing import Any

LONGEST = 200
"""The longest name of a step, in characters."""


def summary(row: Mapping[str, Any]) -> dict[str, Any]:
    times = {name: row[name] and row[name].isoformat() for name in ("started_at", "deadline")}
    facts = {name: row[name] for name in ("name", "key", "state", "position", "problem", "reason")}
    trace = row["traceparent"].split("-")[1] if row["traceparent"] else None
    steps = [_step(step) for step in json.loads(row["steps"])]
    return {"id": str(row["id"]), **facts, **times, "trace_id": trace, "steps": steps}


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    """Keep how the step ended: `answer` and `error` are names of classes."""
    kept = {name: step[name] for name in ("at", "answer", "undone", "by_hand") if name in step}
    error = {"error": step["error"].partition(":")[2]} if "error" in step else {}
    return {"name": step["name"][:LONGEST], **kept, **error}
