"""The pytest plugin in a team's tests: a server of their own or the server in DATABASE_URL, and no leftovers."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.chassis.processes import environment
from tests.support.query import ask

PYTEST_INI = """
[pytest]
addopts = --import-mode=importlib
asyncio_mode = auto
asyncio_default_fixture_loop_scope = session
asyncio_default_test_loop_scope = session
chassis_service = tests.chassis.tiny.main:SERVICE
"""

TESTS = """
import os
from pathlib import Path
from uuid import uuid4

import pytest
from tests.chassis.tiny.api import INSERT


async def count(database):
    return (await database.fetchrow("SELECT count(*) FROM tiny.things"))["count"]


@pytest.mark.parametrize("number", range(6))
async def test_nothing_is_left_from_others(database, client, number):
    assert await count(database) == 0
    assert (await client.post("/v1/things", json={"name": "lamp"})).status_code == 201
    assert await count(database) == 1


async def test_a_unit_of_work_writes(uow):
    await INSERT.run(uow.connection, id=uuid4(), name="lamp", email=None)


async def test_the_rows_of_the_test_before_are_gone(database):
    assert await count(database) == 0


async def test_a_test_that_fails_after_writing(client):
    await client.post("/v1/things", json={"name": "lamp"})
    assert False, "on purpose"


async def test_the_rows_of_the_failed_test_are_gone(database):
    assert await count(database) == 0


def test_where_this_ran(database_url):
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    Path(__file__).with_name(f"{worker}.url").write_text(database_url)


def test_where_this_ran_too(database_url):
    test_where_this_ran(database_url)
"""


# Name the plugins, because other installed plugins take seconds to load.
PLUGINS = ("chassis.testing", "pytest_asyncio.plugin", "xdist.plugin", "no:cacheprovider")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text(PYTEST_INI)
    (tmp_path / "test_things.py").write_text(TESTS)
    return tmp_path


def run(project: Path, *options: str, lines: int = 1, **settings: object) -> str:
    """Return the last lines of pytest's output, by default one such as `10 passed in 2.00s`."""
    plugins = [part for name in PLUGINS for part in ("-p", name)]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, *options]
    env = environment(PYTEST_DISABLE_PLUGIN_AUTOLOAD=1, **settings)
    result = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True)
    return "\n".join(result.stdout.strip().splitlines()[-lines:]) or result.stderr


@pytest.mark.slow
def test_database_url_names_the_server_and_parallel_workers_leave_its_databases_and_each_other_alone(
    project: Path, empty_database: str, postgres_url: str
) -> None:
    ask(empty_database, "CREATE SCHEMA tiny")
    ask(empty_database, "CREATE TABLE tiny.things AS SELECT 'a bystander' AS name")
    databases = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database"
    before = ask(postgres_url, databases)

    outcome = run(project, "-n", "2", "--dist", "each", DATABASE_URL=empty_database)

    assert outcome.startswith("2 failed, 22 passed")
    used = {(project / f"{worker}.url").read_text() for worker in ("gw0", "gw1")}
    assert len(used | {empty_database}) == 3
    assert {url.rpartition("/")[0] for url in used} == {empty_database.rpartition("/")[0]}
    assert ask(empty_database, "SELECT name FROM tiny.things") == "a bystander"
    assert ask(postgres_url, databases) == before


@pytest.mark.slow
def test_without_database_url_the_tests_have_a_server_of_their_own(project: Path, postgres_url: str) -> None:
    outcome = run(project, "-k", "where_this_ran or nothing_is_left")

    assert outcome.startswith("8 passed")
    used = (project / "alone.url").read_text()
    assert used.rpartition("/")[0] != postgres_url.rpartition("/")[0]


LACKS_A_MIGRATION = """
import dataclasses
import sqlalchemy as sa
from chassis.database import metadata_for
from tests.chassis.tiny.main import SERVICE as TINY

tables = metadata_for("tiny")
for name in ("things", "forgotten"):
    sa.Table(name, tables, sa.Column("id", sa.Uuid, primary_key=True))
SERVICE = dataclasses.replace(TINY, tables=tables)
"""


@pytest.mark.slow
def test_a_table_without_a_migration_is_named_with_the_command_that_writes_the_migration(
    project: Path, empty_database: str
) -> None:
    (project / "lacking.py").write_text(LACKS_A_MIGRATION)
    (project / "pytest.ini").write_text(PYTEST_INI.replace("tests.chassis.tiny.main", "lacking"))
    shown = run(project, "-o", "pythonpath=.", "-k", "where_this_ran", lines=20, DATABASE_URL=empty_database)
    # The errors of both tests. Under CI, pytest repeats them in its summary, behind the name of each test.
    assert shown.splitlines().count('no migration makes tiny.forgotten: make migration m="what it does"') == 2
    assert "UndefinedTableError" not in shown
