"""Judge new migrations by squawk, as the SQL that Alembic makes from them."""

import glob
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from fleet.errors import FleetError
from fleet.judges import tools
from fleet.service.service import Service

PROGRAM = str(Path(__file__).with_name("migration_sql") / "program.py")
POSTGRES = "18"

# Rules of squawk that do not count: rules about style, about time limits, which the chassis sets, and about changes that no
# statement of a service notices.
LEFT_OUT = re.compile(
    "prefer-.*|require-(lock|statement)-timeout|require-timeout-settings|require-enum-value-ordering|ban-char-field"
    "|ban-drop-(constraint|not-null)|renaming-object"
)

# These patterns match one statement, without comments and the contents of texts.
CREATES = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?([^\s(]+)", re.IGNORECASE)
CHANGES = re.compile(
    r"(?:ALTER TABLE|DROP TABLE|CREATE (?:UNIQUE )?INDEX\b.*? ON)(?: IF EXISTS)?(?: ONLY)? ([^\s(]+)", re.IGNORECASE
)
# squawk judges only the lock, and accepts SET NOT NULL after a constraint that makes the lock short.
REQUIRES = re.compile(r"ALTER TABLE .*SET NOT NULL", re.IGNORECASE)
REQUIRED = "requiring-value", "The version that still runs fails when it writes a row without a value for this column."


# Statements that may run twice without a failure, so they may be committed before the migration is recorded.
REPEATABLE = re.compile(
    r"""
    BEGIN\b | COMMIT\b | SET\s | ANALYZE\b | COMMENT\s+ON\s | REFRESH\s | REINDEX\s
    | CREATE\s+OR\s+REPLACE\s
    | (CREATE|DROP)\s.*?\sIF\s+(NOT\s+)?EXISTS\s
    | CREATE\s+(UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?!ON\s)\S+\s+ON\s  # the chassis drops what an interrupted run left
    | ALTER\s+TYPE\s+\S+\s+ADD\s+VALUE\s+IF\s+NOT\s+EXISTS\s
    | ALTER\s+TABLE\s+(IF\s+EXISTS\s+)?\S+\s+(
        VALIDATE\s+CONSTRAINT\s
        | ADD\s+COLUMN\s+IF\s+NOT\s+EXISTS\s
        | DROP\s+(COLUMN|CONSTRAINT)\s+IF\s+EXISTS\s
        | ALTER\s+(COLUMN\s+)?\S+\s+(SET|DROP)\s
    )
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
UNREPEATABLE = (
    "not-repeatable",
    "The autocommit block commits this statement before the migration is recorded. If the migration stops after it, the "
    "next `migrate` runs it again, and fails.",
)


@dataclass(frozen=True)
class Violation:
    """A finding in a migration. `rule` is squawk's, and empty if the migration could not be read as SQL."""

    path: str
    line: int
    rule: str
    what: str


class _Origin(NamedTuple):
    """The statement that a line of the script belongs to, and its line in the migration."""

    path: str
    line: int
    sql: str


def _origins(migrations: dict[str, dict[str, Any]]) -> Iterator[tuple[str, _Origin]]:
    """Yield each line of the script, in which each migration has a transaction of its own, with its origin."""
    for path, migration in migrations.items():
        for sql, line in [("BEGIN;", 0), *migration["statements"], ("COMMIT;", 0)]:
            origin = _Origin(path, line, sql.strip())
            yield from ((text, origin) for text in origin.sql.splitlines())


def judge(service: Service, paths: list[str]) -> list[Violation]:
    """Judge migrations, which follow each other in this order. Raises FleetError."""
    if not paths:
        return []
    versions = " ".join(
        f"{name} {version(name)}" for name in ("squawk-cli", "alembic", "sqlalchemy", "restrictedpython")
    )
    patterns = tuple(map(glob.escape, paths))
    entries = service.compute_once(
        f"migrations 6 {versions}", patterns, lambda folder: [asdict(one) for one in _judged(folder, paths)]
    )
    return [Violation(**entry) for entry in entries]


def _judged(folder: Path, paths: list[str]) -> Iterator[Violation]:
    migrations = _read_as_sql(folder, paths)
    for path, migration in migrations.items():
        if migration["error"]:
            yield Violation(path, migration["line"], "", migration["error"])
        for sql, line in _committed_early(migration["statements"]):
            if not all(REPEATABLE.match(f"{statement} ") for statement in _statements(sql)):
                yield Violation(path, line, *UNREPEATABLE)
    script = list(_origins(migrations))
    statements = {origin: list(_statements(origin.sql)) for origin in dict.fromkeys(origin for _, origin in script)}
    # A table that these migrations create is empty, and no service uses the table yet.
    created = {found[1] for group in statements.values() for one in group if (found := CREATES.match(one))}

    def changes_used_table(statement: str) -> bool:
        changed = CHANGES.match(statement)
        return changed is None or changed[1] not in created

    for origin, group in statements.items():
        if any(REQUIRES.match(one) and changes_used_table(one) for one in group):
            yield Violation(origin.path, origin.line, *REQUIRED)
    for one in _squawk(folder, "\n".join(text for text, _ in script)):
        _, origin = script[min(one["line"], len(script) - 1)]  # squawk counts lines from 0
        if not LEFT_OUT.fullmatch(one["rule_name"]) and any(map(changes_used_table, statements[origin] or [""])):
            what = " ".join(filter(None, (one["message"], one["help"])))
            yield Violation(origin.path, origin.line, one["rule_name"], what)


_TOKEN = re.compile(
    r"""
    (?P<line>--[^\n]*)
    | (?P<block>/\*)
    | (?P<text>
        (?<![\w$])[eE]'(?:[^'\\]|\\.|'')*'
        | '(?:[^']|'')*'
        | (?<![\w$])(?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?P=tag)
    )
    | (?P<name>"[^"]*")
    | (?P<end>;)
    """,
    re.DOTALL | re.VERBOSE,
)
_OF_BLOCKS = re.compile(r"/\*|\*/")


def _statements(sql: str) -> Iterator[str]:
    """Yield each statement on one line, without its comments, and '' in the place of each text."""
    statement, at = "", 0
    while token := _TOKEN.search(sql, at):
        statement += sql[at : token.start()]
        at = token.end()
        if token["block"]:
            at, statement = _end_of_block(sql, at), f"{statement} "
        elif token["end"]:
            yield " ".join(statement.split())
            statement = ""
        else:
            statement += " " if token["line"] else "''" if token["text"] else token["name"]
    if rest := " ".join((statement + sql[at:]).split()):
        yield rest


def _end_of_block(sql: str, at: int) -> int:
    """Find the end of a comment. In PostgreSQL, comments nest."""
    depth = 1
    while depth and (found := _OF_BLOCKS.search(sql, at)):
        depth, at = depth + (1 if found[0] == "/*" else -1), found.end()
    return len(sql) if depth else at


def _committed_early(statements: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return the statements up to the end of the last autocommit block."""
    begins = [index for index, (sql, _) in enumerate(statements) if sql.strip().startswith("BEGIN")]
    return statements[: begins[-1]] if begins else []


def _read_as_sql(folder: Path, paths: list[str]) -> dict[str, dict[str, Any]]:
    """Read migrations by fleet/judges/migration_sql, in a process without our variables."""
    output = folder / "statements.json"
    files = [str(folder / path) for path in paths]
    done = tools.run([sys.executable, "-I", PROGRAM, str(output), *files], cwd=folder)
    if done.returncode < 0:
        raise FleetError("reading the new migrations takes more time or memory than fleet allows: simplify them")
    if done.returncode != 0:
        raise FleetError(f"the migrations could not be read: {done.stderr.strip()[-500:]}")
    migrations = json.loads(output.read_text())
    return {path: migrations[file] for path, file in zip(paths, files, strict=True)}


def _squawk(folder: Path, script: str) -> list[dict[str, Any]]:
    # Only a waiver approves a finding, and not a comment in the SQL.
    (folder / "migrations.sql").write_text(script.replace("squawk-ignore", "squawk_ignore"))
    options = ("--config", os.devnull, "--reporter", "json", "--pg-version", POSTGRES)
    done = tools.run([tools.program("squawk"), *options, "migrations.sql"], cwd=folder)
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise FleetError(f"squawk could not be run: {done.stderr.strip()[-500:]}") from None
