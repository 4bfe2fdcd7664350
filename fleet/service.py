"""One service, as its repository has it: a working copy with what is not committed yet, or any commit of any clone."""

import ast
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, TypeVar

import tomli
import yaml

from fleet import git
from fleet.answers import ANSWERS_FILE, Answers, Loader, not_yaml
from fleet.cache import cache, write_whole
from fleet.errors import FleetError, Malformed
from fleet.git import Entry, Tree
from fleet.manifest import Manifest
from fleet.template import Release, Template
from fleet.waivers import WAIVERS_FILE, Waivers

T = TypeVar("T")

GLOB = re.compile(r"[*?[]")


def _refuse_nested(path: Path, root: Path) -> None:
    """Raises FleetError if the path is in a service that is not at the root of its repository."""
    for folder in (path.resolve(), *path.resolve().parents):
        if not folder.is_relative_to(root.resolve()) or folder == root.resolve():
            return
        if (folder / ANSWERS_FILE).exists():
            raise FleetError(
                f"{folder} is a service in a folder of the repository {root}, and a service has a repository of its own: move it "
                "into one (git subtree split), and run fleet there"
            )


class Service:
    """What checks look at. Nothing here writes."""

    def __init__(self, repository: Path, ref: str | None = None, base: str | None = None) -> None:
        """`ref` is a commit; None means the working copy. `base` is what it will be merged into, for what must not change.

        Raises FleetError if that is no repository with a commit, or has no such base.
        """
        if not git.succeeds(repository, "rev-parse", "--verify", "--quiet", f"{ref or 'HEAD'}^{{commit}}"):
            git.refuse_unreadable(repository)
            raise FleetError(
                f"{repository} has no commit{f' {ref}' if ref else ' yet: commit what was generated first'}"
            )
        checkout = git.answer(repository, "rev-parse", "--show-toplevel")
        self.root = Path(checkout) if checkout else repository
        _refuse_nested(repository, self.root)
        self.ref = ref if ref or checkout else "HEAD"
        if (
            base
            and base != ref
            and not git.succeeds(self.root, "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}")
        ):
            raise FleetError(f"{repository} has no commit {base} to compare with: fetch it, or name another base")
        self._base = base
        # Parsed once for all conventions that look at them.
        self._toml: dict[str, dict[str, Any]] = {}
        self._yaml: dict[tuple[str, type], list[Any]] = {}

    @cached_property
    def tree(self) -> Tree:
        """Its files, with what git ignores left out."""
        found = git.tree(self.root, self.ref or "HEAD")
        changed = git.changed_paths(self.root) if self.ref is None else []
        present = [path for path in changed if self._is_file(path)]
        for path in changed:
            found.pop(path, None)
        # By git, not by us: a checkout may have other line ends than the blob.
        plain = [path for path in present if not (self.root / path).is_symlink()]
        names = "".join(f"{git.quoted(path)}\n" for path in plain).encode(errors="surrogateescape")
        blobs = git.line(self.root, "hash-object", "--stdin-paths", stdin=names).split() if plain else []
        for path, blob in zip(plain, blobs, strict=True):
            found[path] = Entry("100755" if (self.root / path).stat().st_mode & 0o100 else "100644", blob)
        for path in set(present) - set(plain):
            found[path] = Entry("120000", git.line(self.root, "hash-object", "--stdin", stdin=self._target(path)))
        return found

    def _is_file(self, path: str) -> bool:
        """Whether git would commit a file or a link of this path: a path that leads through a link is gone."""
        file = self.root / path
        through_a_link = any((self.root / parent).is_symlink() for parent in list(PurePath(path).parents)[:-1])
        return not through_a_link and (file.is_symlink() or file.is_file())

    def _target(self, path: str) -> bytes:
        """Where a symbolic link leads, which is the content that git keeps of a link."""
        return os.fsencode((self.root / path).readlink())

    def read(self, path: str) -> bytes | None:
        """The bytes of a file; None if there is none."""
        if path not in self.tree:
            return None
        if self.ref is not None:
            return self._blobs.read(self.tree[path].blob)
        return self._target(path) if (self.root / path).is_symlink() else (self.root / path).read_bytes()

    @cached_property
    def _blobs(self) -> git.Blobs:
        return git.Blobs(self.root)

    def text(self, path: str) -> str:
        """A file as text, its lines ending as on any system; empty if there is none. Raises FleetError if it is not UTF-8."""
        try:
            return (self.read(path) or b"").decode().replace("\r\n", "\n")
        except UnicodeDecodeError:
            raise Malformed(f"{path} is not UTF-8", path) from None

    def yaml(self, path: str, loader: type = Loader) -> list[Any]:
        """The documents of a YAML file, not for changing, empty ones left out; none if there is no file. Raises FleetError."""
        key = path, loader
        try:
            if key not in self._yaml:
                self._yaml[key] = [one for one in yaml.load_all(self.text(path), Loader=loader) if one is not None]
            return self._yaml[key]
        except (yaml.YAMLError, RecursionError) as error:
            raise not_yaml(path, error) from None

    def json(self, path: str) -> Any:
        """The content of a JSON file; None if there is none. Raises FleetError."""
        if path not in self.tree:
            return None
        try:
            return json.loads(self.text(path))
        except ValueError as error:
            raise Malformed(f"{path} is not JSON: {error}", path, getattr(error, "lineno", 0)) from None

    def toml(self, path: str) -> dict[str, Any]:
        """The content of a TOML file, not for changing; empty if there is none. Raises FleetError."""
        try:
            if path not in self._toml:
                self._toml[path] = tomli.loads(self.text(path))
            return self._toml[path]
        except tomli.TOMLDecodeError as error:
            raise Malformed(f"{path} is not TOML: {error}", path, getattr(error, "lineno", 0)) from None

    def python(self, path: str) -> ast.Module:
        """The syntax tree of a Python file. Raises FleetError."""
        try:
            return ast.parse(self.text(path), path)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None) or 0
            what = getattr(error, "msg", error)
            raise Malformed(f"{path} is not Python{f', line {line}' if line else ''}: {what}", path, line) from None

    def files(self, *patterns: str) -> list[str]:
        """The paths that fit one of these, sorted. As fnmatch has it: * goes over / too."""
        # Most are the names of files, a hundred of them: those are looked up.
        globs = [pattern for pattern in patterns if GLOB.search(pattern)]
        named = self.tree.keys() & set(patterns).difference(globs)
        return sorted(named.union(path for path in self.tree if any(fnmatchcase(path, glob) for glob in globs)))

    @contextmanager
    def checkout(self, *patterns: str) -> Generator[Path]:
        """The files that fit, in a temporary folder, for tools that read files."""
        with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
            self.write_to(Path(folder), *patterns)
            yield Path(folder)

    def write_to(self, folder: Path, *patterns: str) -> None:
        """The files that fit, written to that folder."""
        files = self.files(*patterns)
        for parent in {(folder / path).parent for path in files}:
            parent.mkdir(parents=True, exist_ok=True)
        for path in files:
            (folder / path).write_bytes(self.read(path) or b"")

    def remembered(self, tool: str, patterns: tuple[str, ...], compute: Callable[[Path], T]) -> T:
        """What `compute` makes of a checkout of these files, which has to be JSON: kept for the next time they are the same.

        `tool` names what computes and its version: what is kept of another one does not count.
        """
        file = self.memory(tool, patterns)
        try:
            return json.loads(file.read_bytes())
        except (OSError, ValueError):
            with self.checkout(*patterns) as folder:
                result = compute(folder)
            write_whole(file, json.dumps(result))
            return result

    def memory(self, tool: str, patterns: tuple[str, ...]) -> Path:
        """Where `remembered` keeps it."""
        inputs = [tool, *(f"{path} {self.tree[path].mode} {self.tree[path].blob}" for path in self.files(*patterns))]
        digest = hashlib.sha256("\0".join(inputs).encode(errors="surrogateescape")).hexdigest()
        return cache() / "tools" / digest[:2] / f"{digest[2:40]}.json"

    @cached_property
    def base(self) -> "Service | None":
        """The service where this work branched off the base; None if there is no base here."""
        name = self._base or self._default_base()
        if name is None:
            return None
        if name == self.ref:
            return self
        return Service(self.root, git.answer(self.root, "merge-base", name, self.ref or "HEAD") or name)

    def _default_base(self) -> str | None:
        # They come sorted, which is the order in which they are preferred.
        branches = [f"refs/remotes/origin/{name}" for name in ("HEAD", "main", "master")]
        return git.line(self.root, "for-each-ref", "--count=1", "--format=%(refname)", *branches) or None

    @property
    def name(self) -> str:
        """As it was answered: kebab-case."""
        return str(self.answers.values.get("service_name", ""))

    def misnamed(self, name: str) -> str:
        """Why it cannot be called so; empty if it can. Half of the platform's files name the package of the team's code."""
        folder = f"src/{name.replace('-', '_')}/"
        if name and any(path.startswith(folder) for path in self.tree):
            return ""
        return f"the service's name would be {name!r}, and it has no {folder}" if name else "there is no service_name"

    @property
    def package(self) -> str:
        """The name of its Python package."""
        return self.name.replace("-", "_")

    @cached_property
    def answers(self) -> Answers:
        """Raises FleetError."""
        return Answers.parse(self.read(ANSWERS_FILE))

    @cached_property
    def template(self) -> Template:
        """Raises FleetError. Whoever looks at many services sets one for all of them, which then reads its tags once."""
        return Template(self.answers.source)

    @cached_property
    def release(self) -> Release:
        """The template version it was born with or last updated to. Raises FleetError."""
        return self.template.recorded(self.answers)

    @cached_property
    def expected(self) -> Manifest:
        """What that version makes of its answers. Raises FleetError."""
        return self.release.manifest(self.answers)

    @cached_property
    def waivers(self) -> Waivers:
        """Raises FleetError."""
        return Waivers.parse(self.read(WAIVERS_FILE))
