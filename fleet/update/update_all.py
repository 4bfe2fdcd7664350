"""`fleet update-all`: each listed service updated, tested and put on a branch of its own, in clones beside fleet.toml.

A clone, even of a repository on this machine: nobody's checkout is touched. What is done is written down after each step,
so that a run that failed or was stopped goes on where it was.
"""

import fcntl
import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote

from fleet.cache import write_whole
from fleet.errors import FleetError, told
from fleet.git import git
from fleet.git.git import without_credentials
from fleet.processes.programs import Programs
from fleet.processes.watchdog import STOP_SECONDS
from fleet.progress import progress
from fleet.service.mirror import newest
from fleet.service.register import Member
from fleet.template.template import Template
from fleet.update.finishing import SUBMODULES, commit_generated, team_environment
from fleet.update.worktree import opened, termination_as_interrupt

# Beside fleet.toml.
FOLDER = ".fleet-update"

# What `fleet update` exits with if it updated, and `make specs` failed.
UNFINISHED = 3

# In a clone: how far it is our work. What comes after is somebody's.
MADE = "refs/fleet/made"


@dataclass(frozen=True)
class Wish:
    """What was asked for. `to` is a template version; the newest if it is empty."""

    to: str = ""
    test: bool = True
    push: bool = False


@dataclass(frozen=True)
class Outcome:
    """How far a service has come."""

    name: str
    # The service's, before; and the template version that it had and is to have.
    commit: str = ""
    old: str = ""
    new: str = ""
    # What the update made, and the repository that has it; no tip if there was nothing to do.
    branch: str = ""
    tip: str = ""
    place: str = ""
    updated: bool = False
    # Whether `make specs` has succeeded.
    finished: bool = False
    tested: bool = False
    delivered: bool = False
    pushed: bool = False
    failure: str = ""
    # Whether what failed after the update succeeds on the commit before it, by command.
    before: dict[str, bool] = field(default_factory=dict)
    log: str = ""

    def is_enough(self, wish: Wish) -> bool:
        """Whether nothing is left to do."""
        if self.failure or not self.updated:
            return False
        return not self.tip or (self.delivered and (self.tested or not wish.test) and (self.pushed or not wish.push))


def update_all(members: list[Member], folder: Path, wish: Wish, jobs: int | None = None) -> list[Outcome]:
    """In the order of the members. `folder` keeps clones, logs and what is done. Raises FleetError if it is in use."""
    folder = folder.resolve()
    outcomes: dict[Member, Outcome] = {}
    with (
        _own(folder) as state,
        progress("updating", len(members)) as step,
        termination_as_interrupt(),
        Programs(state.lock) as programs,
        ThreadPoolExecutor(jobs or os.cpu_count() or 1) as threads,
    ):
        asked = {threads.submit(_Update(one, folder, wish, state, programs).run): one for one in members}
        try:
            for future in as_completed(asked):
                outcomes[asked[future]] = future.result()
                step()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            programs.stop()
            raise
    return [outcomes[member] for member in members]


