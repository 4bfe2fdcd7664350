"""Errors that a person can fix, which are printed without a traceback. Any other exception is a bug, and keeps its traceback."""

import os
from types import TracebackType

from fleet.cache import cache

# Messages of the system, of git and of other programs about a full disk.
FULL = ("No space left on device", "Disk quota exceeded", "No usable temporary directory")


class FleetError(Exception):
    """A person has to fix something first. The message states the cause and the remedy."""


class Malformed(FleetError):
    """The content of a file is not in the format that its name promises. `line` counts from 1; 0 means the whole file."""

    def __init__(self, message: str, path: str, line: int = 0) -> None:
        super().__init__(message)
        self.path = path
        self.line = line


class MachineError(FleetError):
    """The cause is in this machine and not in the service, so the result is not cached: another run may succeed."""


class DiskFull(FleetError):
    """The disk is full. The run stops, because every later step would fail for the same reason."""


def refuse_full_disk(error: Exception) -> None:
    """Raise DiskFull if a full disk is the cause of the error."""
    if any(words in str(error) for words in FULL):
        folders = f"{cache()} (FLEET_CACHE_DIR) and {os.environ.get('TMPDIR', '/tmp')} (TMPDIR)"  # noqa: S108
        raise DiskFull(f"a disk is full: make room where {folders} are, then run fleet again\n{error}") from None


def describe_os_error(error: OSError) -> str:
    """Describe what the system refused: a file without permission, a missing program. Raises DiskFull."""
    refuse_full_disk(error)
    file = error.filename2 or error.filename
    return f"cannot {f'use {file}' if file else 'continue'}: {error.strerror or error}"


def describe_bug(error: Exception, culprit: str = "a check") -> str:
    """Describe an unexpected exception and where it was raised in one line, for a report of many services."""
    trace: TracebackType | None = error.__traceback__
    where = ""
    while trace is not None:
        where = f"{trace.tb_frame.f_globals.get('__name__', '?')}, line {trace.tb_lineno}: "
        trace = trace.tb_next
    return f"{culprit} has a bug: {where}{type(error).__name__}: {error}"


def as_fleet_error(error: Exception) -> FleetError:
    """Wrap any exception, so that one failing service does not hide the others. Raises DiskFull."""
    refuse_full_disk(error)
    if isinstance(error, FleetError):
        return error
    return FleetError(describe_os_error(error) if isinstance(error, OSError) else describe_bug(error, "fleet"))
