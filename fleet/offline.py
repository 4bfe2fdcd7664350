"""What migrations would do, as SQL. A program of its own, because it runs them, and no service's code runs in fleet.

python -I offline.py OUTPUT MIGRATION… writes JSON into OUTPUT: for each migration its statements, each with the line
that makes it, and why it could not go on, if it could not. No database is there, and no code of the service.
"""

import importlib.util
import io
import json
import re
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations

# Which value it is makes no difference to those who wait, and not every type can be written as text.
_PARAMETER = re.compile(r"%\(\w+\)s")


class _Statements(io.StringIO):
    """Takes SQL from Alembic, and looks up the stack for the line of the migration that it is from."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.made: list[tuple[str, int]] = []
        self._path = path

    def write(self, text: str) -> int:
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame.f_code.co_filename != self._path:
            frame = frame.f_back
        self.made.append((_PARAMETER.sub("NULL", text).replace("%%", "%"), frame.f_lineno if frame else 0))
        return len(text)


def statements(path: str) -> dict[str, Any]:
    """Of one migration."""
    output = _Statements(path)
    options = {"as_sql": True, "output_buffer": output}
    error, line = "", 0
    try:
        spec = importlib.util.spec_from_file_location("migration", path)
        assert spec is not None
        assert spec.loader is not None
        migration = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(migration)
        with Operations.context(MigrationContext.configure(dialect_name="postgresql", opts=options)):
            migration.upgrade()
    except BaseException as stopped:  # sys.exit as well: a migration must not stop its judge
        error = f"{type(stopped).__name__}: {stopped}"
        frames = [frame for frame in traceback.extract_tb(stopped.__traceback__) if frame.filename == path]
        line = frames[-1].lineno or 0 if frames else 0
    return {"statements": output.made, "error": error, "line": line}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps({path: statements(path) for path in sys.argv[2:]}))
