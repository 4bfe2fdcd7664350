"""Migrations run once for several processes, completely or not at all, and match the tables in the code."""

import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from alembic.operations import ops
from chassis.database import metadata_for, migrate, safe_steps
from chassis.service import Service

from tests.chassis.processes import environment
from tests.support.paths import ROOT
from tests.support.query import ask

EIGHT_AT_ONCE = """
import multiprocessing, sys
from chassis.database import migrate
from tests.chassis.tiny.main import SERVICE
fork = multiprocessing.get_context("fork")
children = [fork.Process(target=migrate.upgrade, args=(SERVICE, sys.argv[1])) for _ in range(8)]
for child in children:
    child.start()
for child in children:
    child.join()
print([child.exitcode for child in children])
"""

ADDED = 'op.add_column("things", sa.Column("{}", {}, nullable=True), schema="tiny")'

FAILS_HALFWAY = """
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("things", sa.Column("half", sa.Integer()), schema="tiny")
    op.execute("SELECT 1 / 0")
"""


def tables(*extra: sa.Column | sa.Index | sa.CheckConstraint, **changed: sa.Column) -> sa.MetaData:
    """Make the tiny service's table with other or additional columns."""
    metadata = metadata_for("tiny")
    columns = {
        "id": sa.Column("id", sa.Uuid, primary_key=True),
        "name": sa.Column("name", sa.String(40), nullable=False),
        "email": sa.Column("email", sa.String(80), nullable=True, unique=True),
    }
    unique = sa.UniqueConstraint("name", deferrable=True, initially="DEFERRED")
    sa.Table("things", metadata, *(columns | changed).values(), unique, *extra)
    return metadata


def revision(url: str) -> str:
    """Return the revisions of the database: the service's own, and the chassis'."""
    return ask(url, "SELECT string_agg(version_num, ',' ORDER BY version_num) FROM tiny.alembic_version")


