"""import-linter on one service after the other, for it takes longer to start than to work. A program of its own.

python -I linting.py FOLDER… writes JSON to stdout: for each folder the exit status, and what import-linter said.
"""

import io
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

from grimp.application.config import settings
from grimp.application.ports.filesystem import AbstractFileSystem
from grimp.application.ports.packagefinder import AbstractPackageFinder
from importlinter.application.use_cases import lint_imports, read_user_options
from importlinter.configuration import configure

RULES = ".importlinter"
PATHS = ("src", "chassis/src")


class _InFolder(AbstractPackageFinder):
    """Finds packages by their folders. grimp's own asks Python, which imports the parents of a package."""

    def determine_package_directories(self, package_name: str, file_system: AbstractFileSystem) -> set[str]:
        found = {str(folder) for path in PATHS if (folder := Path.cwd() / path / package_name).is_dir()}
        if not package_name.isidentifier() or not found:
            raise ValueError(f"there is no package {package_name}")
        return found


def lint(folder: str) -> tuple[int, str]:
    """Nothing of the folder is imported, and Python's path does not lead there."""
    os.chdir(folder)
    if "contract_types" in read_user_options(RULES).session_options:
        return 1, f"{RULES} has contract_types, which is code of the service, and fleet runs none: remove the line"
    with redirect_stdout(io.StringIO()) as said:
        is_kept = lint_imports(config_filename=RULES, cache_dir=None, no_logo=True)
    return int(not is_kept), said.getvalue()


if __name__ == "__main__":
    configure()
    settings.configure(PACKAGE_FINDER=_InFolder())
    sys.stdout.write(json.dumps([lint(folder) for folder in sys.argv[1:]]))
