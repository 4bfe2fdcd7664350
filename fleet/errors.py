"""What a person can do something about. Printed without a traceback; everything else is a bug and keeps its own."""

import os
from types import TracebackType

from fleet.cache import cache

# What the system, git and other programs say where nothing more can be written.
FULL = ("No space left on device", "Disk quota exceeded", "No usable temporary directory")


class FleetError(Exception):
    """It cannot be done. The message says why, and what to do."""


class Malformed(FleetError):
    """A file is not what its name says. `line` counts from 1; 0 is the file as a whole."""

    def __init__(self, message: str, path: str, line: int = 0) -> None:
        super().__init__(message)
        self.path = path
        self.line = line


class OfThisMachine(FleetError):
    """It says nothing of the service: on another machine, or later, it may be done. Nobody remembers it."""


class DiskFull(FleetError):
    """Nothing more can be written: what comes next would fail for the same reason."""


def refuse_full_disk(error: Exception) -> None:
    """Raise DiskFull if that is the cause of the error."""
    if any(words in str(error) for words in FULL):
        folders = f"{cache()} (FLEET_CACHE_DIR) and {os.environ.get('TMPDIR', '/tmp')} (TMPDIR)"  # noqa: S108
        raise DiskFull(f"a disk is full: make room where {folders} are, then run it again\n{error}") from None


def refused(error: OSError) -> str:
    """What the system does not let us do: a file that is not ours, a program that is not there. Raises DiskFull."""
    refuse_full_disk(error)
    file = error.filename2 or error.filename
    return f"cannot {f'use {file}' if file else 'go on'}: {error.strerror or error}"


def bug(error: Exception, whose: str = "a check") -> str:
    """What it is and where it came from, in a line, for whoever has more to look at than this."""
    trace: TracebackType | None = error.__traceback__
    where = ""
    while trace is not None:
        where = f"{trace.tb_frame.f_globals.get('__name__', '?')}, line {trace.tb_lineno}: "
        trace = trace.tb_next
    return f"{whose} has a bug: {where}{type(error).__name__}: {error}"


def told(error: Exception) -> FleetError:
    """Make a FleetError of any exception, so that one failing service does not hide the others. Raises DiskFull."""
    refuse_full_disk(error)
    if isinstance(error, FleetError):
        return error
    return FleetError(refused(error) if isinstance(error, OSError) else bug(error, "fleet"))
