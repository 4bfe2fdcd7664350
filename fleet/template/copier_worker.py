"""Copier's worker, without its clones and repeated compilation: render from a folder, and keep the result in memory.

Copier compiles each part of each path anew, asks git about each file it writes, and clones the template for each render. That
takes a second or two for one service and minutes for hundreds, though most renders need only the ids of the files. The few
methods overridden here are private to Copier, so pyproject.toml pins its version, and tests compare the result with plain
Copier's, byte by byte.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from copy import deepcopy
from enum import Enum, auto
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, cast

import yaml
from copier import _main
from copier._jinja_ext import get_yield_context
from copier._main import Worker
from copier._template import Template
from copier._tools import scantree
from copier._types import AnyByStrDict, AnyByStrMutableMapping, Phase
from copier._user_data import CAST_STR_TO_NATIVE, Question
from copier.errors import ForbiddenPathError
from jinja2 import UndefinedError

from fleet.git.objects import Entry, Tree, blob_id
from fleet.template.answers import ANSWERS_FILE
from fleet.template.jinja_environment import (
    CompiledFiles,
    CompilingOnce,
    forget_yield,
    from_yaml,
    mark_of,
    names_in,
    parse_yaml,
    render_once,
)
from fleet.template.ownership import Owner, Ownership
from fleet.template.path_patterns import matcher
from fleet.template.seed_inputs import digest, digest_of

# The content of a rendered file: its bytes, the file that it is a copy of, or a function that renders it.
Content = bytes | Path | Callable[[], bytes]

# A path that does not exist, and that nothing can be written to.
NOWHERE = Path(os.devnull, "service")


class Kind(Enum):
    """The kind of a path in the template."""

    FOLDER = auto()
    FILE = auto()
    TEMPLATE = auto()


class _Source(NamedTuple):
    """A path of the template. `path` is relative to the folder that is rendered, `name` to the template. `file` is the file."""

    path: Path
    kind: Kind
    file: Path
    name: Path


class QuestionOnce(Question):
    """A question whose default is computed once, and validated once: Copier asks for it two or three times."""

    @cached_property
    def _default(self) -> Any:
        return super().get_default()

    def get_default(self) -> Any:
        return self._default

    def render_value(self, value: Any, extra_answers: AnyByStrDict | None = None) -> Any:
        """Render a text once for all services that have the same answers in it."""
        if isinstance(value, str) and (names := names_in(self.jinja_env, value)) is not None:
            context = {**self.context, **(extra_answers or {})}
            known = tuple((name, type(context[name]), context[name]) for name in names if name in context)
            if all(kind in (bool, int, str, NoneType) for _, kind, _ in known):
                with suppress(UndefinedError):  # Copier reports the error below
                    return render_once(self.jinja_env, value, known)
        return super().render_value(value, extra_answers)

    @cached_property
    def _accepted(self) -> set[str]:
        return set()

    def validate_answer(self, answer: Any) -> None:
        if (written := repr(answer)) not in self._accepted:
            super().validate_answer(answer)
            self._accepted.add(written)


_main.Question = QuestionOnce  # ty: ignore[invalid-assignment]


class Archived(Template):
    """A template version in a plain folder, with the commit that the folder was written from."""

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
        # A copy, because Copier writes into the configuration.
        return deepcopy(_questionnaire(self.folder))


class Renderer(Worker):
    """A worker that reads the template from a plain folder, and keeps the rendered files in memory."""

    archived: Archived
    ownership: Ownership
    answers_content: bytes

    @cached_property
    def tree(self) -> Tree:
        """The files of the service, added while they are rendered."""
        return {}

    @cached_property
    def contents(self) -> dict[str, Content]:
        return {}

    @cached_property
    def template(self) -> Template:
        return self.archived

    @cached_property
    def answers_relpath(self) -> Path:
        return Path(ANSWERS_FILE)

    @cached_property
    def jinja_env(self) -> CompilingOnce:  # ty: ignore[incompatible-mutable-override]
        folder = self.template.local_abspath
        if folder not in _ENVIRONMENTS:
            environment = cast(CompilingOnce, Worker.jinja_env.func(self))
            environment.__class__ = CompilingOnce
            environment.settings = repr((sorted(self.template.envops.items()), self.template.jinja_extensions))
            environment.mark = mark_of(environment)
            environment.auto_reload = False
            # A file is rendered a few times only, so optimizing it would take longer than it saves.
            environment.optimized = False
            environment.filters["from_yaml"] = from_yaml
            environment.bytecode_cache = CompiledFiles()
            _ENVIRONMENTS[folder] = environment
        return _ENVIRONMENTS[folder]

    def _path_matcher(self, patterns: Iterable[str]) -> Callable[[Path], bool]:
        """Match each path once for all services with these patterns."""
        return matcher(tuple(patterns))

    @cached_property
    def _parts(self) -> dict[str, str]:
        return {}

    @cached_property
    def _complete_context(self) -> AnyByStrMutableMapping:
        return super()._render_context()

    @cached_property
    def _variables(self) -> str:
        """A digest of the variables of all files, without Copier's own, and of the template's settings of Jinja."""
        answers = {name: value for name, value in self._complete_context.items() if not name.startswith("_")}
        environment = self.jinja_env
        has_usual_tags = environment.block_start_string == "{%" and not environment.line_statement_prefix
        # With other tags the loaded files are not found, so two versions count as different.
        return digest_of(environment.settings, repr(answers), "" if has_usual_tags else self.archived.ref or "")

    def _render_context(self) -> AnyByStrMutableMapping:
        """Compute the context once, after all questions: from then on it is the same for every part of every path."""
        return self._complete_context if Phase.current() is Phase.RENDER else super()._render_context()

    def _render_template(self) -> None:
        """Read each file of the template once for all services: most files are the same in each."""
        if self.template.preserve_symlinks:
            super()._render_template()
            return
        folder = self.template.local_abspath
        for source in sources(folder, self.template_copy_root, self.template.templates_suffix):
            for path, context in self._render_path(source.path):
                if path.is_absolute() or ".." in path.parts:
                    raise ForbiddenPathError(path=path)
                if source.kind is Kind.FOLDER or self.match_exclude(path):
                    continue
                if source.kind is Kind.FILE:
                    self.tree[path.as_posix()] = _copied_entry(source.file)
                    self.contents[path.as_posix()] = source.file
                elif self.is_seed(path.as_posix()):
                    self._add_seed(source, path.as_posix(), context or {})
                else:
                    self._render_file(source.name, path, context or {})

    def is_seed(self, path: str) -> bool:
        """Return whether a rendered path belongs to the team."""
        return path != ANSWERS_FILE and self.ownership.owner_of(path) is Owner.TEAM

    def _add_seed(self, source: _Source, path: str, context: AnyByStrDict) -> None:
        """Add a file of the team, and render the file only if somebody reads it: drift follows from the platform's files."""
        variables = f"{self._variables}{path}{context}"
        known = digest(self.template.local_abspath, source.name.as_posix(), variables, self.archived.ref or "")
        self.tree[path] = Entry(_mode(source.file), known)
        self.contents[path] = partial(self._content_of_seed, source.name, Path(path), context)

    def _content_of_seed(self, name: Path, path: Path, context: AnyByStrDict) -> bytes:
        with Phase.use(Phase.RENDER):
            self._render_file(name, path, context)
        content = self.contents[path.as_posix()]
        assert isinstance(content, bytes)
        return content

    def _render_path(self, relpath: Path) -> Iterable[tuple[Path, AnyByStrDict | None]]:
        """Render a path. A path without Jinja is the same for every service."""
        if self.jinja_env.mark in str(relpath):
            return super()._render_path(relpath)
        key = self.template.local_abspath, relpath
        if key not in _PATHS:
            _PATHS[key] = list(super()._render_path(relpath))
        return _PATHS[key]

    def _render_string(self, string: str, extra_context: dict[str, Any] | None = None) -> str:
        """A part of a path, such as the name of the package, is rendered once for all paths that have it."""
        forget_yield(self.jinja_env)
        if self.jinja_env.mark not in string:
            return string
        if extra_context or Phase.current() is not Phase.RENDER:
            return super()._render_string(string, extra_context)
        if string not in self._parts:
            rendered = super()._render_string(string)
            if get_yield_context(self.jinja_env).yield_name:
                return rendered
            self._parts[string] = rendered
        return self._parts[string]

    def _render_file(self, src_relpath: Path, dst_relpath: Path, extra_context: dict[str, Any] | None = None) -> None:
        forget_yield(self.jinja_env)
        super()._render_file(src_relpath, dst_relpath, extra_context)

    def _render_allowed(
        self,
        dst_relpath: Path,
        is_dir: bool = False,
        is_symlink: bool = False,
        expected_contents: bytes | Path = b"",
        expected_mode: int | None = None,
    ) -> bool:
        """Record a file from the content that Copier is about to write, and do not let Copier write the file."""
        if not is_dir:
            content = expected_contents if isinstance(expected_contents, bytes) else os.fsencode(expected_contents)
            mode = "120000" if is_symlink else "100755" if (expected_mode or 0) & 0o100 else "100644"
            self.tree[dst_relpath.as_posix()] = Entry(mode, blob_id(content))
            self.contents[dst_relpath.as_posix()] = content
            if dst_relpath == self.answers_relpath:
                self.answers_content = content
        return False

    def _sync_git_index_executable_bit(self, dst_relpath: Path, src_mode: int) -> None:
        """Do nothing: there is no git index in the folder."""


