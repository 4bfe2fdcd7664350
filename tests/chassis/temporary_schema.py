"""A schema with tables of its own, for the time of a test."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import sqlalchemy as sa
from chassis.database.migrate import engine_for


@asynccontextmanager
async def temporary_schema(url: str, metadata: sa.MetaData) -> AsyncGenerator[None]:
    """Make the schema of the metadata with its tables, and drop the schema at the end."""
    engine = engine_for(url)
    async with engine.begin() as connection:
        await connection.execute(sa.text(f"CREATE SCHEMA {metadata.schema}"))
        await connection.run_sync(metadata.create_all)
    try:
        yield
    finally:
        async with engine.begin() as connection:
            await connection.execute(sa.text(f"DROP SCHEMA {metadata.schema} CASCADE"))
        await engine.dispose()
