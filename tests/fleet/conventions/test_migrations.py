"""Each convention about migrations, broken in one way."""

import re
from pathlib import Path

import pytest

from tests.fleet.conventions.mutations import (
    Broken,
    Mutations,
    append,
    both,
    each_alone,
    edit,
    only,
    remove,
    violations,
)
from tests.fleet.services import commit
from tests.support.commands import git

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("conventions")]

VERSIONS = "src/billing/migrations/versions"
FIRST = f"{VERSIONS}/0001_create_invoices.py"


def migration(*statements: str, revision: str = "0002", after: str = "0001", says: str = "", name: str = "") -> Broken:
    """Write a new migration with these statements."""
    lines = [
        f'"""Change. {says}"""\n',
        "import sqlalchemy as sa",
        "from alembic import op\n",
        *([f"# contract: {says}"] if says else []),
        f'revision = "{revision}"',
        f'down_revision = "{after}"\n\n',
        "def upgrade() -> None:",
        *(f"    {line}" for statement in statements or ["pass"] for line in statement.splitlines()),
    ]
    return append(f"{VERSIONS}/{name or f'{revision}_change.py'}", "\n".join(lines) + "\n")


NOBODY = "1.4 no longer reads it"
DROP = 'op.drop_column("invoices", "note", schema="billing")'
INDEX = 'op.create_index("ix_number", "invoices", ["number"], schema="billing")'
CONCURRENTLY = (
    "with op.get_context().autocommit_block():\n"
    '    op.create_index("ix_number", "invoices", ["number"], schema="billing", postgresql_concurrently=True)'
)
NOT_NULL = 'op.alter_column("invoices", "note", nullable=False, schema="billing", existing_type=sa.Text)'
NOT_VALID = (
    'op.create_check_constraint("there", "invoices", "note IS NOT NULL", schema="billing", postgresql_not_valid=True)'
)
VALIDATE = 'op.execute("ALTER TABLE billing.invoices VALIDATE CONSTRAINT there")'


def outside(*statements: str) -> str:
    """Put these statements outside of the transaction."""
    return "\n".join(["with op.get_context().autocommit_block():", *(f"    {statement}" for statement in statements)])


MUTATIONS: Mutations = {
    "two ends": (
        "migration-one-head",
        both(migration(), migration(revision="0003")),
        "the migration is one of 2 heads: 0002, 0003",
    ),
    "a number twice": (
        "migration-one-head",
        both(migration(), migration(name="0002_too.py")),
        "0002 is the id of 2 migrations",
    ),
    "a gap": (
        "migration-one-head",
        migration(revision="0003", after="0002"),
        "the migration comes after 0002, which is missing",
    ),
    "a circle": (
        "migration-one-head",
        both(migration(after="0003"), migration(revision="0003", after="0002")),
        "the migration comes after itself",
    ),
    "an edit": (
        "migration-unedited",
        edit(FIRST, "String(40)", "String(80)"),
        "the migration differs from the base branch",
    ),
    "a removal": ("migration-unedited", remove(FIRST), "the migration is on the base branch, and is missing here"),
    "an index that blocks writers": (
        "migration-safe",
        migration(INDEX),
        "table updates are blocked, but reads are still allowed. Use `concurrently` to avoid blocking writes. (require-",
    ),
    "the service's code": (
        "migration-safe",
        migration("import billing.domain.invoices"),
        "without a database and without the service's code: it imports billing.domain.invoices, and may import only alembic, sqlalchemy",
    ),
    "what is no SQL": ("migration-safe", migration('op.execute("ALTER TABL billing.invoices")'), "(syntax-error)"),
    "what cannot be run again": (
        "migration-repeatable",
        migration(NOT_VALID, outside(VALIDATE)),
        "the next `migrate` runs it again, and fails",
    ),
    "a column goes": ("migration-expand-contract", migration(DROP), "Dropping a column may break existing clients"),
}


test_only_the_convention_that_is_broken_fails = each_alone(MUTATIONS)


def test_an_unused_column_and_a_careful_migration_pass(service: Path) -> None:
    table = 'op.create_table("lines", sa.Column("id", sa.Uuid, primary_key=True), schema="billing")'
    default = (
        'op.add_column("invoices", sa.Column("kind", sa.Text, nullable=False, server_default="a"), schema="billing")'
    )
    migration(CONCURRENTLY, DROP, table, default, says=NOBODY)(service)
    # A table that this branch itself creates is not in use yet.
    on_the_new_one = [
        'op.create_index("ix_lines", "lines", ["id"], schema="billing")',
        'op.drop_table("lines", schema="billing")',
    ]
    migration(*on_the_new_one, revision="0003", after="0002")(service)
    assert violations(service) == []


