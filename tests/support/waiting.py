"""Wait for a condition, with a bound: the machine that runs the tests may be slow."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

PATIENCE_SECONDS = 120
LOOK_SECONDS = 0.02


def wait_until(
    condition: Callable[[], Any], evidence: Callable[[], object] = str, *, seconds: float = PATIENCE_SECONDS
) -> Any:
    """Block until the condition is true, and return its result. Raises TimeoutError with the evidence."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the condition did not become true within {seconds} s\n{evidence()}")
        time.sleep(LOOK_SECONDS)
    return found


async def until(
    condition: Callable[[], Any], evidence: Callable[[], object] = str, *, seconds: float = PATIENCE_SECONDS
) -> Any:
    """Wait as `wait_until`, while the event loop goes on. The condition may be asynchronous."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                found = condition()
                if inspect.isawaitable(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError as error:
        raise TimeoutError(f"the condition did not become true within {seconds} s\n{evidence()}") from error