@pytest.mark.slow
def test_eight_processes_that_migrate_at_once_all_succeed(empty_database: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", EIGHT_AT_ONCE, empty_database],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert result.stdout.strip() == str([0] * 8), result.stderr
    assert revision(empty_database) == "0001,chassis_0003"
    assert ask(empty_database, "SELECT to_regclass('tiny.things')") is not None


def test_migrating_again_changes_nothing(service: Service, empty_database: str) -> None:
    migrate.upgrade(service, empty_database)
    before = ask(empty_database, "SELECT oid FROM pg_class WHERE relname = 'things'")
    migrate.upgrade(service, empty_database)

    assert ask(empty_database, "SELECT oid FROM pg_class WHERE relname = 'things'") == before


TWICE = (
    "INSERT INTO tiny.things (id, name, email) SELECT gen_random_uuid(), n::text, 'a@b' FROM generate_series(1, 2) n"
)


@pytest.mark.parametrize(
    ("statement", "shown"),
    [("SELECT 1 / 0", "division by zero"), (TWICE, r".*unique constraint.*\nKey \(email\)=\(a@b\) already exists\.")],
)
def test_a_migration_that_fails_shows_its_cause_and_leaves_nothing_of_itself(
    copy: Service, empty_database: str, statement: str, shown: str
) -> None:
    migrate.upgrade(copy, empty_database)
    (package_path,) = copy.package.__path__
    Path(package_path, "migrations", "versions", "0002_fails.py").write_text(
        FAILS_HALFWAY.replace("SELECT 1 / 0", statement)
    )

    with pytest.raises(migrate.MigrationFailed, match=rf"^a migration failed: {shown}\n{re.escape(statement)}"):
        migrate.upgrade(copy, empty_database)

    assert revision(empty_database) == "0001,chassis_0003"
    columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'things'"
    assert ask(empty_database, columns) == 3


def test_two_branches_that_add_one_each_are_told_apart_before_anything_is_migrated(
    copy: Service, empty_database: str
) -> None:
    (package_path,) = copy.package.__path__
    for name in ("0002_theirs.py", "0002_ours.py"):
        Path(package_path, "migrations", "versions", name).write_text(FAILS_HALFWAY)
    message = "0002_ours.py and 0002_theirs.py have the same number. .* the next number"
    with pytest.raises(migrate.MigrationFailed, match=message):
        migrate.upgrade(copy, empty_database)
    with pytest.raises(migrate.MigrationFailed, match=message):
        migrate.write_next(copy, empty_database, "more")
    assert ask(empty_database, "SELECT to_regclass('tiny.things')") is None


def test_a_database_of_another_service_is_refused_and_stays_unchanged(service: Service, empty_database: str) -> None:
    migrate.upgrade(service, empty_database)
    schemas = "SELECT string_agg(nspname, ',' ORDER BY nspname) FROM pg_namespace"
    before = ask(empty_database, schemas)

    second = dataclasses.replace(service, name="second", tables=metadata_for("second"))

    with pytest.raises(migrate.DatabaseUnusable, match=r"to another service \(tiny\), .* create a database for second"):
        migrate.upgrade(second, empty_database)

    assert ask(empty_database, schemas) == before


def test_migrations_that_make_the_tables_in_the_code_pass_the_check(service: Service, empty_database: str) -> None:
    migrate.upgrade(service, empty_database)
    ask(empty_database, "CREATE TABLE public.not_ours ()")
    ask(empty_database, "CREATE SCHEMA other")
    ask(empty_database, "CREATE TABLE other.not_ours_either ()")

    migrate.check(service, empty_database)


DIFFERENCES: dict[str, Callable[[], sa.MetaData]] = {
    "colour": lambda: tables(sa.Column("colour", sa.Text)),
    "ix_things_email": lambda: tables(sa.Index(None, "email")),
    "nullable": lambda: tables(email=sa.Column("email", sa.String(80), nullable=False, unique=True)),
    "VARCHAR(length=80), String(length=90)": lambda: tables(email=sa.Column("email", sa.String(90), unique=True)),
    "remove_constraint": lambda: tables(email=sa.Column("email", sa.String(80))),
    "default": lambda: tables(email=sa.Column("email", sa.String(80), unique=True, server_default="x")),
    "ck_things_name_length": lambda: tables(sa.CheckConstraint("length(name) > 0", name="name_length")),
    "remove_table": lambda: metadata_for("tiny"),
}


@pytest.mark.parametrize("what", DIFFERENCES)
def test_a_difference_fails_the_check_and_is_named(service: Service, database_url: str, what: str) -> None:
    changed = dataclasses.replace(service, tables=DIFFERENCES[what]())

    with pytest.raises(migrate.MigrationsBehind) as found:
        migrate.check(changed, database_url)

    assert what in str(found.value)


WORDS = "to_tsvector('simple', name || ' ' || coalesce(email, ''))"


@pytest.mark.slow
def test_an_index_on_an_expression_is_compared_as_postgres_rewrites_the_expression(
    copy: Service, empty_database: str
) -> None:
    migrate.upgrade(copy, empty_database)

    def indexed(lower: str) -> Service:
        words = sa.Index("ix_words", sa.literal_column(WORDS), postgresql_using="gin")
        return dataclasses.replace(copy, tables=tables(words, sa.Index("ix_lower", sa.text(lower), "email")))

    migrate.write_next(indexed("lower(name) DESC"), empty_database, "Index the words")
    migrate.upgrade(copy, empty_database)
    migrate.check(indexed("lower(name) DESC"), empty_database)

    for different in ("upper(name) DESC", "lower(name)"):
        with pytest.raises(migrate.MigrationsBehind, match="only in the code: CREATE INDEX ix_lower "):
            migrate.check(indexed(different), empty_database)


@pytest.mark.slow
def test_the_next_migration_makes_a_sequence_before_the_column_with_its_numbers(
    copy: Service, empty_database: str
) -> None:
    migrate.upgrade(copy, empty_database)
    metadata = tables(sa.Column("serial", sa.BigInteger))
    serials = sa.Sequence("Serials", metadata=metadata)
    metadata.tables["tiny.things"].c.serial.server_default = sa.DefaultClause(serials.next_value())
    copy = dataclasses.replace(copy, tables=metadata)
    with pytest.raises(migrate.MigrationsBehind):
        migrate.check(copy, empty_database)
    (written,) = migrate.write_next(copy, empty_database, "number the things")
    assert ADDED.format("serial", "sa.BigInteger()") in written.read_text()
    ask(empty_database, "INSERT INTO tiny.things (id, name) VALUES (gen_random_uuid(), 'older')")
    migrate.upgrade(copy, empty_database)
    migrate.check(copy, empty_database)
    assert ask(empty_database, "SELECT serial FROM tiny.things") is None
    ask(empty_database, "DELETE FROM tiny.things")
    ask(empty_database, "INSERT INTO tiny.things (id, name) VALUES (gen_random_uuid(), 'a')")
    assert ask(empty_database, "SELECT serial FROM tiny.things") == 1
    migrate.undo_newest(copy, empty_database)
    assert ask(empty_database, "SELECT count(*) FROM pg_sequences WHERE schemaname = 'tiny'") == 0


@pytest.mark.parametrize(
    ("default", "later"),
    [
        (sa.text("gen_random_uuid()::text"), True),
        (sa.func.lower("X"), True),
        ("a (plain) text", False),
        (sa.text("'x'"), False),
        (sa.func.now(), False),
        (sa.text("now()"), False),
        (sa.text("CURRENT_TIMESTAMP"), False),
    ],
)
def test_a_default_that_would_rewrite_the_table_comes_after_its_column(default: Any, later: bool) -> None:
    def column(name: str, *, nullable: bool) -> sa.Column:
        return sa.Column(name, sa.Text, server_default=default, nullable=nullable)

    added = [ops.AddColumnOp("things", column(name, nullable=name == "optional")) for name in ("optional", "required")]
    upgrade = ops.UpgradeOps([ops.ModifyTableOps("things", added)])
    safe_steps.shorten(upgrade)
    [group] = upgrade.ops
    names = [type(each).__name__ for each in group.ops]
    assert names == ["AddColumnOp", *(["AlterColumnOp"] if later else []), "AddColumnOp"]
    assert (group.ops[0].column.server_default is None) is later
    assert group.ops[-1] is added[-1]


@pytest.mark.slow
def test_the_next_migration_has_the_next_number_and_makes_the_difference(copy: Service, empty_database: str) -> None:
    migrate.upgrade(copy, empty_database)

    for number, column in (("0002", "colour"), ("0003", "weight")):
        names = ("colour", "weight") if number == "0003" else ("colour",)
        copy = dataclasses.replace(copy, tables=tables(*(sa.Column(name, sa.Text) for name in names)))
        (written,) = migrate.write_next(copy, empty_database, f"Add {column}, and more!")
        assert written.name.startswith(f"{number}_add_{column}")
        migrate.upgrade(copy, empty_database)
        assert revision(empty_database) == f"{number},chassis_0003"
        migrate.check(copy, empty_database)


INDEX_BLOCK = "    with op.get_context().autocommit_block():\n        op."


def with_makers(*more: sa.schema.SchemaItem) -> sa.MetaData:
    """Make two tables. The first may refer to the second."""
    metadata = tables(*more)
    sa.Table("makers", metadata, sa.Column("id", sa.Uuid, primary_key=True))
    return metadata


def test_migrations_of_a_table_with_rows_let_other_sessions_go_on(copy: Service, empty_database: str) -> None:
    migrate.upgrade(copy, empty_database)
    rules = (
        sa.UniqueConstraint("name", "email"),
        sa.Index("ix_things_email", "email"),
        sa.ForeignKeyConstraint(["maker"], ["tiny.makers.id"]),
    )

    def made(*more: sa.schema.SchemaItem) -> sa.MetaData:
        return with_makers(sa.Column("maker", sa.Uuid), *more)

    by_column = sa.Column("maker2", sa.Uuid, sa.ForeignKey("tiny.makers.id"), index=True, unique=True)
    states = {
        "columns": (made(), ["columns"]),
        "rules": (made(*rules), ["rules", "validate_rules"]),
        "fewer": (made(), ["fewer", "index_fewer"]),
        "column": (made(by_column, sa.Index("ix_email", "email")), ["column", "index_column", "validate_column"]),
        "no_column": (made(), ["no_column", "index_no_column"]),
    }
    for message, (metadata, files) in states.items():
        copy = dataclasses.replace(copy, tables=metadata)
        written = migrate.write_next(copy, empty_database, message)
        assert [path.stem[5:] for path in written] == files
        migrate.upgrade(copy, empty_database)
        migrate.check(copy, empty_database)
        for path in written:
            assert "###" not in path.read_text()
            done = path.read_text().partition("def upgrade")[2].partition("def downgrade")[0]
            assert "create_unique_constraint" not in done
            assert ("postgresql_concurrently" in done) == (INDEX_BLOCK in done)
            assert done.count("_index(") == done.count("postgresql_concurrently=True")
            assert not ("drop_column" in done and "ix_things_maker2" in done)
            assert done.count("create_foreign_key(") == done.count("postgresql_not_valid=True")
    for _ in copy.versions.glob("[0-9]*.py"):
        if max(copy.versions.glob("[0-9]*.py")).name.startswith("0001"):
            break
        migrate.undo_newest(copy, empty_database)
        max(copy.versions.glob("[0-9]*.py")).unlink()
    assert revision(empty_database) == "0001,chassis_0003"
    migrate.check(dataclasses.replace(copy, tables=tables()), empty_database)


def test_the_next_migration_validates_a_foreign_key_after_a_failure_has_left_the_validation_out(
    copy: Service, empty_database: str
) -> None:
    migrate.upgrade(copy, empty_database)
    ask(empty_database, "INSERT INTO tiny.things (id, name) VALUES (gen_random_uuid(), 'a'), (gen_random_uuid(), 'b')")
    kind = sa.Column("kind", sa.String(9), server_default="x", nullable=False, unique=True)
    metadata = with_makers(sa.Column("maker", sa.Uuid, sa.ForeignKey("tiny.makers.id")), kind)
    copy = dataclasses.replace(copy, tables=metadata)
    with pytest.raises(migrate.MigrationFailed, match=r"Key \(kind\)=\(x\) is duplicated"):
        migrate.write_next(copy, empty_database, "kinds")
    ask(empty_database, "DELETE FROM tiny.things")
    migrate.upgrade(copy, empty_database)
    migrate.write_next(copy, empty_database, "rest")
    migrate.upgrade(copy, empty_database)
    migrate.check(copy, empty_database)
    left = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'tiny.things'::regclass AND NOT convalidated"
    assert ask(empty_database, left) == 0
    name = ask(
        empty_database, "SELECT conname FROM pg_constraint WHERE conrelid = 'tiny.things'::regclass AND contype = 'f'"
    )
    key = f"CONSTRAINT {name} FOREIGN KEY (maker) REFERENCES tiny.makers NOT VALID"
    ask(empty_database, f"ALTER TABLE tiny.things DROP CONSTRAINT {name}, ADD {key}")
    with pytest.raises(migrate.MigrationsBehind, match=f"NOT VALID in the migrations: things.{name}"):
        migrate.check(copy, empty_database)


def check_of(rule: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(rule, name="weight_known")


@pytest.mark.slow
@pytest.mark.filterwarnings("error::sqlalchemy.exc.SAWarning")
def test_a_column_and_its_check_are_written_in_one_change_and_validated_in_a_second_migration(
    copy: Service, empty_database: str
) -> None:
    migrate.upgrade(copy, empty_database)
    for number, rule in ((2, "weight > 0"), (4, "weight > 7 OR name LIKE '50%'")):
        copy = dataclasses.replace(copy, tables=tables(sa.Column("weight", sa.Integer), check_of(rule)))
        first, second = migrate.write_next(copy, empty_database, "Add weight")
        assert [first.name, second.name] == [f"{number:04}_add_weight.py", f"{number + 1:04}_validate_add_weight.py"]
        assert rule in first.read_text().partition("def downgrade")[0]
        assert "postgresql_not_valid=True" in first.read_text()
        migrate.upgrade(copy, empty_database)
        migrate.check(copy, empty_database)
    with pytest.raises(asyncpg.CheckViolationError):
        ask(empty_database, "INSERT INTO tiny.things (id, name, weight) VALUES (gen_random_uuid(), 'x', 7)")

    for _ in range(2):
        migrate.undo_newest(copy, empty_database)
        newest = max(copy.versions.glob("[0-9]*.py"))
        newest.unlink()
    copy = dataclasses.replace(copy, tables=tables(sa.Column("weight", sa.Integer), check_of("weight > 0")))
    (validation,) = migrate.write_next(copy, empty_database, "validate what the undo has restored")
    migrate.upgrade(copy, empty_database)
    migrate.check(copy, empty_database)
    assert "VALIDATE CONSTRAINT" in validation.read_text()


def checks_of_every_form() -> list[sa.CheckConstraint]:
    name: sa.ColumnClause[str] = sa.column("name", sa.String)
    rules = {
        "values": sa.and_(sa.func.length(name) > 3, name.not_in(["a:b", "50%"]), name != r"\:x"),
        "text": r"name !~ ' \:x' AND name <> ' \:a\:b' AND name::text <> ''",
    }
    return [sa.CheckConstraint(rule, name=key) for key, rule in rules.items()]


@pytest.mark.slow
def test_a_check_with_values_or_colons_is_written_with_the_rule_of_the_code(copy: Service, empty_database: str) -> None:
    migrate.upgrade(copy, empty_database)
    known = sa.Enum("red", "blue", native_enum=False, create_constraint=True, name="colour_known")
    metadata = tables(sa.Column("colour", known), *checks_of_every_form())
    id_and_name = sa.Column("id", sa.Uuid, primary_key=True), sa.Column("name", sa.String(40))
    sa.Table("parts", metadata, *id_and_name, *checks_of_every_form())

    changed = dataclasses.replace(copy, tables=metadata)
    migrate.write_next(changed, empty_database, "next")
    migrate.upgrade(changed, empty_database)
    migrate.check(changed, empty_database)

    migrate.write_next(copy, empty_database, "remove all")
    migrate.upgrade(copy, empty_database)
    migrate.undo_newest(copy, empty_database)  # restores the CHECK constraints in PostgreSQL's spelling
    restored = "SELECT count(*) FROM pg_constraint WHERE contype = 'c' AND pg_get_constraintdef(oid) LIKE '%:x%'"
    assert ask(empty_database, restored) == 4


@pytest.mark.slow
def test_a_check_leaves_with_its_column_and_arrives_with_its_table(copy: Service, empty_database: str) -> None:
    weight, check = sa.Column("weight", sa.Integer), check_of("weight > 0")
    parts = sa.Column("id", sa.Uuid, primary_key=True), sa.Column("size", sa.Integer)
    with_table = tables()
    sa.Table("parts", with_table, *parts, sa.CheckConstraint("size > 0", name="size_positive"))
    migrate.upgrade(copy, empty_database)
    for tables_, files in ((tables(weight, check), 2), (with_table, 1), (tables(), 1)):
        copy = dataclasses.replace(copy, tables=tables_)
        assert len(migrate.write_next(copy, empty_database, "next")) == files
        migrate.upgrade(copy, empty_database)
        migrate.check(copy, empty_database)


def without_email(**info: list[str]) -> sa.MetaData:
    """Make the tiny service's table without one column."""
    metadata = metadata_for("tiny")
    unique = sa.UniqueConstraint("name", deferrable=True, initially="DEFERRED")
    columns = sa.Column("id", sa.Uuid, primary_key=True), sa.Column("name", sa.String(40), nullable=False)
    sa.Table("things", metadata, *columns, unique, info=info)
    return metadata


@pytest.mark.slow
def test_a_column_is_dropped_only_after_its_table_no_longer_names_the_column(
    copy: Service, empty_database: str
) -> None:
    migrate.upgrade(copy, empty_database)

    for leaving, left in ((["email"], False), ([], True)):
        copy = dataclasses.replace(copy, tables=without_email(leaving=leaving))
        (written,) = migrate.write_next(copy, empty_database, "next")
        assert ("drop_column" in written.read_text()) is left
        migrate.upgrade(copy, empty_database)
        migrate.check(copy, empty_database)


@pytest.mark.slow
def test_a_table_is_dropped_only_after_the_metadata_no_longer_names_the_table(
    copy: Service, empty_database: str
) -> None:
    migrate.upgrade(copy, empty_database)
    ask(empty_database, "ALTER TABLE tiny.things ADD CONSTRAINT ck_things_name CHECK (name <> '')")
    ask(empty_database, "CREATE INDEX ix_things_email ON tiny.things (email)")

    for leaving, left in ((["things"], False), ([], True)):
        metadata = metadata_for("tiny")
        metadata.info["leaving"] = leaving
        copy = dataclasses.replace(copy, tables=metadata)
        (written,) = migrate.write_next(copy, empty_database, "next")
        done, undone = written.read_text().split("def downgrade")
        assert ("drop_table" in done) is left
        assert "drop_index" not in done
        assert ('op.create_index(op.f("ix_things_email")' in undone) is left
        migrate.upgrade(copy, empty_database)
        migrate.check(copy, empty_database)


def with_migrations(copy: Service, *revisions: str) -> None:
    """Add these migrations to the copy, one after the other."""
    (package_path,) = copy.package.__path__
    for after, revision in pairwise(("0001", *revisions)):
        script = f'revision = "{revision}"\ndown_revision = "{after}"\n\n\ndef upgrade() -> None:\n    pass\n'
        Path(package_path, "migrations", "versions", f"{revision}_more.py").write_text(script)


def test_the_previous_version_leaves_a_newer_database_unchanged(
    service: Service, copy: Service, empty_database: str
) -> None:
    with_migrations(copy, "0002", "0003")
    migrate.upgrade(copy, empty_database)

    migrate.upgrade(service, empty_database)

    assert revision(empty_database) == "0003,chassis_0003"


def test_a_database_that_is_newer_in_one_branch_and_older_in_the_other_is_refused(
    copy: Service, empty_database: str
) -> None:
    migrate.upgrade(copy, empty_database)
    ask(empty_database, "UPDATE tiny.alembic_version SET version_num = 'chassis_9999' WHERE version_num <> '0001'")
    with_migrations(copy, "0002")

    with pytest.raises(migrate.DatabaseUnusable, match=r"has chassis_9999, .* and lacks 0002 of this version"):
        migrate.upgrade(copy, empty_database)

    assert revision(empty_database) == "0001,chassis_9999"
