"""One release of the template, and the service that it renders from answers."""

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from datetime import datetime
from functools import cache as once
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version

from fleet.cache import cache, file_lock, mark_used, preparing
from fleet.git import git, objects
from fleet.processes.resource_limits import limit_resources
from fleet.template.answers import Answers
from fleet.template.manifest import Manifest, recall, remember

if TYPE_CHECKING:
    from fleet.template.rendering import Rendered
    from fleet.template.template import Template

# Folders that have no file for services, although they have most of the template's files. docs/how-to is not listed, because
# the chassis has links to its pages.
NOT_RENDERED = (
    "bench/",
    "demo/",
    "docs/decisions/",
    "docs/explanation/",
    "docs/pictures/",
    "docs/reference/",
    "docs/styles/",
    "examples/",
    "fleet/",
    "tests/",
)

# Folders of versions that this process has found to be complete.
_COMPLETE: set[Path] = set()

# Increase the number when the same inputs would make another manifest.
MANIFEST_FORMAT = "3"


@dataclass(frozen=True)
class Release:
    """One version of the template. `version` is its name in .copier-answers.yml."""

    template: "Template"
    commit: str
    version: str

    @property
    def number(self) -> Version | None:
        """The version for comparisons; None if no tag came before the commit."""
        return as_version(self.version)

    @cached_property
    def date(self) -> datetime:
        """The time of the commit, with a time zone."""
        template, asked = self.template, ("log", "-1", "--format=%cI", self.commit)
        return datetime.fromisoformat(template.retry_after_repair(lambda: git.line(template.repository, *asked)))

    def read(self, path: str) -> bytes | None:
        """Read a file of the template; None if there is no file. Raises FleetError."""
        return self.template.retry_after_repair(lambda: _read(self.template.repository, self.commit, path))

    @property
    def folder(self) -> Path:
        """A read-only folder in the cache with the files that renders and updates need, written once per commit."""
        return self.template.retry_after_repair(self._cached_folder)

    def _cached_folder(self) -> Path:
        folder = cache() / "versions" / self.commit
        if not self._is_complete(folder):
            with file_lock(folder):
                if not self._is_complete(folder):  # another process may have been faster
                    self._write(folder)
        return folder

    def _write(self, folder: Path) -> None:
        with preparing(folder) as part:
            objects.write_tree(self.template.repository, self.commit, part / "files", without=NOT_RENDERED)
            # A program that cleans up caches may have removed single files of the old folder.
            shutil.rmtree(folder, ignore_errors=True)
            (part / "files").rename(folder)
        _COMPLETE.add(folder)

    def _is_complete(self, folder: Path) -> bool:
        """Return whether the folder has every file. A process looks at the files of a folder once."""
        if folder in _COMPLETE and folder.exists():
            return True
        if not folder.exists():
            return False
        paths = [
            path for path in objects.tree(self.template.repository, self.commit) if not path.startswith(NOT_RENDERED)
        ]
        if all(os.path.lexists(folder / path) for path in paths):
            mark_used(folder)
            _COMPLETE.add(folder)
        return folder in _COMPLETE

    def render(self, answers: Answers, into: Path, data: dict[str, Any] | None = None) -> Manifest:
        """Write the service that these answers make. `data` are changed answers. Raises FleetError."""
        rendered = self.rendered(answers, data)
        for path in rendered.contents:
            rendered.write(path, into)
        return rendered.manifest

    def manifest(self, answers: Answers, data: dict[str, Any] | None = None) -> Manifest:
        """Describe the files that `render` would write. A manifest in the cache is not rendered again. Raises FleetError."""
        known = self.cached_manifest(answers, data)
        return known if known is not None else self.rendered(answers, data).manifest

    def rendered(self, answers: Answers, data: dict[str, Any] | None) -> "Rendered":
        """Render the service that these answers make in memory. Raises FleetError."""
        # Imported here, because importing Copier takes longer than a check that finds its manifest in the cache.
        from fleet.template.rendering import render

        with limit_resources(f"rendering the template at {self.version}"):
            found = render(self.folder, commit=self.version, answers=answers, data=data)
        remember(self._key(answers, data), found.manifest)
        return found

    def cached_manifest(self, answers: Answers, data: dict[str, Any] | None = None) -> Manifest | None:
        """Return the manifest of these answers, if it is in the cache."""
        return recall(self._key(answers, data))

    def _key(self, answers: Answers, data: dict[str, Any] | None) -> Path:
        parts = [
            MANIFEST_FORMAT,
            _version_of_copier(),
            self.commit,
            self.version,
            answers.text,
            repr(sorted((data or {}).items())),
        ]
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return cache() / "manifests" / digest[:2] / f"{digest[2:40]}.json"


@once
def _read(repository: Path, commit: str, path: str) -> bytes | None:
    return objects.show(repository, commit, path)


@once
def _version_of_copier() -> str:
    from importlib.metadata import version  # imported here, because not every command asks for it

    return version("copier")


class Render:
    """A release with the answers of a service. The files are written to a folder when a caller first needs a file."""

    def __init__(self, release: Release, answers: Answers, folder: Path, data: dict[str, Any] | None = None) -> None:
        self.release = release
        self.answers = answers
        self.data = data or {}
        self._folder = folder

    @cached_property
    def manifest(self) -> Manifest:
        """The files of the render, as ids. Raises FleetError."""
        known = self.release.cached_manifest(self.answers, self.data)
        return known if known is not None else self._rendered.manifest

    @cached_property
    def _rendered(self) -> "Rendered":
        return self.release.rendered(self.answers, self.data)

    def __truediv__(self, path: str) -> Path:
        """Return a rendered file, which may be missing. Raises FleetError."""
        file = self._folder / path
        if not os.path.lexists(file):
            self._rendered.write(path, self._folder)
        return file


def as_version(name: str) -> Version | None:
    """Parse a tag or the output of `git describe` (v1.2.0-3-gabcdef) as a version that can be compared; None if it is neither."""
    described = re.fullmatch(r"(.+)-(\d+)-g[0-9a-f]+", name)
    try:
        return Version(f"{described[1]}.post{described[2]}" if described else name)
    except InvalidVersion:
        return None
