"""Imports that go against the layers, as import-linter finds them in the service's files. Nothing is installed."""

import os
import re
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from fleet import tools
from fleet.errors import FleetError
from fleet.service import Service

CONTRACTS = ".importlinter"

_STEP = re.compile(r"^-\s+(?P<importer>[\w.]+) -> (?P<imported>[\w.]+) \(l\.(?P<line>\d+)", re.MULTILINE)


class Import(NamedTuple):
    """Where a chain of imports begins that breaks a contract."""

    importer: str
    imported: str
    line: int


def broken(service: Service) -> list[Import]:
    """By the contracts of the service. Raises FleetError if they cannot be checked."""
    judge = f"layers 1 import-linter {version('import-linter')} grimp {version('grimp')}"
    patterns = (CONTRACTS, f"src/{service.package}/*.py", "chassis/src/chassis/*.py")
    return [Import(*entry) for entry in service.remembered(judge, patterns, _broken)]


def _broken(folder: Path) -> list[Import]:
    """Nothing is imported: grimp parses."""
    command = [tools.program("lint-imports"), "--no-cache", "--no-logo", "--config", CONTRACTS]
    paths = os.pathsep.join(str(folder / path) for path in ("src", "chassis/src"))
    # Wide, because it would break what is longer than a line.
    done = tools.run(command, cwd=folder, PYTHONPATH=paths, COLUMNS="1000")
    found = {Import(one["importer"], one["imported"], int(one["line"])) for one in _STEP.finditer(done.stdout)}
    if bool(found) is (done.returncode == 0):
        raise FleetError(f"import-linter could not judge: {(done.stdout + done.stderr).strip()[-500:]}")
    return sorted(found)
