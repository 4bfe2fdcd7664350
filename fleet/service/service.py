"""One service, as its repository has it: a working copy with what is not committed yet, or any commit of any clone."""

import ast
import codecs
import hashlib
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
from pathlib import Path
from typing import Any, TypeVar

import tomli
import yaml

from fleet.cache import cache, write_whole
from fleet.errors import FleetError, Malformed
from fleet.git import git, isolation
from fleet.git.git import leads_through_link
from fleet.git.objects import Entry, Objects, Tree, refuse_large
from fleet.service.waivers import WAIVERS_FILE, Waivers, today
from fleet.template.answers import ANSWERS_FILE, OTHER_ANSWERS, Answers, Loader, load_all, not_yaml, recorded
from fleet.template.manifest import Manifest
from fleet.template.release import Release
from fleet.template.template import Template

T = TypeVar("T")

# Ten times what a lock file has.
MOST_TEXT_BYTES = 10 * 2**20

# The chassis is compared by its ids, and a lock file is long: a run holds the files of fifty services at a time.
SELDOM_READ = ("chassis/src/", "uv.lock")

GLOB = re.compile(r"[*?[]")


@lru_cache(maxsize=256)  # conventions ask every service for the same
def _fitting(*globs: str) -> Callable[[str], object]:
    """Whether a path fits one of these."""
    return re.compile("|".join(map(translate, globs)) or r"(?!)").match


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


def _refuse_coding(text: str) -> None:
    """Raises SyntaxError if Python would read other characters than whoever looks at the file."""
    coding, _ = tokenize.detect_encoding(io.BytesIO(text.replace("\r", "\n").encode()).readline)
    if not codecs.lookup(coding).name.startswith("utf-8"):
        raise SyntaxError(f"it declares the coding {coding}, and may declare only UTF-8")


