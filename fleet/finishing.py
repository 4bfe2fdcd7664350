"""What follows from an update and is generated in the service itself, by its own `make specs`: uv.lock and specs/.

And in pyproject.toml the chassis' version, where that comes from a package index.
"""

import os
import subprocess
from pathlib import Path

from fleet import git
from fleet.worktree import commit

GENERATED = ("pyproject.toml", "uv.lock", "specs")


def finish(checkout: Path) -> str:
    """Lock, write the specs, and commit both. Returns what make said if it failed: the team's code may need a change first.

    A service that has not committed these files is left alone.
    """
    tracked = git.tree(checkout)
    if "uv.lock" not in tracked or "Makefile" not in tracked:
        return ""
    done = subprocess.run(
        ["make", "specs"],
        cwd=checkout,
        env=team_environment(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        git.git(checkout, "checkout", "--quiet", "--", ".")
        return "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
    commit(
        checkout,
        "Write what follows from the template: uv.lock, specs",
        [name for name in GENERATED if (checkout / name).exists()],
    )
    return ""


def team_environment() -> dict[str, str]:
    """Ours, without what uv and make say to a process that they have started: that is not meant for another project."""
    return {name: value for name, value in os.environ.items() if name not in _OURS}


_OURS = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "PYTHONPATH"}
