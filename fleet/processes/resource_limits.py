"""Limit the time and memory spent on one service: a service beyond the limits is one line of a report, and stops no other."""

import os
import resource
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from fleet.errors import FleetError

SECONDS = 60
"""The limit in seconds of CPU, so that the load of the machine makes no difference. FLEET_LIMIT_SECONDS sets another limit.

A service takes one or two seconds the first time.
"""
MOST_SECONDS = 24 * 60 * 60
MEMORY_BYTES = 2 * 2**30
"""The limit for memory, in addition to the memory that the process has already. Linux enforces this limit, macOS does not."""

_STATUS = Path("/proc/self/statm")


class LimitExceeded(FleetError):
    """A service takes more time or memory than any service needs."""


class _OutOfTime(BaseException):
    """The time is up. Not an Exception, so that the code that catches the failures of one check does not catch this."""


_state = threading.local()


def limit_seconds() -> float:
    """Read how long one service may keep the CPU busy. Raises FleetError if FLEET_LIMIT_SECONDS is not such a number."""
    written = os.environ.get("FLEET_LIMIT_SECONDS", str(SECONDS))
    try:
        seconds = float(written)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= MOST_SECONDS:
        raise FleetError(
            f"FLEET_LIMIT_SECONDS is {written!r}, and has to be a number of seconds, more than 0 and at most "
            f"{MOST_SECONDS:,}: correct the variable, or unset it for the default, {SECONDS}"
        )
    return seconds


def describe_timeout(what: str) -> str:
    return (
        f"{what} takes more than {limit_seconds():g} seconds of computing, and was given up (FLEET_LIMIT_SECONDS sets another "
        "limit)"
    )


@contextmanager
def limit_resources(what: str) -> Generator[None]:
    """Stop the block once it has computed for too long or needs too much memory.

    An inner block has no limits of its own. Only the main thread has limits: signals reach only that thread, and the limit of
    memory is one of the whole process, which two threads would not restore in the right order.
    Raises LimitExceeded, with `what` as the subject of its message.
    """
    if threading.current_thread() is not threading.main_thread() or getattr(_state, "is_limited", False):
        yield
        return
    seconds = limit_seconds()
    _state.is_limited = True
    try:
        with _limit_memory(), _limit_time(seconds):
            yield
    except _OutOfTime:
        raise LimitExceeded(describe_timeout(what)) from None
    except MemoryError:
        raise LimitExceeded(f"{what} takes more than {MEMORY_BYTES >> 20} MiB of memory, and was given up") from None
    except RecursionError:
        raise LimitExceeded(f"{what} nests too deeply, and was given up") from None
    finally:
        _state.is_limited = False


@contextmanager
def _limit_time(seconds: float) -> Generator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _OutOfTime

    _end_after(seconds)
    before = signal.signal(signal.SIGPROF, stop)
    # The timer repeats, because Python ignores an exception where no caller can catch it, such as in `__del__`.
    signal.setitimer(signal.ITIMER_PROF, seconds, max(seconds / 4, 1))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        _end_after(None)


def end_when_out_of_time() -> None:
    """Let the system end this process by SIGXCPU if `limit_resources` cannot stop it.

    Python handles no signal during one long call of C. Call this only in a process that has no other work.
    """
    _state.is_expendable = True
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _end_after(seconds: float | None) -> None:
    """Let the system end an expendable process some time after `limit_resources` should have. None lifts the limit."""
    if not getattr(_state, "is_expendable", False):
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    most = hard if seconds is None else int(used.ru_utime + used.ru_stime + 2 * seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def lift_limits() -> None:
    """Undo the limits in a child process, whose caller limits the seconds that pass instead.

    On a machine with many cores a linter reserves far more memory than it ever uses.
    """
    for limit in (resource.RLIMIT_CPU, *([resource.RLIMIT_AS] if _STATUS.exists() else [])):
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (hard, hard))


@contextmanager
def _limit_memory() -> Generator[None]:
    if not _STATUS.exists():
        yield
        return
    used = int(_STATUS.read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = [used + MEMORY_BYTES, *(one for one in (soft, hard) if one != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(most), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