CAST_STR_TO_NATIVE["yaml"] = parse_yaml  # ty: ignore[invalid-assignment]

# Shared by all services that this process renders, by the folder of the template version.
_ENVIRONMENTS: dict[Path, CompilingOnce] = {}
_PATHS: dict[tuple[Path, Path], list[tuple[Path, AnyByStrDict | None]]] = {}


@cache
def sources(template: Path, root: Path, suffix: str) -> list[_Source]:
    """Return the paths below the root that Copier walks through. Copier follows links that stay in the template."""
    found = []
    for entry in scantree(str(root), follow_symlinks=True):
        path = Path(entry.path)
        if entry.is_symlink() and not path.resolve().is_relative_to(template):
            raise ForbiddenPathError(path=path.relative_to(root))
        kind = Kind.FOLDER if entry.is_dir() else Kind.TEMPLATE if entry.name.endswith(suffix) else Kind.FILE
        found.append(_Source(path.relative_to(root), kind, path, path.relative_to(template)))
    return found


@cache
def _copied_entry(file: Path) -> Entry:
    """Return a file that is copied without a change into every service."""
    return Entry(_mode(file), blob_id(file.read_bytes()))


@cache
def _mode(file: Path) -> str:
    return "100755" if file.stat().st_mode & 0o100 else "100644"


@lru_cache(maxsize=16)
def _questionnaire(template: Path) -> dict[str, Any]:
    archived = Archived(url=str(template))
    archived.folder = template
    # Copier derives its loader from this class. The class in C reads the same in a fraction of the time.
    slow, yaml.SafeLoader = yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return Template._raw_config.func(archived)
    finally:
        yaml.SafeLoader = slow
