"""A migration is identified by its effect: a number that was given twice is refused, and a squash is not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from chassis.database import history, migrate
from chassis.service import Service

from tests.support.interpreters import interpreters
from tests.support.query import ask

MIGRATION = '''"""Add a column."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = {after!r}


def upgrade() -> None:
    op.add_column("things", sa.Column("{column}", sa.Integer()), schema="tiny")
'''
COLUMNS = """
    SELECT string_agg(column_name, ',' ORDER BY ordinal_position) FROM information_schema.columns
    WHERE table_schema = 'tiny' AND table_name = 'things' AND column_name NOT IN ('id', 'name', 'email')
"""


def versions(copy: Service) -> Path:
    (folder,) = copy.package.__path__
    return Path(folder, "migrations", "versions")


def write(copy: Service, revision: str, column: str, *, after: str | None = None) -> Path:
    """Write a migration that adds a column, after the migration with the number before."""
    after = after or f"{int(revision) - 1:04}"
    path = versions(copy) / f"{revision}_{column}.py"
    path.write_text(MIGRATION.format(revision=revision, after=after, column=column))
    return path


@pytest.fixture
def database(copy: Service, empty_database: str) -> str:
    """A database at revision 0003."""
    write(copy, "0002", "colour")
    write(copy, "0003", "weight")
    migrate.upgrade(copy, empty_database)
    return empty_database


def forget(copy: Service, *numbers: str) -> None:
    for number in numbers:
        for path in versions(copy).glob(f"{number}_*"):
            path.unlink()


def test_a_squash_that_takes_a_number_that_was_applied_is_refused(copy: Service, database: str) -> None:
    forget(copy, "0002", "0003")
    write(copy, "0002", "colour_and_weight")
    write(copy, "0003", "height")

    with pytest.raises(migrate.HistoryDiffers, match=r"0002_colour_and_weight\.py is not the migration 0002"):
        migrate.upgrade(copy, database)

    assert ask(database, COLUMNS) == "colour,weight"


def test_another_migration_with_the_number_of_a_withdrawn_migration_is_refused(copy: Service, database: str) -> None:
    forget(copy, "0003")
    migrate.upgrade(copy, database)  # the service is rolled back
    write(copy, "0003", "height")

    with pytest.raises(migrate.HistoryDiffers, match=r"0003_height\.py is not .* give it the next free number"):
        migrate.upgrade(copy, database)


def test_a_migration_next_to_a_migration_that_was_taken_back_is_refused(copy: Service, database: str) -> None:
    forget(copy, "0003")
    write(copy, "0004", "height", after="0002")

    with pytest.raises(migrate.HistoryDiffers, match=r"has 0003, .* and lacks 0004 of this version"):
        migrate.upgrade(copy, database)


def test_a_database_that_was_not_at_the_end_of_a_squash_is_refused(copy: Service, database: str) -> None:
    write(copy, "0004", "height")
    forget(copy, "0001", "0002", "0003")
    squash = write(copy, "0005", "everything", after="0004")
    squash.write_text(squash.read_text().replace("down_revision = '0004'", 'down_revision = None\nreplaces = "1234"'))
    forget(copy, "0004")

    with pytest.raises(migrate.HistoryDiffers, match=r"has 0003, .* and lacks 0005 of this version"):
        migrate.upgrade(copy, database)


def test_a_squash_that_names_the_replaced_migrations_is_not_run_again(copy: Service, database: str) -> None:
    first = next(versions(copy).glob("0001_*"))
    forget(copy, "0002", "0003")
    squash = first.read_text().replace('revision = "0001"', 'revision = "0003"')
    squash = squash.replace(
        "\ndef downgrade",
        '    op.add_column("things", sa.Column("colour", sa.Integer()), schema="tiny")\n\ndef downgrade',
    )
    first.unlink()
    path = versions(copy) / "0003_everything.py"
    path.write_text(squash)
    with pytest.raises(migrate.HistoryDiffers) as refused:
        migrate.upgrade(copy, database)
    [line] = re.findall(r"replaces = .*", str(refused.value))
    path.write_text(squash.replace("\ndef upgrade", f"{line}\n\ndef upgrade"))
    write(copy, "0004", "height")

    migrate.upgrade(copy, database)

    assert ask(database, COLUMNS) == "colour,weight,height"


HARMLESS = {
    "a comment": ("def upgrade", "# why\ndef upgrade"),
    "a docstring": ('"""Add a column."""', '"""Add one more column, for reasons."""'),
    "no docstring": ('"""Add a column."""', ""),
    "a way back": ("def upgrade", "def downgrade() -> None:\n    pass\n\n\ndef upgrade"),
    "an annotation": ("upgrade() -> None", "upgrade()"),
    "an import": ("import sqlalchemy as sa", "import sqlalchemy as sa\nimport json"),
    "formatting": ('op.add_column("things", ', "op.add_column(\n        'things',\n        "),
}


@pytest.mark.slow
@pytest.mark.parametrize("edit", HARMLESS)
def test_an_edit_without_an_effect_on_the_migration_is_not_noticed(copy: Service, database: str, edit: str) -> None:
    path = versions(copy) / "0002_colour.py"
    before, after = HARMLESS[edit]
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))

    migrate.upgrade(copy, database)


def test_a_database_without_a_record_is_accepted_and_recorded(copy: Service, database: str) -> None:
    ask(database, "DROP TABLE chassis.migrations")

    migrate.upgrade(copy, database)

    assert ask(database, "SELECT count(*) FROM chassis.migrations WHERE revision NOT LIKE 'chassis%'") == 3


def test_the_previous_version_leaves_a_database_without_a_record_unchanged(
    service: Service, copy: Service, database: str
) -> None:
    ask(database, "DROP TABLE chassis.migrations")

    migrate.upgrade(service, database)
    migrate.upgrade(service, database)
    migrate.upgrade(copy, database)

    assert ask(database, COLUMNS) == "colour,weight"


# Parts of syntax trees that differ between Pythons: f-strings, type parameters, and empty fields.
RICH = """
'''Say more.'''
import sqlalchemy as sa
WIDTH, NAMES = 3, ["a", 'b' "c"]
revision: str = "0002"
class Row: pass
async def later(*, a=1, **b): return [x async for x in a if x]
def upgrade(x: int = 1, *rest: str) -> None:
    def inner(): pass
    op.execute(f"UPDATE t SET x = '{WIDTH:>{WIDTH}} {NAMES!r}' || 'more' "
               f"WHERE {x = }")
    with op.get_context().autocommit_block(), open("f") as file:
        op.execute('''SELECT
          1''')
    match x:
        case [1, *_] if x: pass
    assert (y := x) and not None, b"bytes"
    lambda z, /: ...
"""
# This program imports no libraries, because other interpreters lack them.
MEANING = """
import ast, importlib.util, sys, types
for name, parts in {"alembic": (), "alembic.script": ("Script", "ScriptDirectory"), "sqlalchemy": ("Connection",)}.items():
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(dict.fromkeys(parts, object), text=str)
spec = importlib.util.spec_from_file_location("history", sys.argv[1])
history = importlib.util.module_from_spec(spec)
spec.loader.exec_module(history)
print(history._meaning(ast.parse(sys.stdin.read())))
"""


def meaning(python: str) -> str:
    arguments = [python, "-I", "-c", MEANING, str(history.__file__)]
    return subprocess.run(arguments, input=RICH, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.slow
def test_every_python_takes_a_migration_for_the_same() -> None:
    found = {python: meaning(python) for python in interpreters().values()}
    assert found == dict.fromkeys(found, meaning(sys.executable))
