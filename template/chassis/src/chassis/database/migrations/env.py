"""Alembic's environment. chassis.database.migrate prepares the configuration; nothing else runs this file."""

import asyncio
import time
import warnings
from typing import Any

import structlog
from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import SAWarning

from chassis.database import expressions, history, leftovers, migrate
from chassis.database.migrate import DatabaseUnusable, engine_for, refuse_others, unknown_revisions
from chassis.service import Service

LOCK = 0x6D69677261746521
"""Advisory lock key ("migrate!"). Locks are per database, so services do not wait for each other."""

OTHERS = text("""
    SELECT string_agg(nspname, ', ') FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relname = 'alembic_version' AND to_regnamespace('chassis') IS NOT NULL
    HAVING NOT bool_or(nspname = :ours)
""")
"""Find the schemas of other services, in a database that has the chassis' tables but was never ours."""

service: Service = context.config.attributes["service"]
url: str = context.config.attributes["url"]


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Compare only the schema of this service, without Alembic's own table."""
    if kind == "schema":
        return name == service.schema
    return not (kind == "table" and name == "alembic_version")


def include_object(found: Any, name: str | None, kind: str, reflected: bool, compared_to: Any) -> bool:
    """Ignore a table or a column that only the previous version uses, and that the code lists as leaving.

    Also ignore that the texts of two expressions of an index differ: `migrate.check` lets Postgres compare them.
    """
    if kind == "index" and compared_to is not None:
        return name not in expressions.indexes_on_expressions(service.tables)
    if kind not in ("table", "column") or not reflected or compared_to is not None:
        return True
    owner = service.tables if kind == "table" else service.tables.tables[found.table.key]
    return name not in owner.info.get("leaving", ())


def take_turn(connection: Connection) -> None:
    """Wait until no other process migrates this database.

    The session that migrates holds the lock, so a statement that continues after the end of its process still holds it.
    A process that waits asks for the lock again and again. A single statement that waited would hold a snapshot, and
    CREATE INDEX CONCURRENTLY of the other process would wait for the end of that statement.
    """
    deadline = time.monotonic() + migrate.TURN_SECONDS
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": LOCK}):
        connection.commit()
        if time.monotonic() > deadline:
            raise DatabaseUnusable(
                f"another process has been migrating the database for {migrate.TURN_SECONDS} s: run `migrate` again "
                "once it has ended; pg_stat_activity shows it"
            )
        time.sleep(0.2)
    connection.commit()


def set_limits(connection: Connection) -> None:
    """Limit the time and the lock waits of every statement. A statement that blocks no other may wait for long."""
    # Every query on a table waits behind a migration that waits for its lock, so give up soon and repeat later.
    limit_locks = f"SET lock_timeout = '{migrate.LOCK_TIMEOUT}'"

    def waits_long(statement: str) -> bool:
        # Outside of a transaction, the session holds no other lock while the statement waits.
        alone = connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
        return alone and leftovers.waits_long(statement)

    def before(_: Connection, __: Any, statement: str, *___: Any) -> None:
        if waits_long(statement):
            # Remove leftovers before the limit changes: their DROP INDEX CONCURRENTLY also runs `before` and `after`.
            leftovers.remove(connection, service.schema, statement)
            connection.exec_driver_sql("SET lock_timeout = 0")

    def after(_: Connection, __: Any, statement: str, *___: Any) -> None:
        if waits_long(statement):
            connection.exec_driver_sql(limit_locks)

    event.listen(connection, "before_cursor_execute", before)
    event.listen(connection, "after_cursor_execute", after)
    connection.exec_driver_sql(limit_locks)
    connection.exec_driver_sql(f"SET statement_timeout = '{migrate.STATEMENT_TIMEOUT}'")
    # The server ends the session of a vanished machine, and so frees the lock, within two minutes.
    connection.exec_driver_sql("SET tcp_keepalives_idle = 60")
    connection.exec_driver_sql("SET tcp_keepalives_interval = 10")


def apply(connection: Connection) -> None:
    take_turn(connection)
    set_limits(connection)
    if others := connection.scalar(OTHERS, {"ours": service.schema}):
        raise DatabaseUnusable(
            f"the database in DATABASE_URL belongs to another service ({others}), and each service needs a database of "
            f"its own: create a database for {service.name}"
        )
    connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{service.schema}"'))
    recorded = history.read(connection)
    connection.commit()
    script = ScriptDirectory.from_config(context.config)
    known = history.digests(script)
    if not context.config.attributes.get("undo"):
        refuse_others(script, recorded, known)

    def record(ctx: MigrationContext, step: MigrationInfo, *_: Any, **__: Any) -> None:
        assert ctx.connection is not None
        assert step.up_revision_id is not None
        if step.is_upgrade:
            history.record(ctx.connection, {step.up_revision_id: known[step.up_revision_id]})
        else:
            history.forget(ctx.connection, step.up_revision_id)

    context.configure(
        connection=connection,
        target_metadata=service.tables,
        include_schemas=True,
        include_name=include_name,
        include_object=include_object,
        version_table_schema=service.schema,
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=True,
        on_version_apply=record,
    )
    applied = context.get_context().get_current_heads()
    # An older database has no record: assume once that it has applied the migrations of this version.
    unrecorded = history.ancestry(script, applied, known).keys() - recorded.keys()
    history.record(connection, {revision: known[revision] for revision in unrecorded})
    connection.commit()
    if newer := unknown_revisions(script, applied, recorded):
        # The service was rolled back. The older version runs on the newer schema, because changes expand before they
        # contract.
        structlog.get_logger().warning("database_left_newer", revisions=newer)
        return
    # SQLAlchemy warns of its own argument when it reads a table with a NOT VALID constraint.
    warnings.filterwarnings("ignore", "Can't validate argument 'dialect_options'", SAWarning)
    with context.begin_transaction():
        context.run_migrations()


async def run() -> None:
    engine = engine_for(url, application_name=f"{service.name}-migrate")
    try:
        async with engine.connect() as connection:
            await connection.run_sync(apply)
    finally:
        await engine.dispose()


asyncio.run(run())
