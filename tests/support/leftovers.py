"""Stop every process that a run of the tests has started, and remove its temporary files, after any end of the run.

A process of this run is known by its TMPDIR, which children inherit. Another process does the cleaning, because no
process can clean up after its own kill -9.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile

import psutil

from tests.support.paths import ROOT

PATIENCE_SECONDS = 30
"""How long processes may take to stop by themselves: a container engine unmounts file systems."""


def clean_up_after_this_process() -> None:
    """Give this process and its children a folder for temporary files, and let both be cleaned up after its end."""
    # pytest's own folders stay where they are, for a look into them after a failed test.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    folder = tempfile.mkdtemp(prefix="slipway-tests-")
    os.chmod(folder, 0o755)  # PostgreSQL does not run as root, but as another user, who has to reach its data
    command = [sys.executable, "-m", "tests.support.leftovers", folder]
    # The pipe ends with this process. The cleaner has a session of its own, so that signals for our group do not reach
    # it, and does not inherit our output, so that a reader of our output does not wait for the cleaner.
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True, **silent)
    os.environ["TMPDIR"] = tempfile.tempdir = folder


def started_with(folder: str) -> list[psutil.Process]:
    """Find the processes whose folder for temporary files is this folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("TMPDIR") == folder:
                found.append(process)
    return found


def clean_up(folder: str) -> None:
    """Stop the processes of the run, starting with the children of others, and remove its files."""
    processes = started_with(folder)
    for signal_, patience_seconds in ((signal.SIGTERM, PATIENCE_SECONDS), (signal.SIGKILL, 1)):
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal_)
        psutil.wait_procs(processes, timeout=patience_seconds)
        processes = started_with(folder)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    clean_up(sys.argv[1])
