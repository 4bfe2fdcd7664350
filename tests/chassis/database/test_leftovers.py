"""Statements that PostgreSQL does not roll back: migrators take turns, and the next run of `migrate` repairs."""

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import asyncpg
import pytest
from chassis.database import migrate
from chassis.service import Service

from tests.chassis.processes import environment
from tests.support.paths import ROOT
from tests.support.query import ask
from tests.support.waiting import until

CONCURRENTLY = """
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        {statement}
"""
CREATE = 'op.create_index("ix_things_name", "things", ["name"], schema="tiny", postgresql_concurrently=True)'
STATEMENTS = {
    "create": CREATE,
    "create if not exists": CREATE.replace("True)", "True, if_not_exists=True)"),
    "create by hand": 'op.execute("create unique index concurrently ix_things_name on tiny.things using btree (name)")',
    "create with quotes": """op.execute('CREATE INDEX CONCURRENTLY "ix_things_name" ON "tiny"."things" (name)')""",
}
# A process of its own, like each replica. Its lock waits are short, so that a wait with a limit fails quickly.
MIGRATE = """
import sys
from pathlib import Path
from chassis.database import migrate
from tests.chassis.copies import copy_of
from tests.chassis.tiny.main import SERVICE
migrate.LOCK_TIMEOUT = "300ms"
try:
    migrate.upgrade(copy_of(SERVICE, Path(sys.argv[1])), sys.argv[2])
except migrate.MigrationFailed as error:
    sys.exit(str(error))
"""
INDEX = """
    SELECT string_agg(relname || CASE WHEN indisvalid THEN '' ELSE ' INVALID' END, ', ')
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = 'tiny.things'::regclass AND relname ~ '^ix_'
"""
MIGRATORS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND (application_name = 'tiny-migrate' OR query LIKE '%advisory_lock%')
"""
WAITS = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'tiny-migrate' AND wait_event_type = 'Lock'
"""
WAITS_FOR_WRITERS = "SELECT pid FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting for writers before build'"
WAITS_FOR_READERS = "SELECT pid FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting for old snapshots'"


def add_migration(copy: Service, statement: str) -> None:
    (folder,) = copy.package.__path__
    script = CONCURRENTLY.format(statement=statement)
    Path(folder, "migrations", "versions", "0002_concurrently.py").write_text(script)


