"""import-linter on one service after the other, for it takes longer to start than to work. A program of its own.

python -I linting.py FOLDER… writes JSON to stdout: for each folder the exit status, and what import-linter said.
"""

import importlib
import io
import json
import os
import sys
from contextlib import redirect_stdout

from importlinter.application.use_cases import read_user_options
from importlinter.cli import lint_imports

RULES = ".importlinter"
PATHS = ("src", "chassis/src")


def lint(folder: str) -> tuple[int, str]:
    """Nothing of the folder is imported: grimp looks in Python's path, and parses."""
    os.chdir(folder)
    if "contract_types" in read_user_options(RULES).session_options:
        return 1, f"{RULES} has contract_types, which is code of the service, and fleet runs none: remove the line"
    before = list(sys.path)
    sys.path[:0] = [os.path.join(folder, path) for path in PATHS]
    importlib.invalidate_caches()
    try:
        with redirect_stdout(io.StringIO()) as said:
            status = lint_imports(config_filename=RULES, no_cache=True, no_logo=True)
    finally:
        sys.path[:] = before
    return status, said.getvalue()


if __name__ == "__main__":
    sys.stdout.write(json.dumps([lint(folder) for folder in sys.argv[1:]]))
