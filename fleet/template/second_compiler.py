"""Let a second process compile the files of a template while this process renders, on the first run of a machine.

The second process begins with the last file, and this process needs the first file first. Each finds in the cache what the other has
compiled. Nothing depends on the second process: without it, a first run takes longer.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def second_compiler(compiled: Path, compile_files: Callable[[], None]) -> Generator[None]:
    """Call `compile_files` in a second process until the block ends, unless the folder `compiled` is there from an earlier run."""
    if compiled.exists() or not _may_fork():
        yield
        return
    process = _fork()
    if process == 0:
        _compile(compile_files)
    try:
        yield
    finally:
        if process:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def _may_fork() -> bool:
    """Return whether a fork is safe and useful: with one thread, on another core, and without the frameworks of macOS.

    Where a parent of fleet has let the signal of an ended child be ignored, another program may get the id of the child.
    """
    keeps_id = signal.getsignal(signal.SIGCHLD) != signal.SIG_IGN
    return keeps_id and threading.active_count() == 1 and (os.cpu_count() or 1) > 1 and sys.platform != "darwin"


def _fork() -> int | None:
    try:
        return os.fork()
    except OSError:  # for example, the limit of processes is reached
        return None


def _compile(compile_files: Callable[[], None]) -> None:
    """Compile, and end this process without what it would do at the end of a run."""
    try:
        compile_files()
    finally:
        os._exit(0)
