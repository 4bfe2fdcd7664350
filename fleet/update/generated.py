"""Generate the files that follow from an update, by the service's own `make specs`: uv.lock and specs/.

If the chassis comes from a package index, `make specs` also writes its version into pyproject.toml.
"""

import os
import re
import subprocess
from pathlib import Path

from fleet.git import git, objects
from fleet.update.worktree import commit

GENERATED = ("pyproject.toml", "uv.lock", "specs")


SUBMODULES = (
    "The submodules in .gitmodules were empty here, because fleet fetches no other repositories. If make needs them, run make "
    "in a clone of your own."
)


def finish(checkout: Path) -> str:
    """Run `make specs` and commit its files. Return make's output if it failed, because the team's code may need a change first.

    A service that has not committed these files stays unchanged.
    """
    tracked = objects.tree(checkout)
    if "uv.lock" not in tracked or "Makefile" not in tracked:
        return ""
    done = subprocess.run(
        ["make", "specs"],
        cwd=checkout,
        env=team_environment(),
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        git.git(checkout, "checkout", "--quiet", "--", ".")
        output = (done.stdout + done.stderr).strip().splitlines()[-15:]
        output = output or [f"make printed nothing, and its exit status was {done.returncode}"]
        return "\n".join([*output, *([SUBMODULES] if ".gitmodules" in tracked else [])])
    commit_generated(checkout)
    return ""


def commit_generated(checkout: Path) -> None:
    """Commit the files that `make specs` has written."""
    commit(
        checkout,
        "Generate the files that follow from the template: uv.lock, specs",
        [name for name in GENERATED if (checkout / name).exists()],
    )


def team_environment() -> dict[str, str]:
    """Return the variables for a service's own code: the variables that a build needs, and no other secret."""
    return {
        name: value
        for name, value in os.environ.items()
        if _BUILDS.fullmatch(name) and not _OF_ANOTHER_PROJECT.fullmatch(name)
    }


_BUILDS = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_\w+|TZ|TERM|TMPDIR|CI|XDG_\w+|SSL_CERT_(?:FILE|DIR)|(?:REQUESTS|CURL)_CA_BUNDLE"
    r"|(?i:https?|all|no)_(?i:proxy)|UV_\w+|PIP_\w+|NETRC|PYTHONDONTWRITEBYTECODE|PG_BIN"
)
_OF_ANOTHER_PROJECT = re.compile(r"UV_PROJECT_ENVIRONMENT|UV_PUBLISH_\w+")
