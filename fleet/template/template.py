"""The template's repository: fetch it, and find its releases."""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from fleet.cache import cache, file_lock, mark_used, offline, preparing
from fleet.errors import FleetError, MachineError
from fleet.git import git, remote
from fleet.git.git import without_credentials
from fleet.git.repository import find_repository
from fleet.output import warn
from fleet.template.answers import Answers
from fleet.template.release import Release, as_version
from fleet.template.trust import expand, is_path, refuse_untrusted

T = TypeVar("T")

MOVED = (
    "If it has moved, write its new address into _src_path of .copier-answers.yml, commit that, and run `fleet update`, "
    "which corrects the links in MANUAL.md"
)
# Causes are a tag that was moved or deleted, an edit by hand, or a service that was made from uncommitted changes.
LOST = (
    "_commit of .copier-answers.yml names this version: restore the value that was there (git log -p .copier-answers.yml), or "
    "write the version that is nearest to the service, and commit the file. `fleet check --drift` then shows the differences"
)


# The refs of a mirror. Git hosts have many more: GitHub has two for each pull request, which may hold anybody's files.
FETCHED = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")

# No tag or commit has these characters in its name. By `:/…` and `^{/…}` git would search all messages for a pattern, which a
# service could make as slow as it likes.
_SEARCH = re.compile(r":|\^\{|@\{")


