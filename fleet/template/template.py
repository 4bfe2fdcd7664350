"""The template: where it is, and which releases it has."""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from fleet.cache import cache, locked, offline
from fleet.errors import FleetError
from fleet.git import git, isolation
from fleet.git.git import without_credentials
from fleet.output import warn
from fleet.template.answers import Answers
from fleet.template.release import Release, as_version
from fleet.template.trust import expanded, is_path, refuse_untrusted

T = TypeVar("T")

MOVED = (
    "If it has moved, write its new address into _src_path of .copier-answers.yml, commit that, and run `fleet update`, "
    "which corrects the links in MANUAL.md"
)
# A tag that was moved or deleted, an edit by hand, a birth from changes that nobody had committed.
LOST = (
    "_commit of .copier-answers.yml names it: put back what was there (git log -p .copier-answers.yml), or write the version "
    "there that the service is nearest to, and commit that. `fleet check --drift` then shows what differs"
)


class Template:
    """A template's repository, by the address that a service recorded.

    A path on this machine is read where it is; of anything else there is a mirror in the cache.
    """

    def __init__(self, source: str) -> None:
        """Raises FleetError for an untrusted template, or a relative path."""
        self.shown = without_credentials(source)
        self._found: dict[str, Release] = {}
        self.url = expanded(source)
        self.is_local = is_path(self.url)
        refuse_untrusted(source)
        if self.is_local and not os.path.isabs(self.url):
            raise FleetError(
                f"the recorded template {source!r} is a relative path, which means another folder from each place: write "
                "its git URL or absolute path into _src_path of .copier-answers.yml"
            )

    @cached_property
    def repository(self) -> Path:
        """A git repository that has the template's commits. Clones it if it was never seen. Raises FleetError."""
        if self.is_local:
            if isolation.find(Path(self.url)) is None:
                raise FleetError(f"the recorded template {self.shown} is not a git repository on this machine. {MOVED}")
            return Path(self.url)
        mirror = self._mirror
        with locked(mirror):
            if not mirror.exists():
                if offline():
                    raise FleetError(
                        f"the template {self.shown} is not in the cache yet: run it once without --offline"
                    )
                self._clone()
        return mirror

    def _clone(self) -> None:
        """Put a new mirror in the place of the old one, if there is one. Raises FleetError, and keeps the old one."""
        mirror = self._mirror
        unfinished = Path(tempfile.mkdtemp(dir=mirror.parent))
        try:
            asked = ("clone", "--quiet", "--mirror", "--template=", "--", self.url, str(unfinished / "git"))
            git.exchange(unfinished, *asked)
            shutil.rmtree(mirror, ignore_errors=True)
            (unfinished / "git").rename(mirror)
        except FleetError as error:
            said = str(error).replace(f" in {unfinished}", "")
            raise FleetError(f"the recorded template {self.shown} cannot be fetched: {said}\n{MOVED}") from None
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def healed(self, read: Callable[[], T]) -> T:
        """Call `read`. If it raises FleetError and the mirror is damaged, clone the mirror anew, and call `read` again.

        A program that cleans up caches may remove single files of a mirror.
        """
        mirror = self._mirror
        seen = _inode(mirror)
        try:
            return read()
        except FleetError:
            if self.is_local or offline() or not seen or not self._is_mended(seen):
                raise
        return read()

    def _is_mended(self, seen: int) -> bool:
        """Whether the mirror is another one than the one that failed, because this or another process has cloned it anew."""
        with locked(self._mirror):
            if _inode(self._mirror) == seen and git.is_damaged(self._mirror):
                with suppress(FleetError):  # a host that is away now
                    self._clone()
            return _inode(self._mirror) != seen

    @property
    def _mirror(self) -> Path:
        return cache() / "templates" / f"{hashlib.sha256(self.url.encode()).hexdigest()[:24]}.git"

    def refresh(self, *, unless_newer_than: timedelta = timedelta()) -> None:
        """Fetch new commits, unless the last attempt was just now. Raises FleetError."""
        if not self.is_local and not offline():
            self.healed(lambda: self._refresh(unless_newer_than))

    def _refresh(self, unless_newer_than: timedelta) -> None:
        new = not self._mirror.exists()
        with locked(self.repository):
            tried = self._mirror / "fleet-tried"
            if not new and _age(tried) >= unless_newer_than:
                tried.touch()
                # By its address, and not as `origin`: the mirror may have lost its configuration.
                # In this folder only, and not in a repository around the cache, if the mirror has lost its HEAD.
                how = ("--git-dir=.", "fetch", "--quiet", "--prune", "--force")
                git.exchange(self.repository, *how, "--", self.url, "+refs/*:refs/*")

    def refresh_if_possible(self, *, unless_newer_than: timedelta = timedelta()) -> None:
        """As `refresh`, but if the template cannot be fetched, print on stderr how old the known releases are.

        Raises FleetError if nothing is known yet.
        """
        try:
            self.refresh(unless_newer_than=unless_newer_than)
        except FleetError as error:
            if not self._mirror.exists():
                raise
            fetched = self._mirror / "FETCH_HEAD"
            hours = _age(fetched if fetched.exists() else self._mirror / "HEAD") / timedelta(hours=1)
            said = str(error).replace(f" in {self._mirror}", "")
            warn(
                f"the template {self.shown} cannot be fetched, so a release of the last {hours:.1f} hours may be missing "
                f"here: {said}\n{MOVED}"
            )

    @cached_property
    def releases(self) -> list[str]:
        """The tags that are versions, oldest first; no pre-releases."""
        tags = self.healed(self._tags)
        known = [(version, tag) for tag in tags if (version := as_version(tag)) and not version.is_prerelease]
        return [tag for _, tag in sorted(known)]

    def newest(self) -> "Release":
        """The newest release; the last commit of a template that never released, as for Copier."""
        return self.at(self.releases[-1] if self.releases else "HEAD")

    def at(self, version: str, remedy: str = "") -> "Release":
        """One version: a tag, what `git describe` says of a commit, a commit. Raises FleetError, with this remedy."""
        if version not in self._found:
            self._found[version] = self.healed(lambda: self._at(version, remedy))
        return self._found[version]

    def recorded(self, answers: Answers) -> "Release":
        """The version that a service says it is at. Raises FleetError."""
        return self.at(answers.version, LOST)

    def _at(self, version: str, remedy: str) -> "Release":
        commit = self._find(version)
        if commit is None:
            self.refresh()
            commit = self._find(version)
        if commit is None:
            known = f"; its newest is {self.releases[-1]}" if self.releases else ""
            raise FleetError(f"the template {self.shown} has no version {version}{known}{remedy and f'. {remedy}'}")
        return Release(self, commit, self._name(commit))

    def _name(self, commit: str) -> str:
        """As Copier names a version, but where several tags are there. One that moves (`v1`, `latest`) is none to record."""
        tags = self._tags("--points-at", commit)
        if versions := [(version, tag) for tag in tags if (version := as_version(tag))]:
            return max(versions)[1]
        return git.line(self.repository, "describe", "--tags", "--always", commit)

    def _tags(self, *which: str) -> list[str]:
        return git.line(
            self.repository, "for-each-ref", "--format=%(refname:lstrip=2)", *which, "refs/tags"
        ).splitlines()

    def _find(self, version: str) -> str | None:
        if version.startswith("-"):
            return None
        return git.answer(self.repository, "rev-parse", "--quiet", "--verify", f"{version}^{{commit}}")

    def follows(self, new: "Release", old: "Release") -> bool:
        """Whether `new` is `old` or a later version."""
        if new.number and old.number:
            return new.number >= old.number
        return git.succeeds(self.repository, "merge-base", "--is-ancestor", old.commit, new.commit)


def _inode(folder: Path) -> int:
    """0 if there is no such folder."""
    try:
        return folder.stat().st_ino
    except FileNotFoundError:
        return 0


def _age(file: Path) -> timedelta:
    """The time since the file was last written; the longest possible if there is no file."""
    try:
        return timedelta(seconds=time.time() - file.stat().st_mtime)
    except FileNotFoundError:
        return timedelta.max
