"""Validators that npm has: installed once, into build/tools."""

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "build" / "tools"


def installed(package: str) -> Path:
    """The folder in which node finds the package, such as `@asyncapi/parser@3.6.3`. Skips where npm is missing."""
    if shutil.which("npm") is None:
        pytest.skip(f"{package} needs npm, which is not here")
    name, version = package.rsplit("@", 1)
    folder = TOOLS / f"{name.strip('@').replace('/', '-')}-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # another test process may be installing the same
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "package-lock.json").exists():
            (folder / "package.json").write_text("{}")
            command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", package]
            subprocess.run(command, cwd=folder, check=True, timeout=300)
    return folder