class Template:
    """A template's repository at the address that a service recorded.

    A repository on this machine is read in place. Any other repository is mirrored into the cache.
    """

    def __init__(self, source: str) -> None:
        """Take the address of a template. Raises FleetError for an untrusted template, or a relative path."""
        self.shown = without_credentials(source)
        # The versions that were searched, each with the reason if there is no such version.
        self._found: dict[str, Release | str] = {}
        self.url = expand(source)
        self.is_local = is_path(self.url)
        refuse_untrusted(source)
        if self.is_local and not os.path.isabs(self.url):
            raise FleetError(
                f"the recorded template {source!r} is a relative path, which depends on the current folder: write the "
                "template's git URL or absolute path into _src_path of .copier-answers.yml"
            )

    @cached_property
    def repository(self) -> Path:
        """A git repository on this machine with the template's commits, cloned on the first use. Raises FleetError."""
        if self.is_local:
            if find_repository(Path(self.url)) is None:
                raise FleetError(f"the recorded template {self.shown} is not a git repository on this machine. {MOVED}")
            return Path(self.url)
        mirror = self._mirror
        mark_used(mirror)
        with file_lock(mirror):
            if not mirror.exists():
                if offline():
                    raise FleetError(
                        f"the template {self.shown} is not in the cache yet: run fleet once without --offline"
                    )
                self._clone()
        return mirror

    def _clone(self) -> None:
        """Clone the mirror, and replace the old mirror if there is one. Raises FleetError, and then keeps the old mirror."""
        mirror = self._mirror
        with preparing(mirror) as folder:
            options = ("clone", "--quiet", "--bare", "--template=")
            try:
                remote.exchange(folder, *options, "--", self.url, str(folder / "git"))
            except FleetError as error:
                reason = str(error).replace(f" in {folder}", "")
                raise FleetError(f"the recorded template {self.shown} cannot be fetched: {reason}\n{MOVED}") from None
            shutil.rmtree(mirror, ignore_errors=True)
            (folder / "git").rename(mirror)

    def retry_after_repair(self, read: Callable[[], T]) -> T:
        """Call `read`. If it raises FleetError and the mirror is damaged, clone the mirror anew, and call `read` again.

        A program that cleans up caches may remove single files of a mirror.
        """
        mirror = self._mirror
        seen = _inode(mirror)
        try:
            return read()
        except FleetError:
            if self.is_local or offline() or not seen or not self._replace_if_damaged(seen):
                raise
        return read()

    def _replace_if_damaged(self, seen: int) -> bool:
        """Clone a damaged mirror anew, unless another process has. Return whether there is a new mirror."""
        with file_lock(self._mirror):
            if _inode(self._mirror) == seen and git.is_damaged(self._mirror):
                with suppress(FleetError):  # the host may be unreachable now
                    self._clone()
            return _inode(self._mirror) != seen

    @property
    def _mirror(self) -> Path:
        return cache() / "templates" / f"{hashlib.sha256(self.url.encode()).hexdigest()[:24]}.git"

    def refresh(self, *, unless_newer_than: timedelta = timedelta()) -> None:
        """Fetch new commits, unless the last attempt is newer than `unless_newer_than`. Raises FleetError."""
        if not self.is_local and not offline():
            self.retry_after_repair(lambda: self._refresh(unless_newer_than))

    def _refresh(self, unless_newer_than: timedelta) -> None:
        new = not self._mirror.exists()
        with file_lock(self.repository):
            attempt = self._mirror / "fleet-tried"
            if not new and _age(attempt) >= unless_newer_than:
                attempt.touch()
                # The command names the address and not `origin`, because the mirror may have lost its configuration. It has
                # --git-dir, because git would fetch into a repository around the cache if the mirror had lost its HEAD.
                options = ("--git-dir=.", "fetch", "--quiet", "--prune", "--force")
                remote.exchange(self.repository, *options, "--", self.url, *FETCHED)

    def refresh_if_possible(self, *, unless_newer_than: timedelta = timedelta()) -> None:
        """Fetch new commits. If the template cannot be fetched, print on stderr how old the known releases are.

        Raises FleetError if no release is known yet.
        """
        try:
            self.refresh(unless_newer_than=unless_newer_than)
        except FleetError as error:
            if not self._mirror.exists():
                raise
            fetched = self._mirror / "FETCH_HEAD"
            hours = _age(fetched if fetched.exists() else self._mirror / "HEAD") / timedelta(hours=1)
            reason = str(error).replace(f" in {self._mirror}", "")
            warn(
                f"the template {self.shown} cannot be fetched, so a release of the last {hours:.1f} hours may be missing "
                f"here: {reason}\n{MOVED}"
            )

    @cached_property
    def releases(self) -> list[str]:
        """The tags that are versions, oldest first, without pre-releases."""
        tags = self.retry_after_repair(self._tags)
        known = [(version, tag) for tag in tags if (version := as_version(tag)) and not version.is_prerelease]
        return [tag for _, tag in sorted(known)]

    def newest(self) -> "Release":
        """Return the newest release; for a template without releases the last commit, as Copier does."""
        return self.at(self.releases[-1] if self.releases else "HEAD")

    def at(self, version: str, remedy: str = "") -> "Release":
        """Find a version by its tag, its commit, or the name that `git describe` prints. Raises FleetError with this remedy."""
        if version not in self._found:
            try:
                self._found[version] = self.retry_after_repair(lambda: self._at(version, remedy))
            except MachineError:  # another attempt may succeed
                raise
            except FleetError as error:  # remember the error: another search would fetch again
                self._found[version] = str(error)
        found = self._found[version]
        if isinstance(found, str):
            raise FleetError(found)
        return found

    def recorded_release(self, answers: Answers) -> "Release":
        """Find the version that a service has recorded. Raises FleetError."""
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
        """Name a version as Copier does, but by its highest tag: a tag that moves (`v1`, `latest`) must not be recorded."""
        tags = self._tags("--points-at", commit)
        if versions := [(version, tag) for tag in tags if (version := as_version(tag))]:
            return max(versions)[1]
        return git.line(self.repository, "describe", "--tags", "--always", commit)

    def _tags(self, *which: str) -> list[str]:
        return git.line(
            self.repository, "for-each-ref", "--format=%(refname:lstrip=2)", *which, "refs/tags"
        ).splitlines()

    def _find(self, version: str) -> str | None:
        if version.startswith("-") or _SEARCH.search(version):
            return None
        return git.answer(self.repository, "rev-parse", "--quiet", "--verify", f"{version}^{{commit}}")

    def follows(self, new: "Release", old: "Release") -> bool:
        """Return whether `new` is `old` or a later version."""
        if new.number and old.number:
            return new.number >= old.number
        return git.succeeds(self.repository, "merge-base", "--is-ancestor", old.commit, new.commit)


def _inode(folder: Path) -> int:
    """Return the inode of a folder; 0 if there is no folder."""
    try:
        return folder.stat().st_ino
    except FileNotFoundError:
        return 0


def _age(file: Path) -> timedelta:
    """Return the time since the file was last written; the longest possible if there is no file."""
    try:
        return timedelta(seconds=time.time() - file.stat().st_mtime)
    except FileNotFoundError:
        return timedelta.max
