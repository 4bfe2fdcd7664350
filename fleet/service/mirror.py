"""Find the commits of the fleet's services: a service at a git URL is mirrored into the cache, a path is read in place."""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fleet.cache import cache, file_lock, mark_used, offline
from fleet.errors import FleetError
from fleet.git import git, objects, remote
from fleet.git.repository import loose_head
from fleet.processes.parallel import in_threads
from fleet.service.fleet_toml import Member
from fleet.service.service import Service
from fleet.template.answers import ANSWERS_FILE, Answers, parse_recorded

# The newest commit in a mirror, whatever the name of its branch: a mirror has only one branch.
NEWEST = "refs/fleet/newest"


@dataclass(frozen=True)
class Commit:
    """A commit of a member, and a repository on this machine that has the commit."""

    repository: Path
    id: str

    def answers(self) -> Answers:
        """Read the recorded answers at this commit. Raises FleetError."""
        try:
            content = objects.show(self.repository, self.id, ANSWERS_FILE)
        except FleetError:
            git.refuse_unreadable(self.repository)
            raise
        return parse_recorded(content, lambda: Service(self.repository, self.id).other_answers())


def newest_commits(members: list[Member]) -> tuple[dict[Member, Commit], dict[Member, FleetError]]:
    """Find the last commit of each member's branch, and fetch new ones. Return the errors of the other members, too."""
    # Threads would take longer to read these files than one thread does.
    at_hand = {member: commit for member in members if (commit := _at_hand(member))}
    others, errors = in_threads(newest, [member for member in members if member not in at_hand], "fetching")
    return at_hand | others, errors


def newest(member: Member) -> Commit:
    """Find the last commit of a member's branch, and fetch it if it is new. Raises FleetError."""
    try:
        return _newest(member)
    except FleetError:
        if not drop_if_damaged(member):
            raise
        return _newest(member)


def _at_hand(member: Member) -> Commit | None:
    """Find the last commit of a member at a path by git's files. None means that only git finds the commit, or the reason for an error."""
    with suppress(OSError, ValueError):
        if member.is_local and (commit := loose_head(Path(member.address), member.branch)):
            return Commit(Path(member.address), commit)
    return None


def drop_if_damaged(member: Member, mirror: Path | None = None) -> bool:
    """Remove a mirror of a member if files are missing or damaged, for example by a program that cleans up caches.

    Return whether the mirror was removed. By default it is the mirror of the newest commit.
    """
    mirror = mirror or mirror_of(member)
    if member.is_local or offline() or not mirror.exists():
        return False
    if not git.is_damaged(mirror):
        return False
    with file_lock(mirror):
        shutil.rmtree(mirror, ignore_errors=True)
    return True


def with_history(member: Member) -> Commit:
    """Find the last commit of a member's branch in a repository with the whole history and all tags. Raises FleetError.

    The history of a git URL has a mirror of its own, because the mirror of the other commands has the newest commit only.
    """
    if member.is_local:
        repository = Path(member.address)
        commit = _newest_local(member)
        if git.locate(repository).is_shallow:
            raise FleetError(f"{repository} is a shallow clone without its history: run `git fetch --unshallow` there")
        return Commit(repository, commit)
    mirror = history_of(member)
    mark_used(mirror)
    with file_lock(mirror):
        if not offline():
            if not mirror.exists():
                git.make_bare(mirror)
            ref = f"refs/heads/{member.branch}" if member.branch else "HEAD"
            options = ("--quiet", "--no-tags", "--force", "--prune", "--no-write-fetch-head")
            refs = (f"{ref}:{NEWEST}", "refs/tags/*:refs/tags/*")
            _exchange(mirror, "--git-dir=.", "fetch", *options, "--", member.address, *refs)
        if not (mirror.exists() and (known := _known(mirror))):
            raise FleetError(
                f"the history of {member.shown_address} was never fetched: run fleet once without --offline"
            )
        git.refuse_sha256(member.shown_address, known)
        return Commit(mirror, known)


def _newest(member: Member) -> Commit:
    if member.is_local:
        return Commit(Path(member.address), _newest_local(member))
    mirror = mirror_of(member)
    mark_used(mirror)
    if offline():
        if not (mirror.exists() and (known := _known(mirror))):
            raise FleetError(f"{member.shown_address} was never fetched: run fleet once without --offline")
        return Commit(mirror, known)
    with file_lock(mirror):
        if not mirror.exists():
            git.make_bare(mirror)
        # Most repositories have no new commit, and need no fetch after this question.
        ref = f"refs/heads/{member.branch}" if member.branch else "HEAD"
        answer = _exchange(mirror, "ls-remote", "--", member.address, ref).decode()
        newest = next((line.split("\t")[0] for line in answer.splitlines() if line.endswith(f"\t{ref}")), None)
        if newest is None:
            raise _no_commit(member)
        git.refuse_sha256(member.shown_address, newest)
        if newest != _known(mirror):
            # The fetch has no history, but all files: checks read most files, and a missing file would be a fetch of its own.
            options = ("--quiet", "--depth=1", "--no-tags", "--force", "--no-write-fetch-head")
            _exchange(mirror, "--git-dir=.", "fetch", *options, "--", member.address, f"{ref}:{NEWEST}")
        return Commit(mirror, git.line(mirror, "rev-parse", "--verify", NEWEST))


def mirror_of(member: Member) -> Path:
    """Return the mirror of a member at a git URL."""
    return cache() / "services" / f"{member.key}.git"


def history_of(member: Member) -> Path:
    """Return the mirror with the history of a member at a git URL."""
    return cache() / "histories" / f"{member.key}.git"


def _exchange(mirror: Path, *arguments: str) -> bytes:
    try:
        return remote.exchange(mirror, *arguments)
    except FleetError as error:
        # Leave the folder in the cache out of the message, because its name helps nobody.
        raise FleetError(str(error).replace(f" in {mirror}", "")) from None


def _newest_local(member: Member) -> str:
    repository = Path(member.address)
    if not repository.is_dir():
        raise FleetError(f"there is no folder {repository}")
    name = f"refs/heads/{member.branch}" if member.branch else "HEAD"
    # The commit is read from git's files if possible, because starting git takes as long as everything else here. A commit that
    # is missing is noticed when its files are read.
    commit = loose_head(repository, member.branch) or git.answer(
        repository, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"
    )
    if commit is None:
        git.refuse_unreadable(repository)
        raise _no_commit(member)
    git.refuse_sha256(member.shown_address, commit)
    return commit


def _known(mirror: Path) -> str:
    """Return the newest commit in the mirror; empty if nothing was ever fetched."""
    return git.line(mirror, "for-each-ref", "--format=%(objectname)", NEWEST)


def _no_commit(member: Member) -> FleetError:
    missing = f"branch {member.branch}" if member.branch else "commit yet"
    return FleetError(f"{member.shown_address} has no {missing}")
