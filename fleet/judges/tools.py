"""Linters of others, which come with fleet as wheels: their versions are ours, and nobody has to install them."""

import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fleet.errors import OfThisMachine
from fleet.processes.limits import lift_limits

# Far more than any of them takes, on a busy machine too: Kingfisher compiles its rules in seven seconds of computing.
LIMIT_SECONDS = 300


def program(name: str) -> str:
    """Where it is, beside the Python that runs fleet. Raises OfThisMachine."""
    schemes = (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user"))
    found = shutil.which(name, path=os.pathsep.join(sysconfig.get_path("scripts", scheme) for scheme in schemes))
    if found is None:
        raise OfThisMachine(f"{name} is not beside the Python that runs fleet: install fleet again")
    return found


def run(command: Sequence[str], *, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it with nothing of our environment: it judges alike everywhere, and sees no secret. Raises OfThisMachine.

    Its home is empty, and not the folder that it judges: a service must not bring the configuration of its judge.
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
                timeout=LIMIT_SECONDS,
                preexec_fn=lift_limits,
            )
        except subprocess.TimeoutExpired:
            raise OfThisMachine(f"{Path(command[0]).name} was given up after {LIMIT_SECONDS} seconds") from None
