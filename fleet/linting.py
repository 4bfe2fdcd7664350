"""import-linter on one service after the other, for it takes longer to start than to work. A program of its own.

python -I linting.py FOLDER… writes JSON to stdout: for each folder the exit status, and what import-linter said.
"""

import importlib
import io
import json
import os
import sys
from contextlib import redirect_stdout

from importlinter.cli import lint_imports

PATHS = ("src", "chassis/src")


def lint(folder: str) -> tuple[int, str]:
    """Nothing of the folder is imported: grimp looks in Python's path, and parses."""
    os.chdir(folder)
    before = list(sys.path)
    sys.path[:0] = [os.path.join(folder, path) for path in PATHS]
    importlib.invalidate_caches()
    try:
        with redirect_stdout(io.StringIO()) as said:
            status = lint_imports(config_filename=".importlinter", no_cache=True, no_logo=True)
    finally:
        sys.path[:] = before
    return status, said.getvalue()


if __name__ == "__main__":
    sys.stdout.write(json.dumps([lint(folder) for folder in sys.argv[1:]]))
