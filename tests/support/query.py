"""Query a database from a test that is not asynchronous."""

import asyncio
from typing import Any

import asyncpg


def ask(url: str, query: str) -> Any:
    """The first value that the query returns."""

    async def fetch() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(fetch())
