"""One timer limits many short calls, each separately."""

import asyncio
import os
import time
from contextlib import closing

import psutil
import pytest
from anyio import to_process
from chassis.messaging.time_limit import TimeLimit

from tests.support.waiting import until


async def test_a_call_that_takes_too_long_is_cancelled_with_a_timeout() -> None:
    limit = TimeLimit(0.01)
    with pytest.raises(TimeoutError), limit:
        await asyncio.sleep(60)
    assert limit.expired


async def test_each_call_has_the_whole_time() -> None:
    limit = TimeLimit(2)
    for _ in range(4):
        with limit:
            await asyncio.sleep(0.6)  # far below the limit, because a busy machine adds to it
        assert not limit.expired
    with pytest.raises(TimeoutError), limit:
        await asyncio.sleep(60)


async def test_an_error_of_a_call_and_a_cancellation_from_outside_pass() -> None:
    limit = TimeLimit(60)
    with pytest.raises(KeyError), limit:
        raise KeyError("its own")

    async def wait() -> None:
        with limit:
            await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not limit.expired
    limit.close()


async def test_a_process_that_computes_for_a_handler_is_killed_when_the_time_is_over() -> None:
    pid = await to_process.run_sync(os.getpid)
    with closing(TimeLimit(0.1)) as limit, pytest.raises(TimeoutError), limit:
        await to_process.run_sync(time.sleep, 600, cancellable=True)
    await until(lambda: not psutil.pid_exists(pid))
