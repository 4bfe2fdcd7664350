"""Recognise statements that PostgreSQL does not roll back, and remove their leftovers."""

import re

from sqlalchemy import Connection, text

CONCURRENTLY = re.compile(r"\bCONCURRENTLY\b", re.IGNORECASE)
CREATE = re.compile(
    r"\bCREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?P<repeatable>IF\s+NOT\s+EXISTS\s+)?(?P<name>\S+)\s+"
    r"ON\s+(?P<table>[^\s(]+)",
    re.IGNORECASE,
)
REINDEX = re.compile(r"\bREINDEX\s+.*\bCONCURRENTLY\b", re.IGNORECASE)

LEFT_BY_CREATE = text("""
    SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indrelid = to_regclass(:table) AND relname = (parse_ident(:name))[1] AND (NOT indisvalid OR NOT :repeatable)
""")
LEFT_BY_REINDEX = text("""
    SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE relnamespace = CAST(:schema AS regnamespace) AND NOT indisvalid AND relname ~ '_cc(new|old)[0-9]*$'
""")


def waits_long(statement: str) -> bool:
    """Return whether the statement is allowed to wait for long transactions: it blocks no reader or writer while it waits."""
    return CONCURRENTLY.search(statement) is not None


def remove(connection: Connection, schema: str, statement: str) -> None:
    """Drop the index that an interrupted run of this statement has left in this schema.

    Such an index is invalid, or it is complete and the run stopped before it recorded the migration.
    """
    if created := CREATE.search(statement):
        repeatable = created["repeatable"] is not None
        values = {"table": created["table"], "name": created["name"], "repeatable": repeatable}
        found = connection.scalars(LEFT_BY_CREATE, values).all()
    elif REINDEX.search(statement):
        found = connection.scalars(LEFT_BY_REINDEX, {"schema": schema}).all()
    else:
        return
    for index in found:
        connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY {index}")
