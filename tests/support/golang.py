"""Validators in Go: built once, into build/tools."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.tools import INSTALL_TIMEOUT_SECONDS, TOOLS, one_at_a_time


def built(name: str, module: str) -> Path:
    """Build the program of a module, such as `sigs.k8s.io/kustomize/kustomize/v5@v5.8.2`. Skips the test without go."""
    program = TOOLS / f"{name}-{module.rpartition('@')[2]}"
    if not program.exists():
        if shutil.which("go") is None:
            pytest.skip(f"{name} is built with go, which is not here")
        with one_at_a_time("go"):
            if not program.exists():
                with tempfile.TemporaryDirectory(dir=TOOLS) as scratch:
                    # The build does not optimise: a validator runs for a second, and an optimising build takes a minute.
                    env = {**os.environ, "GOBIN": scratch, "GOFLAGS": "'-gcflags=all=-N -l' -ldflags=-w"}
                    subprocess.run(
                        ["go", "install", module], cwd=scratch, check=True, env=env, timeout=INSTALL_TIMEOUT_SECONDS
                    )
                    (made,) = Path(scratch).iterdir()
                    made.rename(program)
    return program
