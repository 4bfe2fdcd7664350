"""The files of a repository: of the working copy with its uncommitted changes, or of any commit in any clone."""

import ast
import codecs
import io
import json
import os
import re
import tempfile
import tokenize
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from fnmatch import translate
from functools import cached_property, lru_cache
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

import tomli
import yaml

from fleet.errors import FleetError, Malformed
from fleet.git import git
from fleet.git.cat_file import refuse_large
from fleet.git.git import leads_through_link
from fleet.git.objects import Entry, Objects, Tree
from fleet.git.repository import find_repository
from fleet.template.answers import Loader, load_all, not_yaml

# The longest file that is read as text: ten times the length of a lock file.
MOST_TEXT_BYTES = 10 * 2**20

# Files that are not preloaded: checks compare the chassis by ids only, a lock file is long, and a process keeps the preloaded
# files of fifty services in memory.
SELDOM_READ = ("chassis/src/", "uv.lock")

# Longer YAML files are not kept in memory for other services.
SHARED_LENGTH = 2**16

GLOB = re.compile(r"[*?[]")


class Files:
    """Read files of a repository. No method writes into the repository."""

    def __init__(self, repository: Path, ref: str | None = None) -> None:
        """Open a repository. `ref` is a commit; None means the working copy.

        Raises FleetError if `repository` is not a repository with that commit.
        """
        self._objects = Objects(repository)
        commit = self._objects.find(f"{ref or 'HEAD'}^{{commit}}", "commit")
        if commit is None:
            git.refuse_unreadable(repository)
            raise FleetError(
                f"{repository} has no commit{f' {ref}' if ref else ' yet: commit the generated files first'}"
            )
        git.refuse_sha256(repository, commit)
        self._repository = find_repository(repository)
        checkout = self._repository.root if self._repository else None
        self.root = checkout or repository
        self.ref = ref if ref or checkout else "HEAD"
        # Parsed once for all conventions that read the files.
        self._toml: dict[tuple[str, re.Pattern[str] | None], dict[str, Any]] = {}
        self._yaml: dict[tuple[str, type], list[Any]] = {}
        # The parsed files that a check has read, the last one at the end. Each check begins with an empty list.
        self.parsed: dict[str, None] = {}

    @cached_property
    def tree(self) -> Tree:
        """All files, without the files that git ignores."""
        found = self._objects.tree(self.ref or "HEAD")
        for path in self._changed:
            found.pop(path, None)
        return found | self._changed_entries()

    def _changed_entries(self) -> Tree:
        """Return the changed files of the working copy, with the ids that git would give them."""
        present = [path for path in self._changed if self._is_file(path)]
        plain = [path for path in present if not (self.root / path).is_symlink()]
        # Git computes the ids, because a checkout may have other line ends than the blob.
        names = "".join(f"{git.quote(path)}\n" for path in plain).encode(errors="surrogateescape")
        blobs = git.line(self.root, "hash-object", "--stdin-paths", stdin=names).split() if plain else []
        found: Tree = {}
        for path, blob in zip(plain, blobs, strict=True):
            found[path] = Entry("100755" if (self.root / path).stat().st_mode & 0o100 else "100644", blob)
        for path in set(present) - set(plain):
            found[path] = Entry("120000", git.line(self.root, "hash-object", "--stdin", stdin=self._target(path)))
        return found

    def _is_file(self, path: str) -> bool:
        """Return whether git would commit a file or a link with this path.

        A path that leads through a link does not exist.
        """
        file = self.root / path
        return not leads_through_link(self.root, path) and (file.is_symlink() or file.is_file())

    def _target(self, path: str) -> bytes:
        """Return the target of a symbolic link, which git keeps as the content of the link."""
        return os.fsencode((self.root / path).readlink())

    @cached_property
    def _changed(self) -> dict[str, None]:
        """The paths at which the working copy differs from the commit, in order."""
        return dict.fromkeys(git.changed_paths(self.root) if self.ref is None else [])

    def read(self, path: str) -> bytes | None:
        """Read the bytes of a file; None if there is no file."""
        if path not in self.tree:
            return None
        if path in self._changed:
            return self._target(path) if (self.root / path).is_symlink() else self._read_changed(path)
        # An unchanged file is read from git too: in the checkout it may have gone through a filter, or be missing (sparse).
        return self._objects.read(self.tree[path].blob)

    def _read_changed(self, path: str) -> bytes:
        refuse_large(path, (self.root / path).stat().st_size)
        return (self.root / path).read_bytes()

    def text(self, path: str) -> str:
        """Read a file as text with line feeds as line ends; empty if there is no file.

        Raises FleetError if the file is not UTF-8, or longer than any file that people or tools write.
        """
        content = self.read(path) or b""
        if len(content) > MOST_TEXT_BYTES:
            raise Malformed(
                f"{path} has {len(content):,} bytes, and fleet reads texts of up to {MOST_TEXT_BYTES:,}", path
            )
        try:
            return content.decode().replace("\r\n", "\n")
        except UnicodeDecodeError:
            raise Malformed(f"{path} is not UTF-8", path) from None

    def yaml(self, path: str, loader: type = Loader) -> list[Any]:
        """Parse the documents of a YAML file, without empty documents; none if there is no file. Raises FleetError.

        Callers share the documents, also of other services, and must not change them.
        """
        key = path, loader
        self._note(path)
        try:
            if key not in self._yaml:
                text = self.text(path)
                read = _shared_documents if len(text) <= SHARED_LENGTH else _documents
                self._yaml[key] = read(text, loader)
            return self._yaml[key]
        except (yaml.YAMLError, RecursionError) as error:
            raise not_yaml(path, error) from None

    def json(self, path: str) -> Any:
        """Parse a JSON file; None if there is no file. Raises FleetError."""
        if path not in self.tree:
            return None
        self._note(path)
        try:
            return json.loads(self.text(path), parse_constant=_refuse_constant, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise Malformed(f"{path} is not JSON: {error}", path, getattr(error, "lineno", 0)) from None

    def toml(self, path: str, unread: re.Pattern[str] | None = None) -> dict[str, Any]:
        """Parse a TOML file; empty if there is no file. Text that matches `unread` is not parsed. Raises FleetError.

        Callers share the content, and must not change it.
        """
        key = path, unread
        self._note(path)
        try:
            if key not in self._toml:
                text = self.text(path)
                if unread:
                    text = unread.sub(lambda found: "\n" * found[0].count("\n"), text)
                self._toml[key] = tomli.loads(text)
            return self._toml[key]
        except (ValueError, RecursionError) as error:
            raise Malformed(f"{path} is not TOML: {error}", path, getattr(error, "lineno", 0)) from None

    def _note(self, path: str) -> None:
        self.parsed.pop(path, None)
        self.parsed[path] = None

    def python(self, path: str) -> ast.Module:
        """Parse a Python file. Raises FleetError."""
        try:
            text = self.text(path)
            _refuse_coding(text)
            return ast.parse(text.removeprefix("\ufeff"), path)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None) or 0
            what = getattr(error, "msg", error) or "it nests too deeply"
            raise Malformed(f"{path} is not Python{f', line {line}' if line else ''}: {what}", path, line) from None

    def files(self, *patterns: str) -> list[str]:
        """Find the paths that match any of the patterns, sorted. As in fnmatch, * also matches /."""
        # Most patterns are plain paths: look those up instead of globbing.
        globs = [pattern for pattern in patterns if GLOB.search(pattern)]
        named = self.tree.keys() & set(patterns).difference(globs)
        matches = _matcher(*globs)
        return sorted(named.union(path for path in self.tree if matches(path)))

    @contextmanager
    def checkout(self, *patterns: str) -> Generator[Path]:
        """Provide a temporary folder with the files that match, for tools that read files."""
        with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
            self.write_to(Path(folder), *patterns)
            yield Path(folder)

    def write_to(self, folder: Path, *patterns: str) -> None:
        """Write the files that match to a folder."""
        for parent in {(folder / path).parent for path in self.files(*patterns)}:
            parent.mkdir(parents=True, exist_ok=True)
        for path, content in self.contents(*patterns):
            (folder / path).write_bytes(content)

    def contents(self, *patterns: str) -> Iterator[tuple[str, bytes]]:
        """Yield the paths that match, and the bytes of their files."""
        files = self.files(*patterns)
        stored = [path for path in files if path not in self._changed]
        yield from zip(stored, self._objects.read_all([self.tree[path].blob for path in stored]), strict=True)
        yield from ((path, self.read(path) or b"") for path in files if path in self._changed)

    def preload(self) -> None:
        """Read into memory the files that most checks read."""
        self._objects.preload([self.tree[path].blob for path in self.tree if not path.startswith(SELDOM_READ)])

    def close(self) -> None:
        """End the process that reads files. The next read starts another process."""
        self._objects.close()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    """Read a number. Raises ValueError for 1e999, which Python would read, and could only write as Infinity."""
    found = float(digits)
    return found if isfinite(found) else _refuse_constant(digits[:20])


def _documents(text: str, loader: type) -> list[Any]:
    return [one for one in load_all(text, loader) if one is not None]


# A short file is parsed once for all services, because some files are the same in every service.
_shared_documents = lru_cache(maxsize=64)(_documents)


@lru_cache(maxsize=256)  # conventions ask every service for the same patterns
def _matcher(*globs: str) -> Callable[[str], object]:
    """Compile the patterns into one function, which returns a true value for a path that matches any of them."""
    return re.compile("|".join(map(translate, globs)) or r"(?!)").match


def _refuse_coding(text: str) -> None:
    """Refuse a file that Python would read as other characters than a person. Raises SyntaxError."""
    coding, _ = tokenize.detect_encoding(io.BytesIO(text.replace("\r", "\n").encode()).readline)
    if not codecs.lookup(coding).name.startswith("utf-8"):
        raise SyntaxError(f"it declares the coding {coding}, and may declare only UTF-8")
