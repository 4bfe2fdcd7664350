"""Rendering a template version that lies in a folder, by Copier itself, without its clones and repeated compilation.

Copier compiles each part of each path anew, asks git about each file it writes, and clones the template for each render.
For one service that is a second or two; for hundreds it is what everybody waits for. The few methods overridden here are
Copier's inside, so pyproject.toml pins its minor version, and tests compare the result with plain Copier's, byte by byte.
"""

from copy import deepcopy
from functools import cached_property, lru_cache
from pathlib import Path
from types import CodeType
from typing import Any, Literal

from copier._jinja_ext import SandboxedEnvironment, get_yield_context
from copier._main import Worker
from copier._settings import SettingsModel
from copier._template import Template
from copier._types import AnyByStrMutableMapping, Phase
from copier.errors import CopierError
from jinja2 import BytecodeCache, TemplateError
from jinja2 import Template as JinjaTemplate
from jinja2.bccache import Bucket

from fleet.answers import ANSWERS_FILE, Answers
from fleet.errors import FleetError


def render(template: Path, *, commit: str, answers: Answers, into: Path, data: dict[str, Any] | None = None) -> Worker:
    """Render the template in that folder, whose version is `commit`, for these answers; `data` are changed answers.

    What is recorded is treated as in an update: an answer that the template no longer accepts gives way to its default.
    A changed answer that is not accepted raises FleetError. Returns Copier's worker, for its answers.
    """
    into.mkdir(parents=True, exist_ok=True)
    (into / ANSWERS_FILE).write_text(answers.text)
    try:
        with _Renderer(
            src_path=answers.source,
            dst_path=into,
            data=data or {},
            defaults=True,
            overwrite=True,
            quiet=True,
            # Of whoever runs this: their defaults are not the service's.
            settings=SettingsModel(),
        ) as worker:
            worker.archived = _Archived(url=answers.source, ref=commit)
            worker.archived.folder = template
            refuse_unknown(worker, data or {}, commit)
            worker.run_copy()
            return worker
    except (CopierError, TemplateError, ValueError, TypeError) as error:
        raise FleetError(f"the template at {commit} does not render with these answers: {error}") from error


def refuse_unknown(worker: Worker, data: dict[str, Any], commit: str) -> None:
    """Copier passes over an answer to a question that does not exist: a typing error would change nothing, silently."""
    asked = [name for name, question in worker.template.questions_data.items() if question.get("when") is not False]
    for name in data:
        if name not in asked:
            raise FleetError(f"the template at {commit} asks no question {name!r}; it asks {', '.join(asked)}")


class _Archived(Template):
    """A template version in a plain folder that knows the commit it was taken from, as a clone would."""

    folder: Path

    @cached_property
    def vcs(self) -> Literal["git"] | None:
        return None

    @cached_property
    def commit(self) -> str | None:
        return self.ref

    @cached_property
    def local_abspath(self) -> Path:
        return self.folder

    @cached_property
    def _raw_config(self) -> dict[str, Any]:
        # A copy: Copier writes into it.
        return deepcopy(_questionnaire(self.folder))


class _Renderer(Worker):
    archived: _Archived

    @cached_property
    def template(self) -> Template:
        return self.archived

    @cached_property
    def answers_relpath(self) -> Path:
        return Path(ANSWERS_FILE)

    @cached_property
    def jinja_env(self) -> SandboxedEnvironment:
        environment = Worker.jinja_env.func(self)
        environment.bytecode_cache = _FILES
        environment.auto_reload = False
        environment.from_string = self._from_string  # ty: ignore[invalid-assignment]
        return environment

    @cached_property
    def _complete_context(self) -> AnyByStrMutableMapping:
        return super()._render_context()

    def _render_context(self) -> AnyByStrMutableMapping:
        """Once all is answered, it is the same for every part of every path."""
        return self._complete_context if Phase.current() is Phase.RENDER else super()._render_context()

    def _from_string(self, source: str) -> JinjaTemplate:
        self._forget_yield()
        if source not in _STRINGS:
            _STRINGS[source] = self.jinja_env.compile(source)
        return JinjaTemplate.from_code(self.jinja_env, _STRINGS[source], self.jinja_env.make_globals(None))

    def _render_string(self, string: str, extra_context: dict[str, Any] | None = None) -> str:
        if isinstance(string, str) and "{" not in string:
            self._forget_yield()
            return string
        return super()._render_string(string, extra_context)

    def _render_file(self, src_relpath: Path, dst_relpath: Path, extra_context: dict[str, Any] | None = None) -> None:
        self._forget_yield()
        super()._render_file(src_relpath, dst_relpath, extra_context)

    def _forget_yield(self) -> None:
        """What compiling a template does besides; here it may have been compiled before."""
        context = get_yield_context(self.jinja_env)
        context.yield_name = context.yield_iterable = None

    def _sync_git_index_executable_bit(self, dst_relpath: Path, src_mode: int) -> None:
        """There is no git index where this renders."""


class _Compiled(BytecodeCache):
    """Compiled files of the template, by name and text."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._found.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        assert bucket.code is not None
        self._found[bucket.key, bucket.checksum] = bucket.code


# What was compiled once in this process serves every service that it renders.
_FILES = _Compiled()
_STRINGS: dict[str, CodeType] = {}


@lru_cache(maxsize=16)
def _questionnaire(template: Path) -> dict[str, Any]:
    archived = _Archived(url=str(template))
    archived.folder = template
    return Template._raw_config.func(archived)
