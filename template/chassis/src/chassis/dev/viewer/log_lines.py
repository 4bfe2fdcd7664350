"""Read log lines: JSON as the chassis logs it, and any other text as it is."""

import json
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from chassis.dev.viewer.otlp import LAST_TIME, MAX_NAME, MAX_TEXT, plain

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
IDS = {"trace_id": re.compile("[0-9a-f]{32}"), "span_id": re.compile("[0-9a-f]{16}")}


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line with the ids of its trace, span and request, each empty if the line has none."""

    trace_id: str
    parent_id: str
    """The span in which the line was logged."""
    request_id: str
    service: str
    start_ns: int
    level: int
    content: str
    """The line for the page, as JSON."""


def read(line: bytes, service: str, stream: str = "stdout") -> LogLine:
    """Read a line of any content. A line that is not JSON becomes a line whose event is its text.

    Its level is info, or warning from `stderr`, where a traceback of Python goes.
    """
    try:
        return _read(_facts(line, stream), service)
    except RecursionError:  # JSON that json reads may still be nested too deep for the functions below
        return _read(_text(line, stream), service)


def _read(facts: dict[str, Any], service: str) -> LogLine:
    ids = {name: text if pattern.fullmatch(text := str(facts.pop(name, ""))) else "" for name, pattern in IDS.items()}
    level = str(facts.pop("level", "info"))
    content = {
        "event": _clean(facts.pop("event", ""))[:MAX_TEXT],
        "level": level if level in LEVELS else "info",
        "service": _clean(facts.pop("service", service))[:MAX_NAME],
        "request": _clean(facts.pop("request_id", ""))[:MAX_TEXT],
        "trace": ids["trace_id"],
    }
    start = _nanoseconds(facts.pop("timestamp", None))
    return LogLine(
        trace_id=ids["trace_id"],
        parent_id=ids["span_id"],
        request_id=content["request"],
        service=content["service"],
        start_ns=start,
        level=LEVELS[content["level"]],
        content=_clean(json.dumps(content | {"facts": plain(facts)}, ensure_ascii=False)),
    )


def _facts(line: bytes, stream: str) -> dict[str, Any]:
    try:
        facts = json.loads(line)
    except (ValueError, RecursionError):
        facts = None
    return facts if isinstance(facts, dict) else _text(line, stream)


def _text(line: bytes, stream: str) -> dict[str, Any]:
    return {"event": line.decode(errors="replace"), "level": "warning" if stream == "stderr" else "info"}


def _clean(value: Any) -> str:
    """Make a text that UTF-8 can encode: JSON may hold a lone surrogate."""
    return str(value).encode(errors="replace").decode()


def _nanoseconds(timestamp: Any) -> int:
    try:
        since = datetime.fromisoformat(timestamp) - datetime(1970, 1, 1, tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        return time.time_ns()
    return min(max((since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000, 0), LAST_TIME)
