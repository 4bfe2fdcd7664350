"""Wait for conditions in other processes."""

import asyncio
from collections.abc import Awaitable, Callable

PATIENCE_SECONDS = 120


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Check the condition until it is true. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