def test_a_squash_that_names_the_replaced_migrations_passes(service: Path) -> None:
    text = (service / FIRST).read_text()
    assert "branch_labels = None" in text
    remove(FIRST)(service)
    append(
        f"{VERSIONS}/0001_everything.py", text.replace("branch_labels", 'replaces = "0123456789abcdef"\nbranch_labels')
    )(service)
    assert violations(service) == []


# Maps a line of a migration to the rules that the line breaks.
LINES: dict[str, set[str]] = {
    INDEX: {"require-concurrent-index-creation"},
    'op.alter_column("invoices", "note", type_=sa.String(9), schema="billing")': {"changing-column-type"},
    'op.alter_column("invoices", "note", new_column_name="remark", schema="billing")': {"renaming-column"},
    'op.rename_table("invoices", "bills", schema="billing")': {"renaming-table"},
    NOT_NULL: {"adding-not-nullable-field", "requiring-value"},
    'op.add_column("invoices", sa.Column("kind", sa.Text, nullable=False), schema="billing")': {
        "adding-required-field"
    },
    'op.execute("drop table billing.invoices; drop view billing.totals")': {"ban-drop-table", "ban-drop-view"},
    'op.execute(sa.text("UPDATE billing.invoices SET note = :note").bindparams(note="it\'s; 100 %"))': set(),
    'op.get_bind().execute(sa.text("SELECT 1")).scalar()': {"the migration cannot be read as SQL without a database"},
}


def test_each_finding_names_the_line_of_the_migration_and_the_rule(service: Path) -> None:
    migration(*LINES)(service)
    text = (service / VERSIONS / "0002_change.py").read_text().splitlines()
    found: dict[str, set[str]] = {line: set() for line in LINES}
    for one in violations(service):
        rule = re.search(r"\(([a-z-]+)\)$", one.reason)
        found[text[one.line - 1].strip()].add(
            rule[1] if rule else one.reason.partition(" and without the service's code")[0]
        )
    assert found == LINES


def test_after_a_constraint_has_checked_a_column_only_callers_that_omit_the_column_are_hurt(service: Path) -> None:
    migration(NOT_VALID)(service)
    migration(VALIDATE, NOT_NULL, revision="0003", after="0002")(service)
    only(service, "migration-expand-contract", "without a value for this column. (requiring-value)")


# Maps a statement outside of the transaction to whether the statement can run twice.
OUTSIDE = {
    "op.execute(\"ALTER TYPE billing.kind ADD VALUE 'c'\")": False,
    "op.execute(\"ALTER TYPE billing.kind ADD VALUE IF NOT EXISTS 'b'\")": True,
    'op.drop_index("ix_number", "invoices", schema="billing", postgresql_concurrently=True)': False,
    'op.drop_index("ix_due", "invoices", schema="billing", postgresql_concurrently=True, if_exists=True)': True,
    'op.execute("CREATE INDEX CONCURRENTLY ON billing.invoices (number)")': False,
    'op.execute("CREATE UNIQUE INDEX CONCURRENTLY uq ON billing.invoices (number)")': True,
    'op.execute("REINDEX INDEX CONCURRENTLY billing.ix_number")': True,
    'op.execute("UPDATE billing.invoices SET version = version + 1")': False,
    'op.execute("INSERT INTO billing.invoices DEFAULT VALUES")': False,
    'op.add_column("invoices", sa.Column("b", sa.Text), schema="billing")': False,
    'op.add_column("invoices", sa.Column("c", sa.Text), schema="billing", if_not_exists=True)': True,
    VALIDATE: True,
}


def test_a_statement_that_cannot_be_run_again_is_reported_with_its_line(service: Path) -> None:
    migration(outside(*OUTSIDE))(service)
    text = (service / VERSIONS / "0002_change.py").read_text().splitlines()
    found = {text[one.line - 1].strip() for one in violations(service) if one.id == "migration-repeatable"}
    assert found == {line for line, repeatable in OUTSIDE.items() if not repeatable}


def test_a_migration_of_a_branch_is_judged_and_not_run(service: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    git(service, "switch", "--quiet", "--create", "harm")
    migration(f'import os; open("{seen}", "w").write(os.environ["HOME"])')(service)
    commit(service)
    (one,) = violations(service, "harm")
    assert (one.id, one.line) == ("migration-safe", 11)
    assert "it imports os" in one.reason
    assert not seen.exists()


def test_a_comment_in_the_sql_approves_nothing(service: Path) -> None:
    """squawk itself would skip the rule, or the whole file."""
    migration('op.execute("-- squawk-ignore-file")', f'op.execute("-- squawk-ignore ban-drop-column")\n{DROP}')(service)
    only(service, "migration-expand-contract", "Dropping a column may break existing clients. (ban-drop-column)")


def test_a_file_name_that_is_a_pattern_is_judged(service: Path) -> None:
    migration(DROP, name="0002_[!a]*.py")(service)
    only(service, "migration-expand-contract", "Dropping a column may break existing clients. (ban-drop-column)")
