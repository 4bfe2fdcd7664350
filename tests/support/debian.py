"""Programs from Debian's packages: unpacked once, into build/tools, without an installation."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.tools import TOOLS, one_at_a_time


def program(name: str, package: str) -> str:
    """Find the program of that name in PATH, or else in the package. Skips the test if both fail."""
    return shutil.which(name) or str(unpacked(package) / "usr/bin" / name)


def unpacked(package: str, suite: str = "") -> Path:
    """Unpack the package for this machine's release of Debian, or for that suite. Skips the test if that fails."""
    folder = TOOLS / f"debian-{package}"
    if not folder.exists():
        if shutil.which("apt-get") is None:
            pytest.skip(f"only Debian has this in a package, and it is not in PATH: {package}")
        with one_at_a_time("apt"):
            if not folder.exists():
                _unpack(package, suite, folder)
    return folder


def with_its_own_libc(name: str, package: str, suite: str, folder: Path) -> None:
    """Write a command into the folder that runs the suite's program, even on a machine with an older C library."""
    program_ = unpacked(package, suite) / "usr/bin" / name
    [loader] = (unpacked("libc6", suite) / "usr/lib").glob("*/ld-linux-*.so.*")
    command = folder / name
    # A program that starts itself again, as make does, must find this command by its own name, and not the program.
    command.write_text(f'#!/bin/sh\nexec {loader} --argv0 {command} --library-path {loader.parent} {program_} "$@"\n')
    command.chmod(0o755)


def mirror() -> str:
    """Return the source of this machine's Debian packages. Skips the test on other systems."""
    listed = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)", "Created-By: Packages"]
    for line in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines():
        address, _, rest = line.partition(" ")
        if rest == "Debian Debian":
            return address
    pytest.skip("this takes Debian's packages, and this machine's sources of packages have none: install Docker")


def _unpack(package: str, suite: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=TOOLS) as scratch:
        apt = ["apt-get", "--quiet", *(_only(suite, Path(scratch)) if suite else [])]
        download = [*apt, "download", package]
        if subprocess.run(download, cwd=scratch, capture_output=True).returncode != 0:  # the lists of packages are old
            if subprocess.run([*apt, "update"], capture_output=True).returncode != 0:
                pytest.skip(f"{package} cannot be downloaded, and only root can update the list of packages")
            subprocess.run(download, cwd=scratch, check=True, capture_output=True)
        (archive,) = Path(scratch).glob("*.deb")
        files = Path(scratch) / "unpacked"
        subprocess.run(["dpkg-deb", "--extract", archive, files], check=True)
        files.rename(folder)


def _only(suite: str, folder: Path) -> list[str]:
    """Return options for apt that hide its configuration for this machine's release."""
    (folder / "lists/partial").mkdir(parents=True)
    (folder / "sources.list").write_text(f"deb {mirror()} {suite} main\n")
    places = {"Dir::Etc::SourceList": folder / "sources.list", "Dir::Etc::SourceParts": "/dev/null"}
    places |= {"Dir::State::Lists": folder / "lists", "Dir::Cache": folder, "APT::Sandbox::User": "root"}
    return [f"-o{name}={value}" for name, value in places.items()]
