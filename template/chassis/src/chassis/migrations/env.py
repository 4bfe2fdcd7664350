"""Alembic's environment. chassis.migrating prepares the configuration; nothing else runs this file."""

import asyncio
from typing import Any

import asyncpg
import structlog
from alembic import context
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from chassis.migrating import DatabaseUnusable, engine_for, unknown_revisions
from chassis.service import Service

LOCK = 0x6D69677261746521
"""Advisory lock key ("migrate!"). Locks are per database, so services do not wait for each other."""

LOCK_WAIT_SECONDS = 120
"""How long a second migrator waits for the first."""

OTHERS = text("""
    SELECT string_agg(nspname, ', ') FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relname = 'alembic_version' AND to_regnamespace('chassis') IS NOT NULL
    HAVING NOT bool_or(nspname = :ours)
""")
"""The schemas of other services, in a database that has the chassis' tables but was never ours."""

service: Service = context.config.attributes["service"]
url: str = context.config.attributes["url"]


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Compare only what this service owns: its schema, without Alembic's own table."""
    if kind == "schema":
        return name == service.schema
    return not (kind == "table" and name == "alembic_version")


def include_object(found: Any, name: str | None, kind: str, reflected: bool, compared_to: Any) -> bool:
    """Leave alone a column that the code no longer uses, as long as its table says that the version before does."""
    if kind != "column" or not reflected or compared_to is not None:
        return True
    return name not in service.tables.tables[found.table.key].info.get("leaving", ())


def migrate(connection: Connection) -> None:
    # A migration that waits for a lock makes every query behind it wait too: give up soon, and try again later.
    connection.execute(text("SET lock_timeout = '5s'"))
    connection.execute(text("SET statement_timeout = '15min'"))
    if others := connection.scalar(OTHERS, {"ours": service.schema}):
        raise DatabaseUnusable(
            f"the database in DATABASE_URL is that of another service ({others}): each has one of its own, "
            f"so make one for {service.name}"
        )
    connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{service.schema}"'))
    connection.commit()
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
    )
    applied = context.get_context().get_current_heads()
    if newer := unknown_revisions(ScriptDirectory.from_config(context.config), applied):
        # Rolled back to the version before, which runs on the newer schema: that is what expand before contract is for.
        structlog.get_logger().warning("database_left_newer", revisions=newer)
        return
    with context.begin_transaction():
        context.run_migrations()


async def run() -> None:
    engine = engine_for(url, application_name=f"{service.name}-migrate")
    # The lock has a connection of its own: it outlives each migration's transaction.
    lock = await asyncpg.connect(url)
    try:
        await lock.execute(f"SET lock_timeout = '{LOCK_WAIT_SECONDS}s'")
        await lock.execute("SELECT pg_advisory_lock($1)", LOCK)
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
    finally:
        await lock.close()
        await engine.dispose()


asyncio.run(run())
