"""Format generated Python code by the configuration of the service that receives it."""

import json
import subprocess
from pathlib import Path

from fleet.errors import FleetError
from fleet.judges.tools import program


def formatted(code: str, config: Path, file: str = "neighbour.py", package: str = "") -> str:
    """Format code by the service's ruff.toml, without imports that nothing uses. Raises FleetError."""
    options = ["--config", str(config)] if config.is_file() else ["--isolated", "--line-length", "120"]
    # The modules that are imported are perhaps not written yet, so Ruff cannot see that they are of the service.
    imports = ["--config", f"lint.isort.known-first-party = {json.dumps([package])}"] if package else []
    for command in (
        [
            "check",
            "--fix-only",
            "--quiet",
            "--unsafe-fixes",
            "--extend-select",
            "F401,I,UP,E,W",
            "--fixable",
            "F401,I,UP,W",
            *imports,
        ],
        ["format", "--quiet"],
    ):
        ruff = [program("ruff"), *command, "--no-cache", *options, "--stdin-filename", file, "-"]
        done = subprocess.run(ruff, input=code, capture_output=True, text=True)
        if done.returncode != 0:
            raise FleetError(f"the code of {file} cannot be formatted: {done.stderr.strip()[-500:]}")
        code = done.stdout
    return code
