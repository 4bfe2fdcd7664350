"""One release of the template, and what it makes of a service's answers."""

import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version

from fleet.cache import cache, locked
from fleet.git import git, objects
from fleet.processes.limits import limited
from fleet.template.answers import Answers
from fleet.template.manifest import Manifest, recall, remember

if TYPE_CHECKING:
    from fleet.template.template import Template

# Two thirds of the template's files, of which no service is made.
NOT_RENDERED = ("bench/", "demo/", "docs/", "fleet/", "tests/")

# Where nothing is, and nothing can be written to.
NOWHERE = Path(os.devnull, "service")

# Folders of versions that this process has found to be whole.
_WHOLE: set[Path] = set()

# Increase it when the same inputs would make another manifest.
MANIFEST_FORMAT = "2"


@dataclass(frozen=True)
class Release:
    """One version of the template. `version` is how Copier names it in .copier-answers.yml."""

    template: "Template"
    commit: str
    version: str

    @property
    def number(self) -> Version | None:
        """For comparing; None if no tag came before."""
        return as_version(self.version)

    @cached_property
    def date(self) -> datetime:
        """When it was committed, with a time zone."""
        template, asked = self.template, ("log", "-1", "--format=%cI", self.commit)
        return datetime.fromisoformat(template.healed(lambda: git.line(template.repository, *asked)))

    @property
    def folder(self) -> Path:
        """What renders and updates read of it in a plain folder, written once per commit. Not for writing into."""
        return self.template.healed(self._written)

    def _written(self) -> Path:
        folder = cache() / "versions" / self.commit
        if not self._is_whole(folder):
            with locked(folder):
                if not self._is_whole(folder):  # another process may have been faster
                    self._write(folder)
        return folder

    def _write(self, folder: Path) -> None:
        # What cleans up a cache may have taken single files of it.
        shutil.rmtree(folder, ignore_errors=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            objects.write_tree(self.template.repository, self.commit, unfinished / "files", without=NOT_RENDERED)
            (unfinished / "files").rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _is_whole(self, folder: Path) -> bool:
        """Whether the folder has every file. In a process this is looked at once."""
        if folder in _WHOLE and folder.exists():
            return True
        if not folder.exists():
            return False
        paths = [
            path for path in objects.tree(self.template.repository, self.commit) if not path.startswith(NOT_RENDERED)
        ]
        if all(os.path.lexists(folder / path) for path in paths):
            _WHOLE.add(folder)
        return folder in _WHOLE

    def render(self, answers: Answers, into: Path, data: dict[str, Any] | None = None) -> Manifest:
        """Write the service that these answers make, `data` being changed ones. Raises FleetError."""
        return self._rendered(answers, into, data, write=True)

    def manifest(self, answers: Answers, data: dict[str, Any] | None = None) -> Manifest:
        """What `render` would write, from the cache if it was rendered before. Raises FleetError."""
        if (known := self.known(answers, data)) is not None:
            return known
        return self._rendered(answers, NOWHERE, data, write=False)

    def _rendered(self, answers: Answers, into: Path, data: dict[str, Any] | None, *, write: bool) -> Manifest:
        # Here, because importing Copier takes longer than a check that finds its manifest in the cache.
        from fleet.template.rendering import render

        with limited(f"rendering the template at {self.version}"):
            manifest = render(self.folder, commit=self.version, answers=answers, into=into, data=data, write=write)
        remember(self._key(answers, data), manifest)
        return manifest

    def known(self, answers: Answers, data: dict[str, Any] | None = None) -> Manifest | None:
        """What `render` would write, if that is in the cache."""
        return recall(self._key(answers, data))

    def _key(self, answers: Answers, data: dict[str, Any] | None) -> Path:
        from importlib.metadata import version

        parts = [
            MANIFEST_FORMAT,
            version("copier"),
            self.commit,
            self.version,
            answers.text,
            repr(sorted((data or {}).items())),
        ]
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return cache() / "manifests" / digest[:2] / f"{digest[2:40]}.json"


class Render:
    """A release with the answers of a service, written to a folder once somebody wants to see a file of it."""

    def __init__(self, release: Release, answers: Answers, folder: Path, data: dict[str, Any] | None = None) -> None:
        self.release = release
        self.answers = answers
        self.data = data or {}
        self._folder = folder

    @cached_property
    def manifest(self) -> Manifest:
        """Raises FleetError."""
        known = self.release.known(self.answers, self.data)
        return known if known is not None else self.release.render(self.answers, self._folder, self.data)

    def __truediv__(self, path: str) -> Path:
        """A file of it, which may be missing. Raises FleetError."""
        if not self._folder.exists():
            self.release.render(self.answers, self._folder, self.data)
        return self._folder / path


def as_version(name: str) -> Version | None:
    """A tag, or what `git describe` makes of a later commit (v1.2.0-3-gabcdef), as a version that can be compared."""
    described = re.fullmatch(r"(.+)-(\d+)-g[0-9a-f]+", name)
    try:
        return Version(f"{described[1]}.post{described[2]}" if described else name)
    except InvalidVersion:
        return None
