"""The outcome of `fleet update-all` for each service, kept in a file after each step."""

import json
import threading
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from fleet.cache import write_atomically


@dataclass(frozen=True)
class RunOptions:
    """The options of `fleet update-all`. `to` is a template version; the newest if it is empty."""

    to: str = ""
    test: bool = True
    push: bool = False


class Verdict(StrEnum):
    """The result for a service, the worst first."""

    # A gate that passed before the update fails after it.
    BROKEN = "broken"
    # A gate fails after the update, and whether it passed before is not known.
    UNCLEAR = "unclear"
    # No gate failed, but a step was refused.
    SKIPPED = "skipped"
    # A gate failed before the update too.
    RED_BEFORE = "red before"
    DONE = "done"
    UP_TO_DATE = "up to date"


@dataclass(frozen=True)
class Outcome:
    """The steps that a service has completed."""

    name: str
    # The commit of the service before the update, the template version of that commit, and the version to update to.
    commit: str = ""
    old: str = ""
    new: str = ""
    # The branch with the update, its last commit, and its repository. The tip is empty if no update was needed.
    # `base` is the branch that the update starts from, if it is known.
    branch: str = ""
    base: str = ""
    tip: str = ""
    place: str = ""
    updated: bool = False
    # Whether `make specs` has succeeded.
    finished: bool = False
    tested: bool = False
    delivered: bool = False
    pushed: bool = False
    failure: str = ""
    # The gate that failed, if that is the failure: specs or check.
    gate: str = ""
    # Whether a gate that fails after the update passes before it, by the name of the gate.
    before: dict[str, bool] = field(default_factory=dict)
    log: str = ""

    @property
    def verdict(self) -> Verdict:
        """The result: an update, or the kind of its failure."""
        if not self.failure:
            return Verdict.DONE if self.tip else Verdict.UP_TO_DATE
        if not self.gate:
            return Verdict.SKIPPED
        return {True: Verdict.BROKEN, False: Verdict.RED_BEFORE, None: Verdict.UNCLEAR}[self.before.get(self.gate)]

    def is_complete(self, options: RunOptions) -> bool:
        """Return whether no step is left."""
        if self.failure or not self.updated:
            return False
        is_tested, is_pushed = self.tested or not options.test, self.pushed or not options.push
        return not self.tip or (self.delivered and is_tested and is_pushed)


class Outcomes:
    """The outcomes of a run, by the keys of the members. Threads may share them."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        try:
            self._outcomes = {key: Outcome(**one) for key, one in json.loads(file.read_bytes()).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            self._outcomes = {}

    def get(self, key: str) -> Outcome | None:
        return self._outcomes.get(key)

    def put(self, key: str, outcome: Outcome) -> Outcome:
        with self._lock:
            self._outcomes[key] = outcome
            text = json.dumps({key: asdict(one) for key, one in self._outcomes.items()}, indent=1)
            write_atomically(self._file, text)
        return outcome
