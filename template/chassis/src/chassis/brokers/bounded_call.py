"""Call a client library within a time limit, and raise one kind of error whatever the library raises."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from chassis.brokers import BrokerUnavailable


@asynccontextmanager
async def bounded_call(seconds: float, *failures: type[Exception]) -> AsyncGenerator[None]:
    """Raise BrokerUnavailable for these errors of the library, and after the time limit. The library's error is its cause."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except (*failures, OSError) as error:  # TimeoutError is an OSError
        raise BrokerUnavailable(str(error) or type(error).__name__) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Nobody cancelled this task: the library cancelled a future that the task waited for.
        raise BrokerUnavailable("the connection was closed") from None
