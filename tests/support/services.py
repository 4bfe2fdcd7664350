"""The types of the fixtures `render` and `birth`, and services that need not be installed."""

import fcntl
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.commands import make

Render = Callable[..., Path]
Birth = Callable[..., Path]


def lend_packages(born: Path, service: Path) -> None:
    """Copy the environment of another service, with compiled packages. `make setup` then installs the differences."""
    source, target = born / ".venv", service / ".venv"
    shutil.copytree(
        source, target, symlinks=True, copy_function=os.link, ignore=lambda folder, names: {".ready"} & set(names)
    )
    for file in (target / "pyvenv.cfg", *(target / "bin").iterdir()):
        if file.is_symlink() or b"\0" in (text := file.read_bytes()):
            continue
        text = text.replace(bytes(source), bytes(target))  # a script has the path of its Python
        if file.name.startswith(("activate", "pyvenv")):  # these also contain the name of the service
            text = text.replace(born.name.encode(), service.name.encode())
        mode = file.stat().st_mode
        file.unlink()  # otherwise the write would also change the other environment, which has a link to the same file
        file.write_bytes(text)
        file.chmod(mode)


def install(service: Path, shared: Path) -> None:
    """Run `make setup`. In a run of the tests, only the first service compiles the packages that it installs.

    `shared` is the folder that all test processes of the run share.
    """
    folder = shared / "installed"
    if lender := next(folder.glob("*.installed"), None):
        lend_packages(lender.with_suffix(""), service)
        make(service, "setup")
        return
    make(service, "setup")
    folder.mkdir(exist_ok=True)
    with (folder / "lender.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "lender").exists():
            lend_packages(service, folder / "lender")
            (folder / "lender.installed").touch()


def use_packages_of_the_tests(service: Path) -> None:
    """Let the service use the environment of the tests, so that it counts as installed."""
    python = service / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH=src exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    for path in ("uv.lock", ".venv/.ready"):
        (service / path).touch()
