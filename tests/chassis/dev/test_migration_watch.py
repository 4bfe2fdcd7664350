"""While `make dev` runs, a migration is applied when its file is saved, and the newest one again after an edit."""

from pathlib import Path

import pytest
from chassis.database import migrate
from chassis.dev import migration_watch
from chassis.dev.migration_watch import MigrationWatch
from chassis.service import Service

from tests.support.query import ask


@pytest.fixture
def watch(copy: Service, empty_database: str, monkeypatch: pytest.MonkeyPatch) -> MigrationWatch:
    monkeypatch.setattr(migration_watch, "SETTLE_SECONDS", 0)
    watch = MigrationWatch(copy, empty_database)
    migrate.upgrade(copy, empty_database)
    return watch


def save(service: Service, number: int, statement: str, undo: str = "SELECT 1", name: str = "next") -> Path:
    file = service.versions / f"{number:04}_{name}.py"
    lines = [
        "from alembic import op\n",
        f'revision = "{number:04}"',
        f'down_revision = "{number - 1:04}"\n\n',
        f"def upgrade() -> None:\n    op.execute({statement!r})\n\n",
        f"def downgrade() -> None:\n    op.execute({undo!r})",
    ]
    file.write_text("\n".join(lines) + "\n")
    return file


def columns(url: str) -> str:
    found = "SELECT string_agg(column_name, ',' ORDER BY column_name) FROM information_schema.columns"
    return ask(url, f"{found} WHERE table_schema = 'tiny' AND table_name = 'things' AND column_name LIKE 'new%'")


def add(column: str) -> str:
    return f"ALTER TABLE tiny.things ADD {column} int"


def drop(column: str) -> str:
    return f"ALTER TABLE tiny.things DROP {column}"


def test_a_saved_migration_is_applied_and_named(
    watch: MigrationWatch, copy: Service, empty_database: str, capfd: pytest.CaptureFixture[str]
) -> None:
    save(copy, 2, add("new_one"))
    watch.look()
    assert columns(empty_database) == "new_one"
    assert capfd.readouterr().out == "tiny: the database has 0002_next.py now\n"
    watch.look()
    assert capfd.readouterr() == ("", "")


def test_a_migration_waits_until_its_file_is_left_alone(
    watch: MigrationWatch, copy: Service, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration_watch, "SETTLE_SECONDS", 3600)
    save(copy, 2, add("new_one"))
    watch.look()
    watch.look()
    assert columns(empty_database) is None
    monkeypatch.setattr(migration_watch, "SETTLE_SECONDS", 0)
    watch.look()
    assert columns(empty_database) == "new_one"


def test_the_newest_migration_is_undone_and_applied_again_after_an_edit(
    watch: MigrationWatch, copy: Service, empty_database: str
) -> None:
    save(copy, 2, add("new_one"), drop("new_one"))
    watch.look()
    save(copy, 2, add("new_two"), drop("new_one"))
    watch.look()
    assert columns(empty_database) == "new_two"
    # A second edit is recognised by the record that the first edit has left.
    save(copy, 2, add("new_three"), drop("new_two"))
    watch.look()
    assert columns(empty_database) == "new_three"
    migrate.upgrade(copy, empty_database)


def test_a_migration_is_undone_with_the_migration_that_validates_its_constraints(
    watch: MigrationWatch, copy: Service, empty_database: str
) -> None:
    save(copy, 2, add("new_one"), drop("new_one"))
    save(copy, 3, add("new_two"), drop("new_two"), name="validate_next")
    watch.look()
    save(copy, 2, add("new_three"), drop("new_one"))
    watch.look()
    assert columns(empty_database) == "new_three,new_two"


def test_a_failed_migration_is_shown_with_its_cause_and_applied_after_a_correction(
    watch: MigrationWatch, copy: Service, empty_database: str, capfd: pytest.CaptureFixture[str]
) -> None:
    save(copy, 2, "SELECT 1 / 0")
    watch.look()
    shown = "tiny: the migration was not applied: a migration failed: division by zero\nSELECT 1 / 0\n"
    assert capfd.readouterr().err.startswith(shown)
    watch.look()
    assert capfd.readouterr() == ("", "")
    save(copy, 2, add("new_one"))
    watch.look()
    assert columns(empty_database) == "new_one"


def test_a_file_that_is_no_python_yet_is_shown_with_its_line(
    watch: MigrationWatch, copy: Service, empty_database: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = save(copy, 2, add("new_one"))
    right = file.read_text()
    file.write_text(right + "def half(:\n")
    watch.look()
    shown = capfd.readouterr().err
    assert "0002_next.py" in shown
    assert "def half(:" in shown
    file.write_text(right)
    watch.look()
    assert columns(empty_database) == "new_one"


def test_an_older_migration_that_was_edited_is_refused_and_the_newest_stays(
    watch: MigrationWatch, copy: Service, empty_database: str, capfd: pytest.CaptureFixture[str]
) -> None:
    save(copy, 2, add("new_one"), drop("new_one"))
    save(copy, 3, add("new_two"), drop("new_two"))
    watch.look()
    save(copy, 2, add("new_three"))
    watch.look()
    assert "0002_next.py is not the migration 0002 that the database has applied" in capfd.readouterr().err
    assert columns(empty_database) == "new_one,new_two"


def test_a_deleted_migration_is_named_with_the_ways_back(
    watch: MigrationWatch, copy: Service, empty_database: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = save(copy, 2, add("new_one"))
    watch.look()
    file.unlink()
    watch.look()
    shown = capfd.readouterr().err
    assert shown.startswith("tiny: 0002_next.py is gone.")
    assert "restore the file, or stop, and delete .dev/" in shown
    watch.look()
    assert capfd.readouterr() == ("", "")


def test_an_edit_of_a_migration_that_cannot_be_undone_is_refused_with_the_cause(
    watch: MigrationWatch, copy: Service, empty_database: str, capfd: pytest.CaptureFixture[str]
) -> None:
    save(copy, 2, add("new_one"))
    watch.look()
    file = save(copy, 2, add("new_two"))
    file.write_text(file.read_text().partition("def downgrade")[0])
    watch.look()
    shown = capfd.readouterr().err
    assert "has applied 0002_next.py as it was before the edit, and its `downgrade` failed: module" in shown
    assert "`rm -r .dev` gives an empty database" in shown
    assert "Traceback" not in shown
    assert columns(empty_database) == "new_one"
