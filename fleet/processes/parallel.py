"""The same work on many things: in threads where it is waiting, in processes of its own where it is thinking.

A process that dies or hangs takes nothing else with it. Not by concurrent.futures: there a worker that dies (out of
memory, a crash in a library) ends all the others' work, and nobody knows which one it was.
"""

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

from fleet.errors import DiskFull, FleetError, told
from fleet.processes.limits import end_when_out_of_time, too_long
from fleet.progress import progress

Item = TypeVar("Item")
Result = TypeVar("Result")

# Threads mostly wait for Git hosts, so there may be more threads than cores.
THREADS = 16

# Far more than any service takes, so that only what hangs is given up.
LIMIT_SECONDS = 600


@dataclass(frozen=True)
class Lost:
    """Instead of a result: the process ended without one."""

    why: str
    is_out_of_time: bool = False


@dataclass(frozen=True)
class _Started:
    """What a process says first."""


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    item: object = None
    # When it was given its item, and had started.
    since: float = math.inf

    def give(self, item: object) -> None:
        self.item = item
        with suppress(BrokenPipeError):  # it has died: there is no result of it to receive
            self.pipe.send(item)


def in_processes(
    work: Callable[[Item], Result], items: Iterable[Item], *, jobs: int, limit_seconds: float = LIMIT_SECONDS
) -> Generator[tuple[Item, Result | Lost]]:
    """Each item with what `work`, a function of a module, makes of it, in the order in which they are finished.

    Closing the generator, or Ctrl-C, ends the processes. Raises DiskFull if `work` does.
    """
    waiting = deque(items)
    workers: list[_Worker] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                workers.append(_started(work))
                workers[-1].give(waiting.popleft())
            ready = wait([worker.pipe for worker in workers], timeout=1)
            for worker in list(workers):
                if worker.pipe in ready:
                    result = _received(worker)
                    if isinstance(result, _Started):
                        worker.since = time.monotonic()
                        continue
                    if isinstance(result, DiskFull):
                        raise result
                elif time.monotonic() - worker.since > limit_seconds:
                    result = Lost(f"given up after {limit_seconds:.0f} seconds")
                else:
                    continue
                yield worker.item, result  # ty: ignore[invalid-yield]
                if isinstance(result, Lost) or not waiting:
                    workers.remove(worker)
                    _end(worker)
                else:
                    worker.give(waiting.popleft())
                    worker.since = time.monotonic()
    finally:
        for worker in workers:
            _end(worker)


def in_threads(
    ask: Callable[[Item], Result], items: Iterable[Item], doing: str = ""
) -> tuple[dict[Item, Result], dict[Item, FleetError]]:
    """What `ask` says of each, and of which it raised an error. Raises DiskFull."""
    answers: dict[Item, Result] = {}
    errors: dict[Item, FleetError] = {}
    items = list(items)
    with progress(doing, len(items)) as step, ThreadPoolExecutor(THREADS) as threads:
        asked = {threads.submit(ask, item): item for item in items}
        try:
            for future in as_completed(asked):
                try:
                    answers[asked[future]] = future.result()
                except Exception as error:
                    errors[asked[future]] = told(error)
                step()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
    return answers, errors


def _started(work: Callable[[Item], Result]) -> _Worker:
    # Not forked: the threads of this process may hold locks.
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _received(worker: _Worker) -> object:
    try:
        return worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        if worker.process.exitcode == -signal.SIGXCPU:
            return Lost(too_long("the service"), is_out_of_time=True)
        return Lost(f"the process that looked at it ended with status {worker.process.exitcode}")


def _end(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.terminate()
    # With what it has started, such as a git that never ends. There is no group yet, or no longer, if nothing is left.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.process.pid or 0, signal.SIGTERM)
    worker.process.join()


def _serve(work: Callable[[Item], Result], pipe: Connection) -> None:
    # A group of its own, which Ctrl-C does not reach: whoever started this process ends it, with all that it has started.
    # And without a terminal: ssh, which cannot read from it in another group, would wait for ever for a passphrase.
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
