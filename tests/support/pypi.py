"""Packages from PyPI whose dependencies are not to mix with ours: each has an environment of its own, in build/tools."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.tools import INSTALL_TIMEOUT_SECONDS, TOOLS, one_at_a_time


def programs(requirement: str) -> Path:
    """The folder with the package's programs, and with a `python` that can import it. Skips where uv is missing."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip(f"{requirement} is installed with uv, which is not here")
    folder = TOOLS / requirement.replace("==", "-")
    with one_at_a_time(folder.name):
        complete = folder / "complete"
        # Programs name their Python by its path: where this repository has been moved, they are installed again.
        if not complete.exists() or complete.read_text() != str(folder):
            subprocess.run([uv, "venv", "--quiet", "--clear", folder], check=True)
            install = [uv, "pip", "install", "--quiet", "--python", folder, requirement]
            subprocess.run(install, check=True, timeout=INSTALL_TIMEOUT_SECONDS)
            complete.write_text(str(folder))
    return folder / "bin"
