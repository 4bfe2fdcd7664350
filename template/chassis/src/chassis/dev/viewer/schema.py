"""The tables of the viewer, and its longer statements."""

VERSION = 1
"""The number of the tables below. A file with another number is deleted."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS trace (
    id TEXT PRIMARY KEY, rank INTEGER, service TEXT, name TEXT, path TEXT, status INTEGER, start INTEGER,
    duration INTEGER, spans INTEGER, bytes INTEGER, failed INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS trace_start ON trace (start);
CREATE TABLE IF NOT EXISTS part (
    trace TEXT, service TEXT, spans INTEGER, failed INTEGER, PRIMARY KEY (trace, service)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS span (
    trace TEXT, id TEXT, parent TEXT, start INTEGER, content TEXT, PRIMARY KEY (trace, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hop (
    trace TEXT, id TEXT, parent TEXT, start INTEGER, end INTEGER, kind TEXT, service TEXT, peer TEXT, failed INTEGER,
    PRIMARY KEY (trace, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS hop_start ON hop (start);
CREATE INDEX IF NOT EXISTS hop_parent ON hop (trace, parent);
CREATE TABLE IF NOT EXISTS log (
    number INTEGER PRIMARY KEY, trace TEXT, span TEXT, request TEXT, service TEXT, time INTEGER, level INTEGER,
    bytes INTEGER, content TEXT
);
CREATE INDEX IF NOT EXISTS log_trace ON log (trace) WHERE trace <> '';
CREATE INDEX IF NOT EXISTS log_request ON log (request) WHERE request <> '';
"""
"""A `part` is what one service has in a trace. A `hop` is a span of a request or a message between services."""

# The new summary is made from the batch and the former summary: to read all spans of the trace again at each batch would
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
SUMMARISE_PART = """
INSERT INTO part VALUES (?, ?, ?, ?)
ON CONFLICT (trace, service) DO UPDATE SET spans = spans + excluded.spans, failed = failed + excluded.failed
"""

DELETE = (
    "DELETE FROM span WHERE trace = ?",
    "DELETE FROM hop WHERE trace = ?",
    "DELETE FROM part WHERE trace = ?",
    "DELETE FROM trace WHERE id = ?",
)

FIND_TRACES = """
FROM trace
WHERE (:text = '' OR instr(lower(id || ' ' || name || ' ' || path), lower(:text)))
  AND (:service = '' OR EXISTS (SELECT 1 FROM part WHERE part.trace = trace.id AND part.service = :service))
  AND (:status = '' OR status GLOB :status || '*')
  AND duration >= :at_least AND failed >= :failed
"""

PARTS = """
SELECT json_group_array(json_array(service, spans, failed)) FROM (
    SELECT * FROM part WHERE trace = ? ORDER BY spans DESC, service LIMIT 20
)
"""

FIND_LINES = """
SELECT * FROM log
WHERE level >= :level AND (:trace = '' OR trace = :trace) AND (:service = '' OR service = :service)
  AND (:text = '' OR instr(lower(content), lower(:text)))
ORDER BY number DESC LIMIT :listed
"""
