"""Turn spans and log lines into rows of the store."""

import json
from typing import Any

from chassis.dev.viewer.log_lines import LogLine
from chassis.dev.viewer.otlp import LAST_TIME, Span, plain


def rows_of(batch: list[Span]) -> list[tuple[str, str, str, int, str]]:
    return [(span.trace_id, span.span_id, span.parent_id, span.start_ns, _content(span)) for span in batch]


def summarise(batch: list[Span]) -> dict[str, Any]:
    """Describe a trace by the spans of a batch. The first span without a parent, or else the first span, names it."""
    first = min(batch, key=_rank)
    return {
        "id": first.trace_id,
        "rank": _rank(first),
        "service": first.service,
        "name": first.name,
        "path": str(plain(first.attributes.get("url.path", ""))),
        "status": _status(first),
        "start": first.start_ns,
        "duration": first.end_ns - first.start_ns,
        "failed": any(span.status == "ERROR" for span in batch),
    }


def row_of(line: LogLine) -> tuple[Any, ...]:
    about = (line.trace_id, line.parent_id, line.request_id, line.service, line.start_ns, line.level)
    return (*about, len(line.content), line.content)


def _rank(span: Span) -> int:
    """Order the spans of a trace: first the spans without a parent, by time, and then all others, by time."""
    return span.start_ns // 2 + (LAST_TIME if span.parent_id else 0)


def _status(span: Span) -> int | None:
    status = span.attributes.get("http.response.status_code")
    return status if isinstance(status, int) else None


def _content(span: Span) -> str:
    return json.dumps(
        {
            "service": span.service,
            "name": span.name,
            "kind": span.kind,
            "duration": span.end_ns - span.start_ns,
            "failed": span.status == "ERROR",
            "message": span.message,
            "attributes": plain(span.attributes),
            "events": [(name, plain(attributes)) for name, attributes in span.events],
            "links": span.links,
        },
        ensure_ascii=False,  # so that a search finds every letter
    )
