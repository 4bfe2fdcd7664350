"""The steps of `fleet update-all` for one service: update, finish, test, deliver and push."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote

from fleet.errors import FleetError, as_fleet_error
from fleet.git import git, remote
from fleet.git.git import without_credentials
from fleet.service.mirror import newest
from fleet.template.template import Template
from fleet.update.clone import Clone, push_address
from fleet.update.generated import SUBMODULES, commit_generated, team_environment
from fleet.update.outcomes import Outcome, Outcomes, RunOptions

# The exit status of `fleet update` if it updated the service, and `make specs` failed.
UNFINISHED = 3


class Steps:
    """Update one service in its clone. Each step skips what an earlier run has completed."""

    def __init__(self, clone: Clone, options: RunOptions, outcomes: Outcomes) -> None:
        self.clone, self.member, self.options, self.outcomes = clone, clone.member, options, outcomes

    def run(self) -> Outcome:
        """Run the steps. A failure of the service is part of the outcome, and raises no exception."""
        outcome = Outcome(self.member.name, place=str(self.clone.path), log=str(self.clone.log))
        try:
            outcome = self._resume(self._plan(outcome))
            if outcome.is_complete(self.options):
                return outcome
            for step in (self._update, self._finish, self._test, self._deliver, self._push):
                outcome = self.outcomes.put(self.member.key, step(outcome))
                if outcome.failure:
                    break
        except Exception as error:
            return replace(outcome, failure=without_credentials(str(as_fleet_error(error))))
        return outcome

    def _plan(self, outcome: Outcome) -> Outcome:
        """Find the commit to update, its version, and the version to update to."""
        commit = newest(self.member)
        answers = commit.answers()
        template = Template(answers.source)
        # The steps of another service may have fetched the template a moment ago.
        template.refresh_if_possible(unless_newer_than=timedelta(minutes=1))
        old = template.recorded_release(answers)
        new = template.at(self.options.to) if self.options.to else template.newest()
        if not self.options.to and not template.follows(new, old):
            new = old
        branch = f"slipway/{new.version}"
        return replace(outcome, commit=commit.id, old=old.version, new=new.version, branch=branch)

    def _resume(self, outcome: Outcome) -> Outcome:
        """Continue from the outcome of an earlier run. Raises FleetError rather than discard the work of a person."""
        known = self.outcomes.get(self.member.key)
        if known and (known.commit, known.new) == (outcome.commit, outcome.new):
            outcome = replace(known, name=self.member.name, failure="", gate="")
        if not self.clone.path.exists():
            return outcome if outcome.is_complete(self.options) else replace(outcome, updated=False, tip="")
        changes = self.clone.other_changes()
        if not changes and not self.clone.has_other_commits():
            return outcome
        tip = self.clone.tip(outcome.branch)
        is_fix = outcome.updated and outcome.tip and tip and self.clone.descends(tip, outcome.tip)
        if changes or not is_fix:
            listed = "".join(f"\n  {line}" for line in sorted(changes)[:10])
            raise FleetError(
                f"somebody has worked in {self.clone.path}: commit or push that work, or delete the folder, then run fleet "
                f"again{listed}"
            )
        return outcome if tip == outcome.tip else replace(outcome, tip=tip, tested=False, delivered=False, pushed=False)

    def _update(self, outcome: Outcome) -> Outcome:
        if outcome.updated:
            return outcome
        self._refuse_existing_branch(outcome)
        commit = self.clone.make(outcome.branch)
        base = self.clone.base()
        # The option -P keeps Python from importing a folder of the clone that happens to be called fleet.
        command = (sys.executable, "-P", "-m", "fleet", "update", str(self.clone.path), "--to", outcome.new)
        try:
            status = self.clone.run(*command, environment=os.environ)
        finally:  # a program that was stopped may have moved the branch already
            tip = self.clone.tip(outcome.branch)
            self.clone.mark_own(tip)
        tip = "" if tip == commit else tip
        outcome = replace(outcome, commit=commit, base=base, tip=tip, tested=False, delivered=False, pushed=False)
        if status not in (0, UNFINISHED):
            return replace(outcome, failure="`fleet update` failed")
        outcome = replace(outcome, updated=True, finished=status == 0)
        return outcome if outcome.finished else self._explain_failure(outcome, "specs")

    def _finish(self, outcome: Outcome) -> Outcome:
        """Repeat `make specs` if it failed in `fleet update`, because a person may have fixed the cause."""
        if outcome.finished or not outcome.tip:
            return outcome
        is_own = self.clone.is_own(outcome.tip)
        with self._team_program(outcome):
            status = self.clone.run("make", "specs", cwd=self.clone.path, environment=team_environment())
            if status == 0:
                commit_generated(self.clone.path)
        if status != 0:
            return self._explain_failure(outcome, "specs")
        tip = self.clone.tip(outcome.branch)
        if is_own:
            self.clone.mark_own(tip)
        return replace(outcome, finished=True, tip=tip)

    def _test(self, outcome: Outcome) -> Outcome:
        if outcome.tested or not self.options.test or not outcome.tip:
            return outcome
        with self._team_program(outcome):
            status = self.clone.run("make", "setup", "check", cwd=self.clone.path, environment=team_environment())
        self.clone.refuse_other(outcome.branch, outcome.tip)
        if status == 0:
            return replace(outcome, tested=True)
        if (self.clone.path / ".gitmodules").exists():
            with self.clone.log.open("a") as log:
                log.write(f"{SUBMODULES}\n")
        return self._explain_failure(outcome, "check")

    @contextmanager
    def _team_program(self, outcome: Outcome) -> Generator[None]:
        """Run a program of the team in the clone. The files that the program leaves there are recorded: no person has made them."""
        self.clone.refuse_other(outcome.branch, outcome.tip)
        try:
            yield
        finally:
            self.clone.restore()

    def _explain_failure(self, outcome: Outcome, gate: str) -> Outcome:
        """State whether the update broke a gate, or whether the gate fails on the commit before the update too.

        A gate that passed before the update is not run there again. The cause of a failure may be gone in the next run.
        """
        passes = outcome.before.get(gate) or self.clone.passes_before(outcome.commit, gate)
        known = {name: value for name, value in outcome.before.items() if name != gate}
        if passes is not None:
            known[gate] = passes
        before = f"at {outcome.commit[:12]}"
        cause = {
            True: "the update broke it",
            False: f"as it did before the update, {before}",
            None: f"and whether the update broke it is not known, because `make setup` fails before the update, {before}",
        }[passes]
        return replace(outcome, before=known, gate=gate, failure=f"`make {gate}` failed, {cause}")

    def _deliver(self, outcome: Outcome) -> Outcome:
        """Fetch the branch into a repository on this machine. Other repositories get the branch by a push."""
        if self.member.is_local and outcome.tip and not outcome.delivered:
            self._refuse_existing_branch(outcome)
            git.fetch_branch(Path(self.member.address), self.clone.path, f"refs/heads/{outcome.branch}")
            outcome = replace(outcome, place=self.member.address)
        return replace(outcome, delivered=True)

    def _push(self, outcome: Outcome) -> Outcome:
        if not self.options.push or outcome.pushed or not outcome.tip:
            return outcome
        address = push_address(self.member)
        branch = f"refs/heads/{outcome.branch}"
        # The push starts in the clone, whose configuration git has written. It never uses force, because the existing branch may
        # be a person's work.
        if place := _on_this_machine(address):
            existing = git.line(place, "for-each-ref", "--format=%(objectname)", branch)
            if existing and not self.clone.descends(outcome.tip, existing):
                raise FleetError(
                    f"{place} has another branch {outcome.branch}: merge or delete it, then run fleet again"
                )
            git.fetch_branch(place, self.clone.path, branch)
        else:
            remote.exchange(self.clone.path, "push", "--quiet", "--no-verify", "--", address, f"{branch}:{branch}")
        self.clone.mark_own(outcome.tip)
        return replace(outcome, pushed=True)

    def _refuse_existing_branch(self, outcome: Outcome) -> None:
        """Refuse an existing branch of this name before minutes are spent on the update. Raises FleetError."""
        branch = f"refs/heads/{outcome.branch}"
        if self.member.is_local:
            existing = git.line(Path(self.member.address), "for-each-ref", "--format=%(objectname)", branch)
        elif self.options.push:
            answer = remote.exchange(self.clone.path.parent, "ls-remote", "--", self.member.address, branch)
            existing = answer.decode().partition("\t")[0]
        else:
            return
        if existing and existing != outcome.tip:
            raise FleetError(f"there is a branch {outcome.branch} already: merge or delete it, then run fleet again")


def _on_this_machine(address: str) -> Path | None:
    """Return the path of a repository on this machine: a push to it would run its hooks as the person who runs fleet."""
    if address.startswith("file://"):
        return Path(unquote(address.removeprefix("file://"), errors="surrogateescape"))
    return None if ":" in address.partition("/")[0] else Path(address)
