"""Validators that are written in Go: built once, into build/tools."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "build" / "tools"


def built(name: str, module: str) -> Path:
    """The program of a module, such as `sigs.k8s.io/kustomize/kustomize/v5@v5.8.2`. Skips where go is missing."""
    program = TOOLS / f"{name}-{module.rpartition('@')[2]}"
    if not program.exists():
        if shutil.which("go") is None:
            pytest.skip(f"{name} is built with go, which is not here")
        TOOLS.mkdir(parents=True, exist_ok=True)
        with (TOOLS / "lock").open("w") as lock:  # another test process may be building the same
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not program.exists():
                _install(module, program)
    return program


def _install(module: str, program: Path) -> None:
    with tempfile.TemporaryDirectory(dir=TOOLS) as scratch:
        env = {**os.environ, "GOBIN": scratch, "GOFLAGS": ""}
        subprocess.run(["go", "install", module], check=True, env=env, timeout=540)
        (built,) = Path(scratch).iterdir()
        built.rename(program)
