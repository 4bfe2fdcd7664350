"""Limits of what is done for one service: a repository that takes more is one line of a report, and stops nothing else."""

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
"""Seconds of CPU, so that a busy machine makes no difference. FLEET_LIMIT_SECONDS sets another limit.

A service takes one or two seconds the first time.
"""
MOST_SECONDS = 24 * 60 * 60
MEMORY_BYTES = 2 * 2**30
"""Beyond what the process has already. Linux enforces this limit, macOS does not."""

_STATUS = Path("/proc/self/statm")


class TooMuch(FleetError):
    """What was asked for takes more time or memory than any service needs."""


class _OutOfTime(BaseException):
    """Not an Exception: those that are caught for one check must not catch this."""


_limited = threading.local()


def limit_seconds() -> float:
    """How long anything may compute for one service. Raises FleetError if FLEET_LIMIT_SECONDS says nothing of that kind."""
    written = os.environ.get("FLEET_LIMIT_SECONDS", str(SECONDS))
    try:
        seconds = float(written)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= MOST_SECONDS:
        raise FleetError(
            f"FLEET_LIMIT_SECONDS is {written!r}, and has to be a number of seconds, more than 0 and at most "
            f"{MOST_SECONDS:,}: correct it, or unset it, which means {SECONDS}"
        )
    return seconds


def too_long(what: str) -> str:
    return (
        f"{what} takes more than {limit_seconds():g} seconds of computing, and was given up (FLEET_LIMIT_SECONDS sets another "
        "limit)"
    )


@contextmanager
def limited(what: str) -> Generator[None]:
    """Raises TooMuch, with `what` as its subject, once the block has computed for too long, or wants too much memory.

    Inside of another `limited` block it does nothing. Other threads than the main thread have no limit of time, because
    signals reach only the main thread.
    """
    if getattr(_limited, "already", False):
        yield
        return
    seconds = limit_seconds()
    _limited.already = True
    try:
        with _memory(), _time(seconds):
            yield
    except _OutOfTime:
        raise TooMuch(too_long(what)) from None
    except MemoryError:
        raise TooMuch(f"{what} takes more than {MEMORY_BYTES >> 20} MiB of memory, and was given up") from None
    except RecursionError:
        raise TooMuch(f"{what} nests too deeply, and was given up") from None
    finally:
        _limited.already = False


@contextmanager
def _time(seconds: float) -> Generator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _OutOfTime

    _end_after(seconds)
    before = signal.signal(signal.SIGPROF, stop)
    # Again after a while: Python ignores what is raised where nobody can catch it, such as in `__del__`.
    signal.setitimer(signal.ITIMER_PROF, seconds, max(seconds / 4, 1))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        _end_after(None)


def end_when_out_of_time() -> None:
    """Let the system end this process if `limited` does not stop it: Python acts on no signal within one long call of C.

    Only for a process that does nothing else. It ends by SIGXCPU.
    """
    _limited.is_expendable = True
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _end_after(seconds: float | None) -> None:
    """Have the system end this process, if it may be ended, well after `limited` should have. None lifts the limit."""
    if not getattr(_limited, "is_expendable", False):
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    most = hard if seconds is None else int(used.ru_utime + used.ru_stime + 2 * seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def lift_limits() -> None:
    """Undo the limits in a child process, which has a limit of its own: of seconds that pass, and not of computing.

    On many cores a linter reserves more addresses than it ever uses.
    """
    for limit in (resource.RLIMIT_CPU, *([resource.RLIMIT_AS] if _STATUS.exists() else [])):
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (hard, hard))


@contextmanager
def _memory() -> Generator[None]:
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
