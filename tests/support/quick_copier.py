"""Copier with shortcuts, for tests that run it often: a fifth of the processor time, and the same result.

It compiles every file, and every part of every path, once for all processes that share the folder COMPILED_TEMPLATES, and not
three times in each copy. It computes the context of the paths once. And it does not ask Git about each written file for a
setting that matters only if core.fileMode is off. Its command line runs in the process of the test, because a process of its
own imports for a second. Tests that prove plain Copier run Copier without the shortcuts: `run_copier`.
"""

import contextlib
import hashlib
import io
import marshal
import os
import traceback
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from copier import _main
from copier._cli import CopierApp
from copier._types import LazyDict, Phase

from fleet.template.jinja_environment import CompilingOnce

COMPILED = "COMPILED_TEMPLATES"


class CompilingOncePerRun(CompilingOnce):
    """Copier's environment, but each text is compiled once for all processes of a run of the tests."""

    def compile(self, source: str, name: str | None = None, *args: Any, **options: Any) -> CodeType:
        key = self.settings, source, name
        if key in self.compiled or COMPILED not in os.environ or not isinstance(source, str):
            return super().compile(source, name, *args, **options)
        file = Path(os.environ[COMPILED], hashlib.sha256(repr(key).encode()).hexdigest())
        if file.exists():
            self.compiled[key] = marshal.loads(file.read_bytes())
        code = super().compile(source, name, *args, **options)
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            new = file.with_suffix(f".{os.getpid()}")
            new.write_bytes(marshal.dumps(code))
            new.rename(file)
        return code


_render_context = _main.Worker._render_context


def context_of_all_paths(worker: _main.Worker) -> dict[str, Any]:
    """Compute the context once, after all questions: from then on it is the same for every part of every path."""
    if Phase.current() is not Phase.RENDER:
        return dict(_render_context(worker))
    kept = vars(worker)
    if "context_of_all_paths" not in kept:
        kept["context_of_all_paths"] = _render_context(worker)
    context = kept["context_of_all_paths"]
    # Copier changes this dictionary
    return {**context, "_copier_conf": LazyDict(context["_copier_conf"]._pending)}


def take_shortcuts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_main, "SandboxedEnvironment", CompilingOncePerRun)
    patch.setattr(_main.Worker, "_render_context", context_of_all_paths)
    patch.setattr(_main.Worker, "_sync_git_index_executable_bit", lambda *_: None)


def run_quick_copier(command: str, *arguments: str | Path, **answers: str) -> None:
    """Run the command line of Copier with shortcuts, for tests of the results of many updates, but not for tests of Copier."""
    data = [part for name, answer in answers.items() for part in ("--data", f"{name}={answer}")]
    said, status = io.StringIO(), 1
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        take_shortcuts(patch)
        try:
            _, status = CopierApp.run(
                ["copier", command, "--defaults", "--quiet", *data, *map(str, arguments)], exit=False
            )
        except Exception:
            traceback.print_exc()
    assert status == 0, said.getvalue()
