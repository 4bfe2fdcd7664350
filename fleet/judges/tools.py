"""Run linters, which are dependencies of fleet: fleet chooses their versions, and nobody has to install them."""

import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fleet.errors import MachineError
from fleet.processes.resource_limits import lift_limits

# The longest time for a linter: far more than any takes, even on a busy machine. Kingfisher takes longest, with seven seconds of
# computing to compile its rules.
TOOL_SECONDS = 300


def program(name: str) -> str:
    """Find a program that was installed with fleet. Raises MachineError."""
    schemes = (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user"))
    found = shutil.which(name, path=os.pathsep.join(sysconfig.get_path("scripts", scheme) for scheme in schemes))
    if found is None:
        raise MachineError(f"{name} is missing from the environment in which fleet is installed: install fleet again")
    return found


def run(command: Sequence[str], *, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a linter without our variables, so that its result is the same everywhere, and no secret is in reach.

    The home folder of the linter is empty, because a service must not configure its judge. Raises MachineError.
    """
    with tempfile.TemporaryDirectory(prefix="fleet-") as home:
        environment = {"PATH": os.defpath, "HOME": home, **environment}
        try:
            return subprocess.run(
                command,
                cwd=cwd,
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TOOL_SECONDS,
                preexec_fn=lift_limits,
            )
        except subprocess.TimeoutExpired:
            raise MachineError(f"{Path(command[0]).name} was given up after {TOOL_SECONDS} seconds") from None
