"""What tests fetch, build or install once, for all of their processes and for later runs."""

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
"""Compiled once, because that takes seven seconds, and many tests have a cache of their own."""


@contextmanager
def one_at_a_time(name: str) -> Generator[None]:
    """Another test process may be making the same: look whether it is there once this is entered. TOOLS exists then."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    with (TOOLS / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, made by the first test process that asks for it. Whoever gets it only reads."""
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
    """Raises RuntimeError, which has what it printed."""
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
    """As root. Raises RuntimeError."""
    quiet = {"DEBIAN_FRONTEND": "noninteractive", **environment}
    # Somebody else may be installing something else.
    wait = ("-o", "DPkg::Lock::Timeout=300")
    install = ("apt-get", *wait, "install", "--yes", "--no-install-recommends", package)
    with one_at_a_time("apt"):
        try:
            call(*install, **quiet)
        except RuntimeError:  # never, or long ago, updated
            call("apt-get", "update", **quiet)
            call(*install, **quiet)
