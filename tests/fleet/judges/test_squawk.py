"""The created and changed tables of new migrations are read from statements, and not from comments and texts."""

from pathlib import Path

import pytest

from fleet.judges.squawk import _statements, judge
from fleet.service.service import Service
from tests.fleet.services import commit
from tests.support.commands import git

PATH = "src/billing/migrations/versions/0002_change.py"
MIGRATION = '''"""Change."""
from alembic import op

revision = "0002"


def upgrade() -> None:
'''
INDEX = "CREATE INDEX ix_number ON billing.invoices (number)"
NOT_NULL = "ALTER TABLE billing.invoices ALTER COLUMN note SET NOT NULL"


def rules(folder: Path, *statements: str) -> list[str]:
    """Return the findings in a migration that executes these statements."""
    git(folder, "init", "--quiet")
    (folder / PATH).parent.mkdir(parents=True)
    (folder / PATH).write_text(MIGRATION + "".join(f"    op.execute({sql!r})\n" for sql in statements))
    commit(folder)
    return [one.rule for one in judge(Service(folder, "HEAD", "HEAD"), [PATH])]


HIDDEN = (
    "-- CREATE TABLE billing.t (id int)\nSELECT 1",
    "/* CREATE TABLE billing.t (id int) */ SELECT 1",
    "/* /* */ CREATE TABLE billing.t (id int); */ SELECT 1",
    "COMMENT ON TABLE billing.t IS 'CREATE TABLE billing.t (id int)'",
    "SELECT E'\\'; CREATE TABLE billing.t (id int); --'",
    "SELECT $$; CREATE TABLE billing.t (id int)$$",
)


@pytest.mark.slow
def test_a_table_that_only_a_comment_or_a_text_creates_is_in_use(tmp_path: Path) -> None:
    tables = [(sql.replace("billing.t ", f"billing.t{number} "), f"t{number}") for number, sql in enumerate(HIDDEN)]
    statements = [one for sql, name in tables for one in (sql, INDEX.replace("invoices", name))]
    assert rules(tmp_path, *statements).count("require-concurrent-index-creation") == len(HIDDEN)


@pytest.mark.slow
def test_a_table_that_the_migrations_create_is_not_in_use(tmp_path: Path) -> None:
    created = "/* A new\n table */ CREATE TABLE\n billing.invoices (id int)"
    assert "require-concurrent-index-creation" not in rules(tmp_path, created, INDEX)


@pytest.mark.slow
def test_a_first_statement_excuses_no_later_statement(tmp_path: Path) -> None:
    change_new = "ALTER TABLE billing.new ADD COLUMN a int; "
    found = rules(
        tmp_path,
        "CREATE TABLE billing.new (id int)",
        f"/* Now */ {NOT_NULL}",
        f"-- Now\n{NOT_NULL}",
        change_new + NOT_NULL,
        change_new + INDEX,
    )
    assert (found.count("requiring-value"), found.count("require-concurrent-index-creation")) == (3, 1)


def test_statements_are_told_apart_as_postgresql_does() -> None:
    sql = """SELECT ';', "a;--b" -- ; no
    /* ; /* ; */ ; */ FROM t; ; DO $x$ BEGIN; $$ ; $$ END $x$; SELECT 1 -- the end"""
    assert [one for one in _statements(sql) if one] == ["""SELECT '', "a;--b" FROM t""", "DO ''", "SELECT 1"]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (r"SELECT date'\'; DROP TABLE t; --'", ["SELECT date''", "DROP TABLE t"]),
        (r"SELECT E'\'; DROP TABLE t; --'", ["SELECT ''"]),
        ("SELECT a$$ FROM t; DROP TABLE t; SELECT b$$", ["SELECT a$$ FROM t", "DROP TABLE t", "SELECT b$$"]),
        (
            "PREPARE p AS SELECT $1$2; DROP TABLE t; SELECT $1$2",
            ["PREPARE p AS SELECT $1$2", "DROP TABLE t", "SELECT $1$2"],
        ),
    ],
    ids=["type before a text", "text with escapes", "name with dollars", "parameters"],
)
def test_no_text_begins_within_a_word(sql: str, expected: list[str]) -> None:
    assert list(_statements(sql)) == expected
