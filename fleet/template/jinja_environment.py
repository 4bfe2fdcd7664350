"""Copier's environment of Jinja, but each text of a template is compiled once for all services and kept in the cache."""

from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from types import CodeType
from typing import Any, ClassVar, NamedTuple, cast

import yaml
from copier._jinja_ext import SandboxedEnvironment, get_yield_context
from jinja2 import Environment, FileSystemBytecodeCache, nodes
from jinja2.bccache import Bucket

from fleet.cache import cache as cache_folder
from fleet.template.answers import load


class _Plain(NamedTuple):
    """A text without Jinja in it, in the place of a template."""

    text: str

    def render(self, *_: Any, **__: Any) -> str:
        return self.text


class CompilingOnce(SandboxedEnvironment):
    """Copier's environment, but each text is compiled once in a process, for all services and all versions with this text."""

    compiled: ClassVar[dict[tuple[str, str, str | None], CodeType]] = {}
    # The template's own settings of Jinja: with other settings, such as `trim_blocks`, the same text compiles to other code.
    settings = ""
    # A part of each text that Jinja would change. An empty mark is part of each text.
    mark = "{"

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Read a key of a dictionary without a search for an attribute of that name, which is most of what templates read."""
        if type(obj) is dict and attribute in obj and attribute not in _OF_DICTIONARIES:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def from_string(self, source: Any, *_: Any, **__: Any) -> Any:
        """A text without Jinja in it, as most words of a questionnaire are, is its own result."""
        if isinstance(source, str) and self.mark not in source:
            forget_yield(self)
            return _Plain(source)
        return super().from_string(source)

    def compile(self, source: str, name: str | None = None, *args: Any, **options: Any) -> CodeType:  # ty: ignore
        if not isinstance(source, str):
            raise TypeError("values of other types are no templates, and Copier takes them as they are")
        forget_yield(self)
        key = self.settings, source, name
        if key not in self.compiled:
            self.compiled[key] = super().compile(source, name, *args, **options)
        return self.compiled[key]


_OF_DICTIONARIES = frozenset(dir(dict))


@lru_cache(maxsize=1024)
def names_in(environment: SandboxedEnvironment, text: str) -> tuple[str, ...] | None:
    """The names that a text may read from its context; None if the text hands its context to other files."""
    tree = environment.parse(text)
    if any(one.with_context for one in tree.find_all((nodes.Import, nodes.FromImport, nodes.Include))):
        return None
    return tuple(sorted({one.name for one in tree.find_all(nodes.Name)}))


@lru_cache(maxsize=8192)
def render_once(environment: SandboxedEnvironment, text: str, context: tuple[tuple[str, type, Any], ...]) -> str:
    """Render a text once for each context. The context has the types of its values, because 1 and True are equal in Python."""
    return environment.from_string(text).render({name: value for name, _, value in context})


class CompiledFiles(FileSystemBytecodeCache):
    """The compiled files of all templates in the cache.

    Versions of a template share a file that is the same in both. Other versions of Jinja and Copier do not use these files. A
    damaged file counts as missing.
    """

    def __init__(self) -> None:
        versions = f"jinja2-{version('jinja2')}-copier-{version('copier')}"
        super().__init__(str(cache_folder() / "compiled" / versions))

    def get_bucket(self, environment: Environment, name: str, filename: str | None, source: str) -> Bucket:
        """Find a file by its name in the template, by its text, and by the template's settings of Jinja."""
        settings = cast(CompilingOnce, environment).settings
        return super().get_bucket(environment, name, self.get_source_checksum(f"{settings}\0{source}"), source)

    def load_bytecode(self, bucket: Bucket) -> None:
        try:
            super().load_bytecode(bucket)
        except (AttributeError, EOFError, ImportError, LookupError, TypeError, UnpicklingError, ValueError):
            bucket.reset()

    def dump_bytecode(self, bucket: Bucket) -> None:
        # The cache may be deleted at any time.
        Path(self.directory).mkdir(parents=True, exist_ok=True)
        super().dump_bytecode(bucket)


def mark_of(environment: SandboxedEnvironment) -> str:
    """Return a part of each text that Jinja would change; empty if the template's settings of Jinja leave no such part."""
    starts = environment.block_start_string, environment.variable_start_string, environment.comment_start_string
    by_line = environment.line_statement_prefix or environment.line_comment_prefix
    has_braces = all("{" in start for start in starts) and not by_line
    return "{" if has_braces and environment.keep_trailing_newline else ""


def forget_yield(environment: SandboxedEnvironment) -> None:
    """Reset the `yield` of the environment, as compiling a template does: the template may have been compiled before."""
    context = get_yield_context(environment)
    context.yield_name = context.yield_iterable = None


def parse_yaml(text: str) -> Any:
    """Parse an answer of the type YAML as Copier does, in a fraction of the time."""
    try:
        return load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def from_yaml(value: Any) -> Any:
    """Parse YAML by the reader of the answers. This replaces Ansible's filter, which Copier includes."""
    return parse_yaml(value) if isinstance(value, str) else value
