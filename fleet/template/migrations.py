"""Run migrations of the template, hooks/migrations/<version>.py, for changes that a comparison of two renders cannot make.

A script runs in the root of the service's checkout, before the files of the new version are written. The script may move the
team's files to where the new version expects them, or rewrite recorded answers. It imports the standard library only, prints
each change, and changes nothing on a second run. fleet runs the script instead of Copier, because Copier would ask everybody
for trust, update bots included (docs/decisions/0024).
"""

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from fleet.errors import FleetError
from fleet.template.release import Release, as_version

FOLDER = Path("hooks/migrations")


@dataclass(frozen=True)
class Migration:
    """One script of a release."""

    version: Version
    script: Path

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (ast.get_docstring(ast.parse(self.script.read_text())) or self.script.stem).splitlines()[0]

    def run(self, service: Path) -> str:
        """Run the script and return its output. Raises FleetError if the script fails."""
        done = subprocess.run(
            [sys.executable, "-I", str(self.script)],
            cwd=service,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            raise FleetError(f"the template's migration {self.script.name} failed:\n{done.stdout}{done.stderr}")
        return done.stdout.strip()


def migrations(old: Release, new: Release) -> list[Migration]:
    """Find the migrations that `new` has and `old` does not have, in the order of their versions."""
    names = {script.name for script in (old.folder / FOLDER).glob("*.py")}
    due = [
        Migration(version, script)
        for script in (new.folder / FOLDER).glob("*.py")
        if script.name not in names and (version := as_version(script.stem))
    ]
    return sorted(due, key=lambda migration: migration.version)
