"""Keep spans and log lines in SQLite, bounded, with a summary of each trace for the list."""

import json
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from chassis.dev.viewer.log_lines import LEVELS, LogLine
from chassis.dev.viewer.otlp import LAST_TIME, Span, plain

MAX_SPANS = 200_000
MAX_LINES = 100_000
MAX_BYTES = 512 * 1024 * 1024
"""The bytes of text that are kept of spans, and as many of log lines."""

SPARE = 0.05
"""The share that is removed beyond a limit, so that not each batch removes something."""

LISTED = 500
"""The most traces or log lines of an answer."""

SCHEMA = """
CREATE TABLE trace (
    id TEXT PRIMARY KEY, rank INTEGER, service TEXT, name TEXT, path TEXT, status INTEGER, start INTEGER,
    duration INTEGER, spans INTEGER, bytes INTEGER, failed INTEGER
) WITHOUT ROWID;
CREATE INDEX trace_start ON trace (start);
CREATE TABLE span (trace TEXT, id TEXT, parent TEXT, start INTEGER, content TEXT, PRIMARY KEY (trace, id)) WITHOUT ROWID;
CREATE TABLE log (
    number INTEGER PRIMARY KEY, trace TEXT, span TEXT, request TEXT, time INTEGER, level INTEGER, bytes INTEGER,
    content TEXT
);
CREATE INDEX log_trace ON log (trace) WHERE trace <> '';
CREATE INDEX log_request ON log (request) WHERE request <> '';
"""

# The summary follows from the batch and the summary of before: reading the spans of the trace again at each batch would
# take quadratic time. The first span without a parent, or else the first span, gives the trace its name.
SUMMARISE = """
INSERT INTO trace VALUES (:id, :rank, :service, :name, :path, :status, :start, :duration, :spans, :bytes, :failed)
ON CONFLICT (id) DO UPDATE SET
    spans = spans + excluded.spans, bytes = bytes + excluded.bytes, failed = max(failed, excluded.failed)
"""
RENAME = """
UPDATE trace SET rank = :rank, service = :service, name = :name, path = :path, status = :status, start = :start,
    duration = :duration
WHERE id = :id AND rank > :rank
"""

FIND_TRACES = """
FROM trace
WHERE (:text = '' OR instr(lower(id || ' ' || name || ' ' || path), lower(:text)))
  AND (:service = '' OR service = :service)
  AND (:status = '' OR status GLOB :status || '*')
  AND duration >= :at_least AND failed >= :failed
"""

FIND_LINES = """
SELECT * FROM log
WHERE level >= :level AND (:trace = '' OR trace = :trace) AND (:text = '' OR instr(lower(content), lower(:text)))
ORDER BY number DESC LIMIT :listed
"""


class Entry(NamedTuple):
    """A span, or a log line, which has no id. The content is JSON for the page."""

    span_id: str
    parent_id: str
    start_ns: int
    content: str


