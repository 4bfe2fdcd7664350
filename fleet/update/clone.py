"""The clone in which `fleet update-all` updates one service: its commits, the work of people in it, and its log."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from fleet.cache import write_atomically
from fleet.errors import FleetError
from fleet.git import git, remote
from fleet.processes.programs import Programs
from fleet.service.fleet_toml import Member
from fleet.update.generated import team_environment

# The last commit in the clone that fleet has made or fetched. Later commits are the work of a person.
OWN_WORK = "refs/fleet/made"


class Clone:
    """A clone, made from the member's repository by `make`."""

    def __init__(self, member: Member, folder: Path, programs: Programs) -> None:
        self.member, self._programs = member, programs
        name = f"{re.sub(r'[^A-Za-z0-9_-]', '-', member.name)[:60]}-{member.key[:8]}"
        self.path, self.log = folder / name, folder / f"{name}.log"

    def make(self, branch: str) -> str:
        """Clone the member's repository anew, create the branch, and return its commit. Raises FleetError."""
        unfinished = self.path.with_suffix(".part")
        for folder in (self.path, unfinished):
            shutil.rmtree(folder, ignore_errors=True)
        _begin(self.log)
        self._refuse_shallow()
        options = ("--quiet", "--no-tags", "--no-checkout", "--template=")
        own = [f"--branch={self.member.branch}"] if self.member.branch else []
        # The clone has the history, which shows the files that the team has deleted. The files are written afterwards, because hooks of the
        # person who runs fleet may fail.
        remote.exchange(self.path.parent, "clone", *options, *own, "--", self.member.address, str(unfinished))
        commit = git.line(unfinished, "rev-parse", "HEAD")
        git.git(unfinished, "switch", "--quiet", "--create", branch)
        git.git(unfinished, "reset", "--quiet", "--hard")
        git.git(unfinished, "update-ref", OWN_WORK, commit)
        unfinished.rename(self.path)
        return commit

    def _refuse_shallow(self) -> None:
        if self.member.is_local and git.locate(Path(self.member.address)).is_shallow:
            raise FleetError(
                f"{self.member.address} is a shallow clone, so its history does not show the files that the team has deleted: "
                "run `git fetch --unshallow` there first"
            )

    def base(self) -> str:
        """Return the branch that the update starts from; empty if it is not known."""
        head = "refs/remotes/origin/HEAD"
        return self.member.branch or git.line(self.path, "for-each-ref", "--format=%(symref:lstrip=3)", head)

    def tip(self, branch: str) -> str:
        """Return the last commit of a branch; empty if there is no branch."""
        return git.line(self.path, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")

    def is_own(self, commit: str) -> bool:
        """Return whether fleet has made the commit, and not a person."""
        return git.line(self.path, "rev-parse", OWN_WORK) == commit

    def mark_own(self, commit: str) -> None:
        git.git(self.path, "update-ref", OWN_WORK, commit)

    def descends(self, commit: str, ancestor: str) -> bool:
        return git.succeeds(self.path, "merge-base", "--is-ancestor", ancestor, commit)

    def has_other_commits(self) -> bool:
        """Return whether a person has committed, stashed or tagged work in the clone."""
        refs = ("--exclude=refs/remotes/*", "--all", "HEAD")
        return bool(git.line(self.path, "rev-list", "--max-count=1", *refs, "--not", OWN_WORK))

    def refuse_other(self, branch: str, tip: str) -> None:
        """Refuse a checkout of another commit, because the tested commit has to be the delivered commit. Raises FleetError."""
        if git.line(self.path, "rev-parse", "HEAD") != tip:
            raise FleetError(
                f"somebody has worked in {self.path}, where {branch} has other commits or is not checked out: run "
                f"`git switch {branch}` there, then run fleet again"
            )

    def other_changes(self) -> set[str]:
        """Return the uncommitted changes, as git lists them, except the changes that programs of the team have left."""
        known = set(json.loads(self._leftovers.read_bytes())) if self._leftovers.exists() else set[str]()
        return self._changes() - known

    def restore(self) -> None:
        """Restore the tracked files after a program of the team. Record its new files: they are no person's work."""
        git.git(self.path, "checkout", "--quiet", "--", ".")
        write_atomically(self._leftovers, json.dumps(sorted(self._changes())))

    def _changes(self) -> set[str]:
        return set(git.git(self.path, "status", "--porcelain", "--untracked-files=all").decode().splitlines())

    @property
    def _leftovers(self) -> Path:
        return self.path / ".git/fleet-left"

    def run(
        self, *command: str, environment: Mapping[str, str], cwd: Path | None = None, log: Path | None = None
    ) -> int:
        """Run a program, append its output to the log, and return its exit status."""
        with (log or self.log).open("ab") as file:
            return self._programs.run(command, log=file, cwd=cwd or self.log.parent, environment=environment)

    def passes_before(self, commit: str, gate: str) -> bool | None:
        """Return whether a gate passes at the commit before the update. None if the service cannot be set up there."""
        base, notes = self.path.with_suffix(".base"), self.path.with_suffix(".base-git")
        _remove(base, notes)
        # The run before the update has a log of its own, so that the main log still ends with the failure after the update.
        log = self.log.with_suffix(".base.log")
        _begin(log)
        git.check_out(self.path, base, notes, commit)
        try:
            if self.run("make", "setup", cwd=base, environment=team_environment(), log=log) != 0:
                return None
            return self.run("make", gate, cwd=base, environment=team_environment(), log=log) == 0
        finally:
            _remove(base, notes)


def push_address(member: Member) -> str:
    """Return the address that branches of a member are pushed to. Raises FleetError."""
    return remote.remote_address(Path(member.address)) if member.is_local else member.address


def _begin(log: Path) -> None:
    log.unlink(missing_ok=True)  # a link is replaced, and its target is not touched
    log.touch()


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