class Service:
    """What checks look at. Nothing here writes."""

    def __init__(self, repository: Path, ref: str | None = None, base: str | None = None) -> None:
        """`ref` is a commit; None means the working copy. `base` is what it will be merged into, for what must not change.

        Raises FleetError if that is no repository with a commit, or has no such base.
        """
        self._objects = Objects(repository)
        commit = self._objects.find(f"{ref or 'HEAD'}^{{commit}}", "commit")
        if commit is None:
            git.refuse_unreadable(repository)
            raise FleetError(
                f"{repository} has no commit{f' {ref}' if ref else ' yet: commit what was generated first'}"
            )
        git.refuse_sha256(repository, commit)
        self._repository = isolation.find(repository)
        checkout = self._repository.root if self._repository else None
        self.root = checkout or repository
        _refuse_nested(repository, self.root)
        self.ref = ref if ref or checkout else "HEAD"
        if base and base != ref and not self._objects.find(f"{base}^{{commit}}", "commit"):
            raise FleetError(f"{repository} has no commit {base} to compare with: fetch it, or name another base")
        self._base = base
        # Parsed once for all conventions that look at them.
        self._toml: dict[tuple[str, re.Pattern[str] | None], dict[str, Any]] = {}
        self._yaml: dict[tuple[str, type], list[Any]] = {}

    @cached_property
    def tree(self) -> Tree:
        """Its files, with what git ignores left out."""
        found = self._objects.tree(self.ref or "HEAD")
        present = [path for path in self._changed if self._is_file(path)]
        for path in self._changed:
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
        return not leads_through_link(self.root, path) and (file.is_symlink() or file.is_file())

    def _target(self, path: str) -> bytes:
        """Where a symbolic link leads, which is the content that git keeps of a link."""
        return os.fsencode((self.root / path).readlink())

    @cached_property
    def _changed(self) -> dict[str, None]:
        """The paths at which the working copy differs from the commit, in order."""
        return dict.fromkeys(git.changed_paths(self.root) if self.ref is None else [])

    def read(self, path: str) -> bytes | None:
        """The bytes of a file; None if there is none."""
        if path not in self.tree:
            return None
        if path in self._changed:
            return self._target(path) if (self.root / path).is_symlink() else self._bytes(path)
        # Also of a file that is in the checkout: there it may have gone through a filter, or be left out (sparse).
        return self._objects.read(self.tree[path].blob)

    def _bytes(self, path: str) -> bytes:
        refuse_large(path, (self.root / path).stat().st_size)
        return (self.root / path).read_bytes()

    def text(self, path: str) -> str:
        """A file as text, its lines ending as on any system; empty if there is none.

        Raises FleetError if it is not UTF-8, or longer than anything that people or tools write.
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
        """The documents of a YAML file, not for changing, empty ones left out; none if there is no file. Raises FleetError."""
        key = path, loader
        try:
            if key not in self._yaml:
                self._yaml[key] = [one for one in load_all(self.text(path), loader) if one is not None]
            return self._yaml[key]
        except (yaml.YAMLError, RecursionError) as error:
            raise not_yaml(path, error) from None

    def json(self, path: str) -> Any:
        """The content of a JSON file; None if there is none. Raises FleetError."""
        if path not in self.tree:
            return None
        try:
            return json.loads(self.text(path))
        except (ValueError, RecursionError) as error:
            raise Malformed(f"{path} is not JSON: {error}", path, getattr(error, "lineno", 0)) from None

    def toml(self, path: str, unread: re.Pattern[str] | None = None) -> dict[str, Any]:
        """The content of a TOML file, not for changing; empty if there is none. Lines that fit `unread` are empty.

        Raises FleetError.
        """
        key = path, unread
        try:
            if key not in self._toml:
                text = self.text(path)
                if unread:
                    text = unread.sub(lambda found: "\n" * found[0].count("\n"), text)
                self._toml[key] = tomli.loads(text)
            return self._toml[key]
        except (ValueError, RecursionError) as error:
            raise Malformed(f"{path} is not TOML: {error}", path, getattr(error, "lineno", 0)) from None

    def python(self, path: str) -> ast.Module:
        """The syntax tree of a Python file. Raises FleetError."""
        try:
            text = self.text(path)
            _refuse_coding(text)
            return ast.parse(text.removeprefix("\ufeff"), path)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None) or 0
            what = getattr(error, "msg", error) or "it nests too deeply"
            raise Malformed(f"{path} is not Python{f', line {line}' if line else ''}: {what}", path, line) from None

    def files(self, *patterns: str) -> list[str]:
        """The paths that fit one of these, sorted. As fnmatch has it: * goes over / too."""
        # Most are the names of files, a hundred of them: those are looked up.
        globs = [pattern for pattern in patterns if GLOB.search(pattern)]
        named = self.tree.keys() & set(patterns).difference(globs)
        fits = _fitting(*globs)
        return sorted(named.union(path for path in self.tree if fits(path)))

    @contextmanager
    def checkout(self, *patterns: str) -> Generator[Path]:
        """The files that fit, in a temporary folder, for tools that read files."""
        with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
            self.write_to(Path(folder), *patterns)
            yield Path(folder)

    def write_to(self, folder: Path, *patterns: str) -> None:
        """The files that fit, written to that folder."""
        for parent in {(folder / path).parent for path in self.files(*patterns)}:
            parent.mkdir(parents=True, exist_ok=True)
        for path, content in self.contents(*patterns):
            (folder / path).write_bytes(content)

    def contents(self, *patterns: str) -> Iterator[tuple[str, bytes]]:
        """The files that fit, and their bytes."""
        files = self.files(*patterns)
        stored = [path for path in files if path not in self._changed]
        yield from zip(stored, self._objects.read_all([self.tree[path].blob for path in stored]), strict=True)
        yield from ((path, self.read(path) or b"") for path in files if path in self._changed)

    def hold(self) -> None:
        """Read what most checks read into memory."""
        self._objects.hold([self.tree[path].blob for path in self.tree if not path.startswith(SELDOM_READ)])

    def rest(self) -> None:
        """End what reads its files, which starts again when it is needed."""
        self._objects.close()

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
        shared = git.answer(self.root, "merge-base", name, self.ref or "HEAD")
        if shared is None and self._repository and self._repository.is_shallow:
            raise FleetError(
                f"{self.root} is a shallow clone, and where this work branched off {name} is not in it: run "
                "`git fetch --unshallow` there"
            )
        return Service(self.root, shared or name)

    def _default_base(self) -> str | None:
        # They come sorted, which is the order in which they are preferred.
        branches = [f"refs/remotes/*/{name}" for name in ("HEAD", "main", "master")]
        found = git.line(self.root, "for-each-ref", "--format=%(refname)", *branches).splitlines()
        remotes = list(dict.fromkeys(name.removeprefix("refs/remotes/").rpartition("/")[0] for name in found))
        if len(remotes) > 1 and "origin" not in remotes:
            raise FleetError(
                f"{self.root} has several remotes, {', '.join(remotes)}, and none is called origin: name the branch to "
                "compare with by --base"
            )
        remote = "origin" if "origin" in remotes else next(iter(remotes), "")
        return next((name for name in found if name.startswith(f"refs/remotes/{remote}/")), None)

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
        return recorded(self.read(ANSWERS_FILE), self.other_answers)

    def other_answers(self) -> dict[str, bytes | None]:
        """What other templates recorded in this repository, by path."""
        return {path: self.read(path) for path in self.files(OTHER_ANSWERS) if "/" not in path}

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

    def is_waived(self, path: str) -> bool:
        """Whether the path may be other than the template's, by a waiver that still counts."""
        waiver = self.waivers.of_path(path)
        return waiver is not None and not waiver.void_because(self.tree.get(path), today())
