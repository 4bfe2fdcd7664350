"""The state of the database: reachable or not, and with or without the migrations of this version."""

import re
from enum import StrEnum
from pathlib import Path

import asyncpg

from chassis.database.outages import UNREACHABLE
from chassis.database.statements import Executor

LACKING = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InvalidSchemaNameError)
"""The errors of statements in a database that lacks migrations. A statement with a mistake has the same errors."""

STATE = """
    SELECT current_setting('transaction_read_only') = 'on' AS read_only, NOT EXISTS (
        SELECT FROM unnest($1::text[]) AS needed (revision)
        WHERE needed.revision NOT IN (SELECT migrations.revision FROM chassis.migrations)
    ) AS migrated
"""
_REVISION = re.compile(r"""^revision\b[^=\n]*=\s*["'](.+)["']""", re.MULTILINE)


class State(StrEnum):
    """The state of the database, as a probe finds and reports it."""

    OK = "ok"
    UNREACHABLE = "unreachable"
    UNMIGRATED = "migrations missing: run `migrate`"


def newest_revisions(*folders: Path | None) -> list[str]:
    """Read the revision of the newest migration of the chassis, and of each folder.

    Alembic is not imported for this, because its import would take a quarter of the time of a start.
    """
    found: list[str] = []
    for folder in filter(None, (Path(__file__).parent / "migrations" / "versions", *folders)):
        for newest in sorted(folder.glob("[!_]*_*.py"))[-1:]:
            found += _REVISION.findall(newest.read_text("utf-8"))
    return found


async def is_unmigrated(connection: Executor, revisions: list[str]) -> bool:
    try:
        ((_, migrated),) = await connection.fetch(STATE, revisions)
    except LACKING:
        return True
    except UNREACHABLE:
        return False
    return not migrated
