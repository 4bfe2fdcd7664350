"""The Pythons of this machine that a service may run on. None of them is started, because pytest asks while it collects."""

import os
import re
import shutil
from pathlib import Path

OLDEST, NEWEST = 11, 19


def interpreters() -> dict[str, str]:
    """Return version and path, one per minor version: the programs in PATH, and the versions that pyenv has installed."""
    found = {f"3.{minor}": path for minor in range(OLDEST, NEWEST + 1) if (path := _in_path(f"python3.{minor}"))}
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for python in root.glob("versions/*/bin/python3"):
        version = re.fullmatch(r"(3\.(\d+))\.\d+", python.parts[-3])
        if version and int(version[2]) >= OLDEST:
            found[version[1]] = str(python)
    return found


def _in_path(name: str) -> str | None:
    """Find a program. pyenv puts one of each name into PATH, which fails if its version is not chosen: leave that out."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    return shutil.which(name, path=os.pathsep.join(folder for folder in folders if Path(folder).name != "shims"))
