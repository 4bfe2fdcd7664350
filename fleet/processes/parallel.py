"""Do the same work for many items: in threads if the work mostly waits, in processes if it mostly computes.

A process that dies or hangs stops no other process. This is why concurrent.futures is not used for processes: there, a worker
that dies (out of memory, a crash in a library) ends the work of all workers, and the item that killed it is not known.
"""

import gc
import math
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TypeVar

from fleet.errors import DiskFull, FleetError, as_fleet_error
from fleet.processes.resource_limits import describe_timeout, end_when_out_of_time
from fleet.progress import progress

Item = TypeVar("Item")
Result = TypeVar("Result")

# Threads mostly wait for Git hosts, so there may be more threads than cores.
THREADS = 16

# The longest time for one service: far more than any service takes, so that only a process that hangs is given up.
WORK_SECONDS = 600

GARBAGE_AFTER = 20_000


def default_jobs() -> int:
    """Return how many services to process at a time if --jobs is not given."""
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Failure:
    """The reason why a process gave no result, in the place of the result."""

    why: str
    is_out_of_time: bool = False


@dataclass(frozen=True)
class _Started:
    """Sent by a process once it is ready."""


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    item: object = None
    # The time at which the worker was ready and had an item.
    since: float = math.inf

    def give(self, item: object) -> None:
        self.item = item
        with suppress(BrokenPipeError):  # the process has died, which `_receive` reports
            self.pipe.send(item)


def in_processes(
    work: Callable[[Item], Result], items: Iterable[Item], *, jobs: int, limit_seconds: float = WORK_SECONDS
) -> Generator[tuple[Item, Result | Failure]]:
    """Yield each item with its result as soon as a process has it. `work` has to be a function of a module.

    Closing the generator, or Ctrl-C, ends the processes. Raises DiskFull if `work` does.
    """
    waiting = deque(items)
    workers: list[_Worker] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                workers.append(_start(work))
                workers[-1].give(waiting.popleft())
            ready = wait([worker.pipe for worker in workers], timeout=1)
            for worker in list(workers):
                if worker.pipe in ready:
                    result = _receive(worker)
                    if isinstance(result, _Started):
                        worker.since = time.monotonic()
                        continue
                    if isinstance(result, DiskFull):
                        raise result
                elif time.monotonic() - worker.since > limit_seconds:
                    result = Failure(f"given up after {limit_seconds:.0f} seconds")
                else:
                    continue
                yield worker.item, result  # ty: ignore[invalid-yield]
                if isinstance(result, Failure) or not waiting:
                    workers.remove(worker)
                    _end(worker)
                else:
                    worker.give(waiting.popleft())
                    worker.since = time.monotonic()
    finally:
        for worker in workers:
            _end(worker)


def in_threads(
    ask: Callable[[Item], Result], items: Iterable[Item], activity: str = ""
) -> tuple[dict[Item, Result], dict[Item, FleetError]]:
    """Call `ask` for each item. Return the answers, and the errors of the items without an answer. Raises DiskFull."""
    answers: dict[Item, Result] = {}
    errors: dict[Item, FleetError] = {}
    items = list(items)
    with progress(activity, len(items)) as step, ThreadPoolExecutor(THREADS) as threads:
        asked = {threads.submit(ask, item): item for item in items}
        try:
            for future in as_completed(asked):
                try:
                    answers[asked[future]] = future.result()
                except Exception as error:
                    errors[asked[future]] = as_fleet_error(error)
                step()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
    return answers, errors


def _start(work: Callable[[Item], Result]) -> _Worker:
    # The process is not forked, because threads of this process may hold locks.
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _receive(worker: _Worker) -> object:
    try:
        return worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        if worker.process.exitcode == -signal.SIGXCPU:
            return Failure(describe_timeout("the service"), is_out_of_time=True)
        return Failure(f"the process that looked at the service ended with status {worker.process.exitcode}")


def _end(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.terminate()
    # The group has the programs that the worker started, such as a git that never ends. The group does not exist before the
    # worker is ready, nor after all of its processes have ended.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.process.pid or 0, signal.SIGTERM)
    worker.process.join()


def _serve(work: Callable[[Item], Result], pipe: Connection) -> None:
    # The worker gets a process group of its own, which Ctrl-C does not reach: `_end` ends the worker and the programs that it
    # has started. The worker also gets a session without a terminal, because in another group ssh would wait at the terminal
    # for a passphrase without an end.
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Trees of parsed files are many objects and no garbage. Looking for garbage as often as usual takes a tenth of the time.
    gc.set_threshold(GARBAGE_AFTER)
    end_when_out_of_time()
    pipe.send(_Started())
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(work(item))
        except DiskFull as error:
            pipe.send(error)