def start(copy: Service, url: str) -> subprocess.Popen[str]:
    (folder,) = copy.package.__path__
    return subprocess.Popen(
        [sys.executable, "-c", MIGRATE, folder, url],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


async def ended(*migrators: subprocess.Popen[str]) -> list[tuple[int, str]]:
    outputs = await asyncio.gather(*(asyncio.to_thread(each.communicate, timeout=60) for each in migrators))
    return [(each.returncode, output) for each, (output, _) in zip(migrators, outputs, strict=True)]


@pytest.fixture
def migrated(copy: Service, empty_database: str) -> str:
    """The URL of a database with the first migration."""
    migrate.upgrade(copy, empty_database)
    return empty_database


@pytest.fixture
async def watcher(migrated: str) -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(migrated)
    yield connection
    await connection.close()


@pytest.fixture
async def reader(migrated: str) -> AsyncGenerator[asyncpg.Connection]:
    """A long transaction that has read something: a concurrent build of an index waits for its end."""
    connection = await asyncpg.connect(migrated)
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await connection.execute("SELECT count(*) FROM tiny.things")
    yield connection
    await connection.close()


@pytest.mark.slow
async def test_three_migrators_beside_long_transactions_take_turns(
    copy: Service, migrated: str, reader: asyncpg.Connection, watcher: asyncpg.Connection
) -> None:
    add_migration(copy, CREATE)
    writer = await asyncpg.connect(migrated)
    await writer.execute("BEGIN; INSERT INTO tiny.things (id, name) VALUES (gen_random_uuid(), 'written')")
    migrators = [start(copy, migrated) for _ in range(3)]

    await until(lambda: watcher.fetchval(WAITS_FOR_WRITERS))
    await until(lambda: watcher.fetchval(f"SELECT ({MIGRATORS}) >= 3"))
    await writer.close()
    await until(lambda: watcher.fetchval(WAITS_FOR_READERS))
    await asyncio.sleep(1)  # longer than a migration may wait for a lock that blocks other sessions
    await reader.execute("ROLLBACK")

    assert [status for status, _ in await ended(*migrators)] == [0, 0, 0]
    assert await watcher.fetchval(INDEX) == "ix_things_name"


INTERRUPTED = {
    STATEMENTS["create"]: "ix_things_name",
    STATEMENTS["create if not exists"]: "ix_things_name",
    'op.drop_index("ix_kept", "things", schema="tiny", postgresql_concurrently=True, if_exists=True)': None,
    'op.execute("REINDEX INDEX CONCURRENTLY tiny.ix_kept")': "ix_kept",
    'op.execute("REINDEX (VERBOSE) TABLE CONCURRENTLY tiny.things")': "ix_kept",
}


@pytest.mark.slow
@pytest.mark.parametrize("statement", INTERRUPTED)
async def test_running_again_repairs_the_leftovers_of_a_cancelled_statement(
    copy: Service,
    migrated: str,
    reader: asyncpg.Connection,
    watcher: asyncpg.Connection,
    statement: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "300ms")
    if "ix_kept" in statement or "tiny.things" in statement:
        await watcher.execute("CREATE INDEX ix_kept ON tiny.things (name)")
        await reader.execute("ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM tiny.things")
    add_migration(copy, statement)
    migrator = asyncio.create_task(asyncio.to_thread(migrate.upgrade, copy, migrated))
    await until(lambda: watcher.fetchval(WAITS))
    await asyncio.sleep(1)
    assert not migrator.done()
    await watcher.execute(f"SELECT pg_cancel_backend(({WAITS}))")
    with pytest.raises(migrate.MigrationFailed, match="run `migrate` again"):
        await migrator
    assert "INVALID" in await watcher.fetchval(INDEX)
    await reader.execute("ROLLBACK")

    await asyncio.to_thread(migrate.upgrade, copy, migrated)

    assert await watcher.fetchval(INDEX) == INTERRUPTED[statement]


@pytest.mark.slow
async def test_the_repair_waits_for_a_long_transaction_as_the_first_run_did(
    copy: Service,
    migrated: str,
    reader: asyncpg.Connection,
    watcher: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "300ms")
    await reader.execute("ROLLBACK")
    await watcher.execute("CREATE INDEX ix_things_name ON tiny.things (name)")
    # This transaction has a snapshot and no lock on the table: the build of the index waits for it, and the removal of
    # the old index does not.
    await reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class")
    add_migration(copy, CREATE)
    migrator = asyncio.create_task(asyncio.to_thread(migrate.upgrade, copy, migrated))
    await until(lambda: watcher.fetchval(WAITS_FOR_READERS))
    await asyncio.sleep(1)  # longer than a migration may wait for a lock that blocks other sessions
    await reader.execute("ROLLBACK")
    await migrator

    assert await watcher.fetchval(INDEX) == "ix_things_name"


@pytest.mark.slow
async def test_a_migrator_waits_for_the_running_statement_of_a_killed_migrator(
    copy: Service, migrated: str, reader: asyncpg.Connection, watcher: asyncpg.Connection
) -> None:
    add_migration(copy, CREATE)
    killed = start(copy, migrated)
    await until(lambda: watcher.fetchval(WAITS_FOR_READERS))
    killed.send_signal(signal.SIGKILL)
    await ended(killed)
    second = start(copy, migrated)
    await until(lambda: watcher.fetchval(f"SELECT ({MIGRATORS}) >= 2"))
    await reader.execute("ROLLBACK")

    [(status, output)] = await ended(second)
    assert (status, await watcher.fetchval(INDEX)) == (0, "ix_things_name"), output


@pytest.mark.parametrize("statement", STATEMENTS)
def test_an_index_that_was_finished_but_not_recorded_is_no_obstacle(
    copy: Service, migrated: str, statement: str
) -> None:
    add_migration(copy, STATEMENTS[statement])
    ask(migrated, "CREATE INDEX ix_things_name ON tiny.things (name)")

    migrate.upgrade(copy, migrated)

    assert ask(migrated, INDEX) == "ix_things_name"


LIMIT = (
    "DO $$ BEGIN ASSERT current_setting('lock_timeout') = '{limit}', current_setting('lock_timeout'); END $$ -- {word}"
)


@pytest.mark.parametrize("in_transaction", [True, False])
def test_only_a_concurrent_statement_outside_of_a_transaction_waits_for_long(
    copy: Service, migrated: str, in_transaction: bool
) -> None:
    concurrently = LIMIT.format(limit="5s" if in_transaction else "0", word="CONCURRENTLY")
    add_migration(copy, f"op.execute({concurrently!r}); op.execute({LIMIT.format(limit='5s', word='')!r})")
    if in_transaction:
        (folder,) = copy.package.__path__
        script = Path(folder, "migrations", "versions", "0002_concurrently.py")
        script.write_text(script.read_text().replace("with op.get_context().autocommit_block():", "if True:"))

    migrate.upgrade(copy, migrated)


def test_a_statement_and_a_turn_end_before_the_deadline_of_their_job() -> None:
    job = (ROOT / "template/deploy/base/migration.yaml.jinja").read_text()
    [deadline] = re.findall(r"activeDeadlineSeconds: (\d+)", job)

    assert int(deadline) > migrate.TURN_SECONDS
    assert int(migrate.STATEMENT_TIMEOUT.removesuffix("min")) * 60 < int(deadline)