class Store:
    """One writer and any number of readers, from any thread. The file is deleted at the end, and before the start."""

    def __init__(self, file: Path, *, max_spans: int = MAX_SPANS, max_lines: int = MAX_LINES) -> None:
        self._file = file
        self._delete()
        self._max_spans, self._max_lines = max_spans, max_lines
        self._database = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._database.row_factory = sqlite3.Row
        self._database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;" + SCHEMA)
        self._spans = self._span_bytes = self._lines = self._line_bytes = 0
        self._version = 0
        self._changed = threading.Condition()

    def close(self) -> None:
        with self._changed:
            self._version = -1
            self._changed.notify_all()
            self._database.close()
        self._delete()

    def _delete(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._file.with_name(self._file.name + suffix).unlink(missing_ok=True)

    def wait(self, seen: int, timeout: float) -> int:
        """Return the number of the newest change, once it is another than `seen`; -1 after the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._version != seen, timeout)
            return self._version

    def add_spans(self, spans: Iterable[Span]) -> None:
        traces: dict[str, list[Span]] = defaultdict(list)
        for span in spans:
            traces[span.trace_id].append(span)
        with self._changed, self._transaction():
            for trace_id, batch in traces.items():
                self._add_batch(trace_id, batch)
            self._drop_old_traces()

    def _add_batch(self, trace_id: str, batch: list[Span]) -> None:
        rows = [(trace_id, span.span_id, span.parent_id, span.start_ns, _content(span)) for span in batch]
        before = self._database.total_changes
        # An exporter that got no answer sends its batch again.
        self._database.executemany("INSERT OR IGNORE INTO span VALUES (?, ?, ?, ?, ?)", rows)
        added = self._database.total_changes - before
        size = sum(len(row[-1]) for row in rows) if added else 0
        first = min(batch, key=_rank)
        summary = {
            "id": trace_id,
            "rank": _rank(first),
            "service": first.service,
            "name": first.name,
            "path": str(plain(first.attributes.get("url.path", ""))),
            "status": _status(first),
            "start": first.start_ns,
            "duration": first.end_ns - first.start_ns,
            "spans": added,
            "bytes": size,
            "failed": any(span.status == "ERROR" for span in batch),
        }
        self._database.execute(SUMMARISE, summary)
        self._database.execute(RENAME, summary)
        self._spans += added
        self._span_bytes += size

    def _drop_old_traces(self) -> None:
        if self._spans <= self._max_spans and self._span_bytes <= MAX_BYTES:
            return
        for trace_id, spans, size in self._all("SELECT id, spans, bytes FROM trace ORDER BY start"):
            if self._spans <= self._max_spans * (1 - SPARE) and self._span_bytes <= MAX_BYTES * (1 - SPARE):
                return
            self._database.execute("DELETE FROM span WHERE trace = ?", (trace_id,))
            self._database.execute("DELETE FROM trace WHERE id = ?", (trace_id,))
            self._spans -= spans
            self._span_bytes -= size

    def add_lines(self, lines: Iterable[LogLine]) -> None:
        rows = [
            (each.trace_id, each.parent_id, each.request_id, each.start_ns, each.level, len(each.content), each.content)
            for each in lines
        ]
        with self._changed, self._transaction():
            self._database.executemany("INSERT INTO log VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", rows)
            self._lines += len(rows)
            self._line_bytes += sum(row[5] for row in rows)
            if self._lines > self._max_lines or self._line_bytes > MAX_BYTES:
                self._drop_old_lines()

    def _drop_old_lines(self) -> None:
        """Drop a part of the lines, or the older half if they are large."""
        dropped = int(self._max_lines * SPARE) if self._line_bytes <= MAX_BYTES else self._lines // 2
        self._database.execute(
            "DELETE FROM log WHERE number < (SELECT min(number) FROM log) + ?",
            (max(dropped, self._lines - self._max_lines),),
        )
        ((self._lines, self._line_bytes),) = self._all("SELECT count(*), coalesce(sum(bytes), 0) FROM log")

    def traces(
        self, *, text: str = "", service: str = "", status: str = "", at_least: int = 0, failed: bool = False
    ) -> dict[str, Any]:
        """Return the newest traces whose name, path or id contains the text, and the number of all of them.

        `status` is the beginning of an HTTP status. `at_least` is a duration in nanoseconds.
        """
        wanted = {"text": text, "service": service, "status": status, "at_least": at_least, "failed": failed}
        with self._changed:
            ((count,),) = self._all(f"SELECT count(*) {FIND_TRACES}", wanted)
            rows = self._all(f"SELECT * {FIND_TRACES} ORDER BY start DESC, id LIMIT {LISTED}", wanted)
        kept = ("id", "service", "name", "path", "status", "duration", "spans", "failed")
        return {
            "count": count,
            "traces": [{name: row[name] for name in kept} | {"start": in_utc(row["start"])} for row in rows],
        }

    def lines(self, *, text: str = "", level: str = "debug", trace: str = "") -> list[dict[str, Any]]:
        """Return the newest log lines that contain the text, of this level or a higher one."""
        wanted = {"text": text, "level": LEVELS.get(level, 0), "trace": trace, "listed": LISTED}
        with self._changed:
            rows = self._all(FIND_LINES, wanted)
        return [{"number": row["number"], "time": in_utc(row["time"]), **json.loads(row["content"])} for row in rows]

    def trace_of(self, identifier: str) -> str | None:
        """Return the id of the trace that has this id, or whose request has this X-Request-Id."""
        with self._changed:
            found = self._all(
                "SELECT id FROM trace WHERE id = :id UNION ALL SELECT trace FROM log WHERE trace = :id AND trace <> '' "
                "UNION ALL SELECT trace FROM log WHERE request = :id AND request <> '' AND trace <> '' LIMIT 1",
                {"id": identifier},
            )
            return found[0][0] if found else None

    def entries(self, trace_id: str) -> list[Entry]:
        """Return the spans and the log lines of a trace, in the order of the tree."""
        with self._changed:
            spans = self._all("SELECT id, parent, start, content FROM span WHERE trace = ?", (trace_id,))
            lines = self._all(
                "SELECT '', span, time, content FROM log WHERE trace = ? AND trace <> '' ORDER BY number", (trace_id,)
            )
        return [Entry(*row) for row in (*spans, *lines)]

    def size(self, trace_id: str) -> str:
        """Return a text that changes with each span or line of a trace."""
        with self._changed:
            ((spans,),) = self._all("SELECT coalesce(sum(spans), 0) FROM trace WHERE id = ?", (trace_id,))
            ((lines,),) = self._all("SELECT count(*) FROM log WHERE trace = ? AND trace <> ''", (trace_id,))
        return f"{spans}-{lines}"

    def _all(self, query: str, values: Mapping[str, Any] | tuple = ()) -> list[sqlite3.Row]:
        return self._database.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Generator[None]:
        self._database.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")
        self._version += 1
        self._changed.notify_all()


def in_utc(nanoseconds: int) -> str:
    """Return a time as ISO 8601, because JavaScript has no numbers for nanoseconds since 1970."""
    return (
        datetime.fromtimestamp(nanoseconds // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{nanoseconds % 10**9:09}Z"
    )


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
