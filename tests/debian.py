"""Programs out of Debian's packages: unpacked once, into build/tools, and not installed."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.tools import TOOLS, one_at_a_time


def program(name: str, package: str) -> str:
    """The program of that name: the one in PATH, else the package's. Skips where neither is to be had."""
    if found := shutil.which(name):
        return found
    folder = TOOLS / f"debian-{package}"
    if not folder.exists():
        if shutil.which("apt-get") is None:
            pytest.skip(f"{name} is not in PATH, and only Debian has it in a package: {package}")
        with one_at_a_time("debian"):
            if not folder.exists():
                _unpack(package, folder)
    return str(folder / "usr/bin" / name)


def _unpack(package: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=TOOLS) as scratch:
        download = ["apt-get", "download", "--quiet", package]
        if subprocess.run(download, cwd=scratch, capture_output=True).returncode != 0:  # never, or long ago, updated
            if subprocess.run(["apt-get", "update", "--quiet"], capture_output=True).returncode != 0:
                pytest.skip(f"{package} cannot be downloaded, and only root can update the list of packages")
            subprocess.run(download, cwd=scratch, check=True)
        (archive,) = Path(scratch).glob("*.deb")
        unpacked = Path(scratch) / "unpacked"
        subprocess.run(["dpkg-deb", "--extract", archive, unpacked], check=True)
        unpacked.rename(folder)
