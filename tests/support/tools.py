"""Tools that tests fetch, build or install once, for all of their processes and for later runs."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from tests.support.paths import ROOT

TOOLS = (ROOT / "build" / "tools").resolve()
INSTALL_TIMEOUT_SECONDS = 540

KINGFISHER_RULES = TOOLS / f"kingfisher-{version('kingfisher-bin')}"
"""The compiled rules of Kingfisher, for the caches of all tests: compiling them takes seven seconds."""


@contextmanager
def one_at_a_time(name: str) -> Generator[None]:
    """Exclude other test processes. In the block TOOLS exists: check there whether another process has made the tool."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    with (TOOLS / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return the folder, which the first test process makes. All callers only read it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            scratch = folder.with_name(f"{folder.name}.new")
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            make(scratch)
            scratch.rename(folder)
    return folder


def call(*command: str, **environment: str) -> None:
    """Run a command. Raises RuntimeError with its output."""
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_SECONDS,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-3000:]}")


def install_from_debian(package: str, **environment: str) -> None:
    """Install a package as root. Raises RuntimeError."""
    quiet = {"DEBIAN_FRONTEND": "noninteractive", **environment}
    # Wait, because another process may install a package.
    wait = ("-o", "DPkg::Lock::Timeout=300")
    install = ("apt-get", *wait, "install", "--yes", "--no-install-recommends", package)
    with one_at_a_time("apt"):
        try:
            call(*install, **quiet)
        except RuntimeError:  # the lists of packages are missing or old
            call("apt-get", "update", **quiet)
            call(*install, **quiet)
