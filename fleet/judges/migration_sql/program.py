"""A program that reads migrations as SQL: python -I program.py OUTPUT MIGRATION…

It writes JSON into OUTPUT: for each migration its statements, each with the line that makes it, and the reason why reading
stopped, if it did. A migration that does more than build SQL is refused, because the judged statements must be the statements
of production.
"""

import codecs
import io
import json
import os
import re
import resource
import sys
import time
import tokenize
import traceback
import warnings
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import FrameType, FunctionType
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from RestrictedPython import compile_restricted_exec

from fleet.judges.migration_sql import allowed, guards
from fleet.judges.migration_sql.syntax import Policy
from fleet.judges.migration_sql.wall import Refused, Wall

# A value in a statement makes no difference to its lock, and not every type can be written as text.
_PARAMETER = re.compile(r"%\(\w+\)s")

LIMITS = {
    resource.RLIMIT_CPU: 20,
    resource.RLIMIT_FSIZE: 2**28,
}
if sys.platform == "linux":  # macOS enforces no limit of memory
    LIMITS[resource.RLIMIT_AS] = 2**31


class _Statements(io.StringIO):
    """Receive SQL from Alembic, and find in the stack the line of the migration that makes it."""

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


def read_statements(path: str, wall: Wall) -> dict[str, Any]:
    """Read the statements of one migration, and the reason why reading stopped, if it did."""
    output = _Statements(path)
    options = {"as_sql": True, "output_buffer": output}
    error, line = "", 0
    Refused.all.clear()
    try:
        compiled = compile_restricted_exec(_source(path), path, policy=Policy)
        if compiled.code is None:
            number, _, what = compiled.errors[0].removeprefix("Line ").partition(": ")
            error, line = f"SyntaxError: {what or number}", int(number) if number.isdecimal() else 0
        else:
            namespace = dict(guards.NAMESPACE)
            module = FunctionType(compiled.code, namespace)  # the code reaches only this namespace
            context = MigrationContext.configure(dialect_name="postgresql", opts=options)
            with Operations.context(context), wall.up():
                module()
                namespace["upgrade"]()
    except BaseException as stopped:
        lines = [
            number for frame, number in traceback.walk_tb(stopped.__traceback__) if frame.f_code.co_filename == path
        ]
        error, line = _reason(stopped, wall), (lines or [0])[-1] or 0
    return {"statements": output.made, "error": next(iter(Refused.all), error), "line": line}


def _source(path: str) -> str:
    """Read the source of a migration. Raises SyntaxError if Python would read other characters than a person."""
    content = re.sub(rb"\r\n?", b"\n", Path(path).read_bytes())
    coding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    if not codecs.lookup(coding).name.startswith("utf-8"):
        raise SyntaxError(f"it declares the coding {coding}, and may declare only UTF-8")
    return content.decode("utf-8-sig")


def _reason(stopped: BaseException, wall: Wall) -> str:
    """Describe an exception behind the wall, because its text may run code of the migration."""
    kind = type(stopped).__name__
    try:
        with wall.up():
            return f"{kind}: {stopped}"
    except Exception:
        return kind


def _import_all() -> None:
    """Import the modules that SQLAlchemy and Alembic import late, because the wall refuses every import."""
    for name in allowed.SQL_MODULES | allowed.MODULES.keys():
        import_module(name)
    for package in ("alembic.ddl", "alembic.operations", "sqlalchemy.sql"):
        for module in walk_packages(import_module(package).__path__, f"{package}."):
            import_module(module.name)


def main(output: str, paths: list[str]) -> None:
    for limit, most in LIMITS.items():
        _, hardest = resource.getrlimit(limit)
        resource.setrlimit(limit, (most if hardest == resource.RLIM_INFINITY else min(most, hardest), hardest))
    # The time zone is that of production, so that a migration sees no difference.
    os.environ["TZ"] = "UTC"
    time.tzset()
    # Warnings are off, because Python would open the file that a warning is about.
    warnings.simplefilter("ignore")
    _import_all()
    wall = Wall()
    Path(output).write_text(json.dumps({path: read_statements(path, wall) for path in paths}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
