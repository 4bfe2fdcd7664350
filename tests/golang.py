"""Validators that are written in Go: built once, into build/tools."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools import TOOLS, one_at_a_time


def built(name: str, module: str) -> Path:
    """The program of a module, such as `sigs.k8s.io/kustomize/kustomize/v5@v5.8.2`. Skips where go is missing."""

    def install(scratch: Path) -> None:
        _go("install", module, cwd=scratch)

    return _once(f"{name}-{module.rpartition('@')[2]}", install)


def compiled(source: Path, module: str) -> Path:
    """The program that our file makes with that module. Skips where go is missing."""

    def compile_(scratch: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(source, folder)
            _go("mod", "init", "slipway/tests", cwd=Path(folder))
            _go("get", module, cwd=Path(folder))
            _go("build", "-mod=mod", "-o", str(scratch / source.stem), cwd=Path(folder))

    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    return _once(f"{source.stem}-{module.rpartition('@')[2]}-{digest}", compile_)


def _once(name: str, make: Callable[[Path], None]) -> Path:
    program = TOOLS / name
    if not program.exists():
        if shutil.which("go") is None:
            pytest.skip(f"{name} is built with go, which is not here")
        with one_at_a_time("go"):
            if not program.exists():
                with tempfile.TemporaryDirectory(dir=TOOLS) as scratch:
                    make(Path(scratch))
                    (made,) = Path(scratch).iterdir()
                    made.rename(program)
    return program


def _go(*arguments: str, cwd: Path) -> None:
    # Not optimised: a validator runs for a second, and compiling it well takes a minute.
    env = {**os.environ, "GOBIN": str(cwd), "GOFLAGS": "'-gcflags=all=-N -l' -ldflags=-w"}
    subprocess.run(["go", *arguments], cwd=cwd, check=True, env=env, timeout=900)
