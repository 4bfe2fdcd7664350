"""Packages from PyPI with dependencies that conflict with ours: each has an environment of its own, in build/tools."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.tools import INSTALL_TIMEOUT_SECONDS, TOOLS, one_at_a_time


def programs(requirement: str) -> Path:
    """Return the folder with the package's programs and a `python` that can import it. Skips the test without uv."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip(f"{requirement} is installed with uv, which is not here")
    folder = TOOLS / requirement.replace("==", "-")
    with one_at_a_time(folder.name):
        complete = folder / "complete"
        # Programs name their Python by its path, so install them again if this repository has been moved.
        if not complete.exists() or complete.read_text() != str(folder):
            subprocess.run([uv, "venv", "--quiet", "--clear", folder], check=True)
            install = [uv, "pip", "install", "--quiet", "--python", folder, requirement]
            subprocess.run(install, check=True, timeout=INSTALL_TIMEOUT_SECONDS)
            complete.write_text(str(folder))
    return folder / "bin"
