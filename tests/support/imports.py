"""Run import-linter on a copy of our code, as `make lint` does on the code itself."""

import subprocess
import sys
from pathlib import Path


def lint_imports(project: Path, *, source: Path) -> tuple[int, str]:
    """Check the contracts in the project's pyproject.toml on the package in `source`. Returns status and output."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    ran = subprocess.run(
        [
            # -P lets Python import the package of the copy, and not the package of the current folder.
            *(sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(source)!r}); {program}"),
            *(str(project / "pyproject.toml"), "--no-cache", "--no-logo"),
        ],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return ran.returncode, ran.stdout + ran.stderr
