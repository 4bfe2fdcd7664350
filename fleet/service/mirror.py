"""The repositories of the fleet on this machine: what is at a git URL is mirrored into the cache, a path is read in place."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from fleet.cache import cache, locked, offline
from fleet.errors import FleetError
from fleet.git import git, isolation, objects
from fleet.service.register import Member
from fleet.service.service import Service
from fleet.template.answers import ANSWERS_FILE, Answers, recorded

# The newest commit, whatever its branch is called: a mirror has one branch only.
KEPT = "refs/fleet/newest"


@dataclass(frozen=True)
class Commit:
    """A member's commit, and a repository on this machine that has it."""

    repository: Path
    id: str

    def answers(self) -> Answers:
        """What the service was made of. Raises FleetError."""
        content = objects.show(self.repository, self.id, ANSWERS_FILE)
        return recorded(content, lambda: Service(self.repository, self.id).other_answers())


def newest(member: Member, seen: str = "") -> Commit:
    """The last commit of a member's branch, fetched if need be. Raises FleetError.

    `seen` is a commit that was looked at before: if a path on this machine is still at this commit, git is not started.
    """
    if seen and member.is_local and isolation.loose_head(Path(member.address), member.branch) == seen:
        return Commit(Path(member.address), seen)
    try:
        return _newest(member)
    except FleetError:
        if not dropped_for_damage(member):
            raise
        return _newest(member)


def dropped_for_damage(member: Member) -> bool:
    """Remove the member's mirror if files of it are missing or damaged: a program that cleans up caches may remove single files."""
    mirror = mirror_of(member)
    if member.is_local or offline() or not mirror.exists():
        return False
    if not git.is_damaged(mirror):
        return False
    with locked(mirror):
        shutil.rmtree(mirror, ignore_errors=True)
    return True


def _newest(member: Member) -> Commit:
    if member.is_local:
        return Commit(Path(member.address), _of_path(member))
    mirror = mirror_of(member)
    if offline():
        if not (mirror.exists() and (known := _known(mirror))):
            raise FleetError(f"{member.shown_address} was never fetched: run it once without --offline")
        return Commit(mirror, known)
    with locked(mirror):
        if not mirror.exists():
            git.make_bare(mirror)
        # Most repositories have nothing new, and then this one question is all.
        wanted = f"refs/heads/{member.branch}" if member.branch else "HEAD"
        asked = ("ls-remote", "--", member.address, wanted)
        answer = _remote(mirror, *asked).decode()
        there = next((line.split("\t")[0] for line in answer.splitlines() if line.endswith(f"\t{wanted}")), None)
        if there is None:
            raise _has_none(member)
        git.refuse_sha256(member.shown_address, there)
        if there != _known(mirror):
            # Its files without its history. Not without its blobs: checks read most of them, and each would be one fetch.
            how = ("--quiet", "--depth=1", "--no-tags", "--force", "--no-write-fetch-head")
            _remote(mirror, "--git-dir=.", "fetch", *how, "--", member.address, f"{wanted}:{KEPT}")
        return Commit(mirror, git.line(mirror, "rev-parse", "--verify", KEPT))


def mirror_of(member: Member) -> Path:
    """Where that is kept, if it is not a path."""
    return cache() / "services" / f"{member.key}.git"


def _remote(mirror: Path, *arguments: str) -> bytes:
    try:
        return git.exchange(mirror, *arguments)
    except FleetError as error:
        # Which folder of the cache that was helps nobody.
        raise FleetError(str(error).replace(f" in {mirror}", "")) from None


def _of_path(member: Member) -> str:
    repository = Path(member.address)
    if not repository.is_dir():
        raise FleetError(f"there is no folder {repository}")
    name = f"refs/heads/{member.branch}" if member.branch else "HEAD"
    commit = git.answer(repository, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if commit is None:
        git.refuse_unreadable(repository)
        raise _has_none(member)
    git.refuse_sha256(member.shown_address, commit)
    return commit


def _known(mirror: Path) -> str:
    """Empty if nothing was ever fetched."""
    return git.line(mirror, "for-each-ref", "--format=%(objectname)", KEPT)


def _has_none(member: Member) -> FleetError:
    missing = f"branch {member.branch}" if member.branch else "commit yet"
    return FleetError(f"{member.shown_address} has no {missing}")
