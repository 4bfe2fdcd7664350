"""Commands of `fleet` in this process, and the gates of a service for the code that they write."""

import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from click.testing import CliRunner

from fleet.errors import FleetError
from fleet.main import app, main


def run(*arguments: str, status: int = 0) -> str:
    """Run `fleet` with these arguments, and return its output, or the sentence of its refusal."""
    done = CliRunner().invoke(app, arguments)
    if isinstance(done.exception, FleetError):
        assert status == 1, done.exception
        return str(done.exception)
    assert done.exit_code == status, (done.output, done.exception)
    return done.output


def completed(*arguments: str) -> CompletedProcess[str]:
    """Run the console script with these arguments, and return its status and its two outputs, as for a pipe."""
    output, errors = (TextIOWrapper(BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    status = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.setattr(sys, "argv", ["fleet", *arguments])
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    return CompletedProcess(arguments, int(status), *(stream.buffer.getvalue().decode() for stream in (output, errors)))


def check_code(folder: Path) -> None:
    """Check rules, format and types of the code in a folder, as `make check` of a service does."""
    for command in (
        ["ruff", "check", "--no-cache", "."],
        ["ruff", "format", "--check", "--no-cache", "."],
        ["ty", "check", "--no-progress", "--python", sys.prefix, "src"],
    ):
        program = Path(sys.executable).with_name(command[0])
        checked = subprocess.run([program, *command[1:]], cwd=folder, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