class _State:
    """What is done, in a file."""

    def __init__(self, file: Path, lock: int) -> None:
        self._file, self.lock = file, lock
        self._lock = threading.Lock()
        try:
            self._done = {key: Outcome(**one) for key, one in json.loads(file.read_bytes()).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            self._done = {}

    def get(self, key: str) -> Outcome | None:
        return self._done.get(key)

    def put(self, key: str, outcome: Outcome) -> Outcome:
        with self._lock:
            self._done[key] = outcome
            write_whole(self._file, json.dumps({key: asdict(one) for key, one in self._done.items()}, indent=1))
        return outcome


@contextmanager
def _own(folder: Path) -> Generator[_State]:
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / ".gitignore", "*\n")
    with opened(folder / "lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FleetError(f"another fleet update-all is running in {folder}") from None
        with opened(folder / "programs.lock") as programs:
            _await(programs.fileno(), folder)
            yield _State(folder / "state.json", programs.fileno())


def _await(lock: int, folder: Path) -> None:
    """Take the lock, which the programs of a run that was killed keep until they have ended. Raises FleetError."""
    deadline = time.monotonic() + 2 * STOP_SECONDS
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise FleetError(
                    f"programs that a killed fleet update-all has started still run in {folder}: end them, then run it again"
                ) from None
        time.sleep(0.1)


def _on_this_machine(address: str) -> Path | None:
    """Where that is, if it is no other machine's: a push would run the hooks of the repository as the person."""
    if address.startswith("file://"):
        return Path(unquote(address.removeprefix("file://"), errors="surrogateescape"))
    return None if ":" in address.partition("/")[0] else Path(address)


class _Update:
    """One service's."""

    def __init__(self, member: Member, folder: Path, wish: Wish, state: _State, programs: Programs) -> None:
        self.member, self.wish, self.state, self.programs = member, wish, state, programs
        place = f"{re.sub(r'[^A-Za-z0-9_-]', '-', member.name)[:60]}-{member.key[:8]}"
        self.clone, self.log = folder / place, folder / f"{place}.log"

    def run(self) -> Outcome:
        """Never raises for what is wrong with a service: that is in the outcome."""
        outcome = Outcome(self.member.name, place=str(self.clone), log=str(self.log))
        try:
            outcome = self._resumed(self._asked(outcome))
            if outcome.is_enough(self.wish):
                return outcome
            for step in (self._update, self._finish, self._test, self._deliver, self._push):
                outcome = self.state.put(self.member.key, step(outcome))
                if outcome.failure:
                    break
        except Exception as error:
            return replace(outcome, failure=without_credentials(str(told(error))))
        return outcome

    def _asked(self, outcome: Outcome) -> Outcome:
        """From which commit to which version."""
        commit = newest(self.member)
        answers = commit.answers()
        template = Template(answers.source)
        template.refresh_if_possible(unless_newer_than=timedelta(minutes=1))  # by the service before this one
        old, new = template.recorded(answers), template.at(self.wish.to) if self.wish.to else template.newest()
        if not self.wish.to and not template.follows(new, old):
            new = old
        branch = f"slipway/{new.version}"
        return replace(outcome, commit=commit.id, old=old.version, new=new.version, branch=branch)

    def _resumed(self, outcome: Outcome) -> Outcome:
        """With what an earlier run has done. Raises FleetError rather than throw away what somebody has done since."""
        known = self.state.get(self.member.key)
        if known and (known.commit, known.new) == (outcome.commit, outcome.new):
            outcome = replace(known, name=self.member.name, failure="")
        if not self.clone.exists():
            return outcome if outcome.is_enough(self.wish) else replace(outcome, updated=False, tip="")
        changes = self._changes() - self._left()
        # Also what is stashed or tagged.
        refs = ("--exclude=refs/remotes/*", "--all", "HEAD")
        if changes or git.line(self.clone, "rev-list", "--max-count=1", *refs, "--not", MADE):
            tip = self._tip(outcome.branch)
            mended = outcome.tip and tip and git.succeeds(self.clone, "merge-base", "--is-ancestor", outcome.tip, tip)
            if changes or not outcome.updated or not mended:
                listed = "".join(f"\n  {line}" for line in sorted(changes)[:10])
                raise FleetError(
                    f"somebody has worked in {self.clone}: commit or push that, or delete it, then run this again{listed}"
                )
            if tip != outcome.tip:
                return replace(outcome, tip=tip, tested=False, delivered=False, pushed=False)
        return outcome

    def _update(self, outcome: Outcome) -> Outcome:
        if outcome.updated:
            return outcome
        self._refuse_taken(outcome)
        unfinished = self.clone.with_suffix(".part")
        for folder in (self.clone, unfinished):
            shutil.rmtree(folder, ignore_errors=True)
        self._begin(self.log)
        if self.member.is_local and git.located(Path(self.member.address)).is_shallow:
            raise FleetError(
                f"{self.member.address} is a shallow clone, so its history does not show what the team has deleted: run "
                "`git fetch --unshallow` there first"
            )
        branch = [f"--branch={self.member.branch}"] if self.member.branch else []
        # With its history, which shows what the team has deleted. Its files are written afterwards, because hooks of the
        # person who runs this may fail.
        git.exchange(
            self.clone.parent,
            *("clone", "--quiet", "--no-tags", "--no-checkout", "--template=", *branch, "--"),
            *(self.member.address, str(unfinished)),
        )
        commit = git.line(unfinished, "rev-parse", "HEAD")
        git.git(unfinished, "switch", "--quiet", "--create", outcome.branch)
        git.git(unfinished, "reset", "--quiet", "--hard")
        git.git(unfinished, "update-ref", MADE, commit)
        unfinished.rename(self.clone)
        # Not with the clone in Python's path, where a folder of it might be called fleet.
        command = (sys.executable, "-P", "-m", "fleet", "update", str(self.clone), "--to", outcome.new)
        try:
            status = self._run(*command, environment=os.environ)
        finally:  # what is stopped may have moved the branch
            tip = self._tip(outcome.branch)
            git.git(self.clone, "update-ref", MADE, tip)
        outcome = replace(
            outcome, commit=commit, tip="" if tip == commit else tip, tested=False, delivered=False, pushed=False
        )
        if status not in (0, UNFINISHED):
            return replace(outcome, failure="`fleet update` failed")
        outcome = replace(outcome, updated=True, finished=status == 0)
        return outcome if outcome.finished else self._blamed(outcome, "specs")

    def _finish(self, outcome: Outcome) -> Outcome:
        """Once more what `fleet update` could not finish: somebody may have mended it."""
        if outcome.finished or not outcome.tip:
            return outcome
        is_ours = git.line(self.clone, "rev-parse", MADE) == outcome.tip
        with self._theirs(outcome):
            status = self._run("make", "specs", cwd=self.clone, environment=team_environment())
            if status == 0:
                commit_generated(self.clone)
        if status != 0:
            return self._blamed(outcome, "specs")
        tip = self._tip(outcome.branch)
        if is_ours:
            git.git(self.clone, "update-ref", MADE, tip)
        return replace(outcome, finished=True, tip=tip)

    def _test(self, outcome: Outcome) -> Outcome:
        if outcome.tested or not self.wish.test or not outcome.tip:
            return outcome
        with self._theirs(outcome):
            status = self._run("make", "setup", "check", cwd=self.clone, environment=team_environment())
        self._refuse_other(outcome)
        if status != 0 and (self.clone / ".gitmodules").exists():
            with self.log.open("a") as log:
                log.write(f"{SUBMODULES}\n")
        return self._blamed(outcome, "check") if status != 0 else replace(outcome, tested=True)

    @contextmanager
    def _theirs(self, outcome: Outcome) -> Generator[None]:
        """While a program of the team's runs in the clone: what it leaves there is not somebody's work."""
        self._refuse_other(outcome)
        try:
            yield
        finally:
            git.git(self.clone, "checkout", "--quiet", "--", ".")
            write_whole(self._noted, json.dumps(sorted(self._changes())))

    def _refuse_other(self, outcome: Outcome) -> None:
        """What is tested has to be what is delivered."""
        if git.line(self.clone, "rev-parse", "HEAD") != outcome.tip:
            raise FleetError(
                f"somebody has worked in {self.clone}, where {outcome.branch} is not as it was or not checked out: "
                f"`git switch {outcome.branch}` there, then run this again"
            )

    def _changes(self) -> set[str]:
        """What is not committed in the clone, as git lists it. Ignored files do not count."""
        return set(git.git(self.clone, "status", "--porcelain", "--untracked-files=all").decode().splitlines())

    def _left(self) -> set[str]:
        """Those that programs of the team's have left there."""
        return set(json.loads(self._noted.read_bytes())) if self._noted.exists() else set()

    @property
    def _noted(self) -> Path:
        return self.clone / ".git/fleet-left"

    def _blamed(self, outcome: Outcome, gate: str) -> Outcome:
        """The outcome of a gate that failed: whether the update broke it, or it fails on the commit before the update too.

        That the gate passes there is known for good. That it fails there may have a cause that is gone in the next run.
        """
        passes = outcome.before.get(gate) or self._passes_before(outcome.commit, gate)
        known = {name: value for name, value in outcome.before.items() if name != gate}
        if passes is not None:
            known[gate] = passes
        where = f"at {outcome.commit[:12]}"
        why = {
            True: "the update broke it",
            False: f"as it did before the update, {where}",
            None: f"and whether the update broke it is not known, because `make setup` fails before the update, {where}",
        }[passes]
        return replace(outcome, before=known, failure=f"`make {gate}` failed, {why}")

    def _passes_before(self, commit: str, gate: str) -> bool | None:
        """None if that cannot be found out, because the service cannot be set up."""
        base = self.clone.with_suffix(".base")
        self._forget(base)
        # In a log of its own: the end of the other one says what has failed after the update.
        log = self.log.with_suffix(".base.log")
        self._begin(log)
        git.check_out(self.clone, base, self._notes_of(base), commit)
        try:
            passed = [self._run("make", "setup", cwd=base, environment=team_environment(), log=log) == 0]
            if passed[0]:
                passed.append(self._run("make", gate, cwd=base, environment=team_environment(), log=log) == 0)
            return passed[1] if passed[0] else None
        finally:
            self._forget(base)

    def _begin(self, log: Path) -> None:
        log.unlink(missing_ok=True)  # a link is replaced, and its target is not touched
        log.touch()

    def _forget(self, base: Path) -> None:
        for folder in (base, self._notes_of(base)):
            shutil.rmtree(folder, ignore_errors=True)

    def _notes_of(self, base: Path) -> Path:
        """What git notes of the second checkout."""
        return base.with_suffix(".base-git")

    def _deliver(self, outcome: Outcome) -> Outcome:
        """Into a repository on this machine; what came from elsewhere stays in its clone until it is pushed."""
        if self.member.is_local and outcome.tip and not outcome.delivered:
            self._refuse_taken(outcome)
            branch = f"refs/heads/{outcome.branch}"
            git.take(Path(self.member.address), self.clone, branch)
            outcome = replace(outcome, place=self.member.address)
        return replace(outcome, delivered=True)

    def _push(self, outcome: Outcome) -> Outcome:
        if not self.wish.push or outcome.pushed or not outcome.tip:
            return outcome
        address = git.remote_address(Path(self.member.address)) if self.member.is_local else self.member.address
        branch = f"refs/heads/{outcome.branch}"
        # From the clone, whose configuration git has written. Never by force: what is there under this name may be
        # somebody's work.
        if place := _on_this_machine(address):
            there = git.line(place, "for-each-ref", "--format=%(objectname)", branch)
            if there and not git.succeeds(self.clone, "merge-base", "--is-ancestor", there, outcome.tip):
                raise FleetError(
                    f"{place} has another branch {outcome.branch}: merge or delete it, then run this again"
                )
            git.take(place, self.clone, branch)
        else:
            git.exchange(self.clone, "push", "--quiet", "--no-verify", "--", address, f"{branch}:{branch}")
        git.git(self.clone, "update-ref", MADE, outcome.tip)
        return replace(outcome, pushed=True)

    def _refuse_taken(self, outcome: Outcome) -> None:
        """Before minutes are spent on it."""
        branch = f"refs/heads/{outcome.branch}"
        if self.member.is_local:
            there = git.line(Path(self.member.address), "for-each-ref", "--format=%(objectname)", branch)
        elif self.wish.push:
            asked = ("ls-remote", "--", self.member.address, branch)
            there = git.exchange(self.clone.parent, *asked).decode().partition("\t")[0]
        else:
            return
        if there and there != outcome.tip:
            raise FleetError(f"there is a branch {outcome.branch} already: merge or delete it, then run this again")

    def _tip(self, branch: str) -> str:
        return git.line(self.clone, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")

    def _run(
        self, *command: str, environment: Mapping[str, str], cwd: Path | None = None, log: Path | None = None
    ) -> int:
        with (log or self.log).open("ab") as file:
            return self.programs.run(command, log=file, cwd=cwd or self.log.parent, environment=environment)
