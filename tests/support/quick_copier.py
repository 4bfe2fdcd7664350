"""Copier with two shortcuts, for tests that run it often: a third of the processor time, and the same result.

    python -P tests/support/quick_copier.py copy …    the command line of Copier, in a process of its own

It compiles every file, and every part of every path, once and not three times. And it does not ask Git about each written
file for a setting that matters only if core.fileMode is off. Tests that prove plain Copier run Copier without the shortcuts:
`run_copier`.
"""

import pytest
from copier import _main
from copier._cli import CopierApp

from fleet.template.jinja_environment import CompilingOnce


def take_shortcuts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_main, "SandboxedEnvironment", CompilingOnce)
    patch.setattr(_main.Worker, "_sync_git_index_executable_bit", lambda *_: None)


if __name__ == "__main__":
    take_shortcuts(pytest.MonkeyPatch())
    CopierApp.run()
