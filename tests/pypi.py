"""Packages from PyPI whose dependencies are not to mix with ours: each has an environment of its own, in build/tools."""

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "build" / "tools"


def programs(requirement: str) -> Path:
    """The folder with the package's programs, and with a `python` that can import it. Skips where uv is missing."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip(f"{requirement} is installed with uv, which is not here")
    folder = TOOLS / requirement.replace("==", "-")
    TOOLS.mkdir(parents=True, exist_ok=True)
    with (TOOLS / f"{folder.name}.lock").open("w") as lock:  # another test process may be installing the same
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            subprocess.run([uv, "venv", "--quiet", "--clear", folder], check=True)
            install = [uv, "pip", "install", "--quiet", "--python", folder, requirement]
            subprocess.run(install, check=True, timeout=540)
            (folder / "complete").touch()
    return folder / "bin"
