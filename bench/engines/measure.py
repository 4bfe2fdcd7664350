"""Measure a backlog of orders, whatever engine runs them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tests.service.chaos.system import Part

LIMIT_SECONDS = 300


class Measured(NamedTuple):
    """The orders in a minute, and the milliseconds of CPU of all workers for each."""

    rate: float
    cpu: float


class Worker(NamedTuple):
    part: Part
    log: Path


@contextmanager
def running(workers: list[Worker]) -> Generator[list[Worker]]:
    """Start the workers, with empty logs. Stop them at the end."""
    try:
        for worker in workers:
            worker.log.unlink(missing_ok=True)
            worker.part.start()
        yield workers
    finally:
        for worker in workers:
            worker.part.stop()


async def finish(
    value_of: Callable[[str], Awaitable[Any]], orders: int, workers: list[Worker], *, first: str, ended: str
) -> Measured:
    """Measure from the first effect until all orders have ended.

    `first` is a query that returns a boolean, and `ended` a query for the number of ended orders.
    """
    await until(value_of, first)
    began, cpu = time.perf_counter(), sum(map(_cpu, workers))
    await until(value_of, f"SELECT ({ended}) >= {orders}")
    seconds = time.perf_counter() - began
    return Measured(orders / seconds * 60, (sum(map(_cpu, workers)) - cpu) / orders * 1000)


async def until(value_of: Callable[[str], Awaitable[Any]], question: str) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not await value_of(question):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _cpu(worker: Worker) -> float:
    first = psutil.Process(worker.part.pid)
    return sum(sum(process.cpu_times()[:2]) for process in [first, *first.children(recursive=True)])
