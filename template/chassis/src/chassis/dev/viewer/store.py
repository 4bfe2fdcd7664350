"""Keep spans and log lines in SQLite, bounded, with a summary of each trace for the list."""

import json
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from chassis.dev.viewer import schema, traffic
from chassis.dev.viewer.log_lines import LEVELS, LogLine
from chassis.dev.viewer.otlp import Span
from chassis.dev.viewer.product import Edge
from chassis.dev.viewer.rows import row_of, rows_of, summarise

MAX_SPANS = 200_000
MAX_LINES = 100_000
MAX_BYTES = 512 * 1024 * 1024
"""The bytes of text that are kept of spans, and as many of log lines."""

SPARE = 0.05
"""The share of a limit that is freed once the limit is exceeded, so that not every batch has to remove entries."""

LISTED = 500
"""The most traces or log lines of an answer."""

MOST_SERVICES = 100
"""The names of services that a reader can choose from: a stranger could send any number."""

COUNT_LINES = "SELECT count(*), coalesce(sum(bytes), 0) FROM log"


class Entry(NamedTuple):
    """A span, or a log line, which has no id. The content is JSON for the page."""

    span_id: str
    parent_id: str
    start_ns: int
    content: str


class Store:
    """Store spans and log lines in an SQLite file. Any thread may write and read.

    The file is deleted at the end, and before the start, unless `keep`.
    """

    def __init__(
        self, file: Path, *, keep: bool = False, max_spans: int = MAX_SPANS, max_lines: int = MAX_LINES
    ) -> None:
        self._file, self._keep = file, keep
        if not (keep and self._is_readable()):
            self._delete()
        self._max_spans, self._max_lines = max_spans, max_lines
        self._database = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._database.row_factory = sqlite3.Row
        self._database.executescript(
            f"PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA user_version = {schema.VERSION};"
            + schema.SCHEMA
        )
        ((self._spans, self._span_bytes),) = self._all(
            "SELECT coalesce(sum(spans), 0), coalesce(sum(bytes), 0) FROM trace"
        )
        ((self._lines, self._line_bytes),) = self._all(COUNT_LINES)
        names = self._all("SELECT service FROM part UNION SELECT service FROM log LIMIT ?", (MOST_SERVICES,))
        self._services = {name for (name,) in names}
        self._version = 0
        self._changed = threading.Condition()

    def _is_readable(self) -> bool:
        """Whether the file has our tables, and is not damaged by a crash of the machine."""
        try:
            with closing(sqlite3.connect(self._file)) as database:
                ((version,),) = database.execute("PRAGMA user_version")
                ((health,),) = database.execute("PRAGMA quick_check")
        except sqlite3.DatabaseError:
            return False
        return version == schema.VERSION and health == "ok"

    def close(self) -> None:
        with self._changed:
            self._version = -1
            self._changed.notify_all()
            self._database.close()
        if not self._keep:
            self._delete()

    def _delete(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._file.with_name(self._file.name + suffix).unlink(missing_ok=True)

    def touch(self) -> None:
        """Wake the readers that wait for a change, because something other than the store has changed."""
        with self._changed:
            self._version += self._version >= 0
            self._changed.notify_all()

    def wait(self, seen: int, timeout: float) -> int:
        """Wait up to `timeout` for a change after the change `seen`. Return the number of the newest change; -1 after the end."""
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
        rows = rows_of(batch)
        before = self._database.total_changes
        # An exporter that got no answer sends its batch again.
        self._database.executemany("INSERT OR IGNORE INTO span VALUES (?, ?, ?, ?, ?)", rows)
        added = self._database.total_changes - before
        size = sum(len(row[-1]) for row in rows) if added else 0
        about = summarise(batch) | {"spans": added, "bytes": size}
        self._database.execute(schema.SUMMARISE, about)
        self._database.execute(schema.RENAME, about)
        if added:
            self._add_parts(trace_id, batch)
        self._spans += added
        self._span_bytes += size

    def _add_parts(self, trace_id: str, batch: list[Span]) -> None:
        parts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for span in batch:
            parts[span.service][0] += 1
            parts[span.service][1] += span.status == "ERROR"
        self._database.executemany(schema.SUMMARISE_PART, [(trace_id, name, *part) for name, part in parts.items()])
        hops = filter(None, map(traffic.hop, batch))
        self._database.executemany("INSERT OR IGNORE INTO hop VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", hops)
        self._remember(parts)

    def _remember(self, services: Iterable[str]) -> None:
        if len(self._services) < MOST_SERVICES:
            self._services |= set(services)

    def _drop_old_traces(self) -> None:
        if self._spans <= self._max_spans and self._span_bytes <= MAX_BYTES:
            return
        for trace_id, spans, size in self._all("SELECT id, spans, bytes FROM trace ORDER BY start"):
            if self._spans <= self._max_spans * (1 - SPARE) and self._span_bytes <= MAX_BYTES * (1 - SPARE):
                return
            for statement in schema.DELETE:
                self._database.execute(statement, (trace_id,))
            self._spans -= spans
            self._span_bytes -= size

    def add_lines(self, lines: Iterable[LogLine]) -> None:
        rows = [row_of(line) for line in lines]
        with self._changed, self._transaction():
            self._database.executemany("INSERT INTO log VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self._lines += len(rows)
            self._line_bytes += sum(row[6] for row in rows)
            self._remember(row[3] for row in rows)
            if self._lines > self._max_lines or self._line_bytes > MAX_BYTES:
                self._drop_old_lines()

    def _drop_old_lines(self) -> None:
        """Drop the oldest lines: a small share if there are too many, or half of them if they take too many bytes."""
        dropped = int(self._max_lines * SPARE) if self._line_bytes <= MAX_BYTES else self._lines // 2
        self._database.execute(
            "DELETE FROM log WHERE number < (SELECT min(number) FROM log) + ?",
            (max(dropped, self._lines - self._max_lines),),
        )
        ((self._lines, self._line_bytes),) = self._all(COUNT_LINES)

    def traces(
        self, *, text: str = "", service: str = "", status: str = "", at_least: int = 0, failed: bool = False
    ) -> dict[str, Any]:
        """Return the newest traces whose name, path or id contains the text, and the number of all of them.

        `status` is the beginning of an HTTP status. `at_least` is a duration in nanoseconds.
        """
        wanted = {"text": text, "service": service, "status": status, "at_least": at_least, "failed": failed}
        with self._changed:
            ((count,),) = self._all(f"SELECT count(*) {schema.FIND_TRACES}", wanted)
            rows = self._all(f"SELECT * {schema.FIND_TRACES} ORDER BY start DESC, id LIMIT {LISTED}", wanted)
            parts = [self._all(schema.PARTS, (row["id"],))[0][0] for row in rows]
        kept = ("id", "service", "name", "path", "status", "duration", "spans", "failed")
        return {
            "count": count,
            "traces": [
                {name: row[name] for name in kept} | {"start": in_utc(row["start"]), "services": json.loads(part)}
                for row, part in zip(rows, parts, strict=True)
            ],
        }

    def lines(
        self, *, text: str = "", level: str = "debug", trace: str = "", service: str = ""
    ) -> list[dict[str, Any]]:
        """Return the newest log lines that contain the text, of this level or a higher one."""
        wanted = {"text": text, "level": LEVELS.get(level, 0), "trace": trace, "service": service, "listed": LISTED}
        with self._changed:
            rows = self._all(schema.FIND_LINES, wanted)
        return [{"number": row["number"], "time": in_utc(row["time"]), **json.loads(row["content"])} for row in rows]

    def services(self) -> list[str]:
        with self._changed:
            return sorted(self._services)

    def edges(self, seconds: int, peers: Mapping[str, str], declared: Collection[Edge] | None) -> dict[str, Any]:
        """Return which services used each other in the last seconds: see `traffic.edges`."""
        # Use a new connection: this may take a part of a second, and services send spans meanwhile.
        with closing(sqlite3.connect(self._file)) as database:
            database.row_factory = sqlite3.Row
            return traffic.edges(database, time.time_ns() - seconds * 10**9, peers, declared)

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
