"""The report of an update."""

from dataclasses import dataclass, field

from fleet.service.seeds import Seeds
from fleet.template.changelog import Note


@dataclass
class Report:
    """The changes of an update, and the changes that it left to people."""

    service: str
    old: str
    new: str
    # Platform-owned paths with drift, and the reverted differences.
    healed: list[str] = field(default_factory=list)
    healed_diff: str = ""
    # The summary and the output of each migration of the template.
    migrated: list[str] = field(default_factory=list)
    # The numbers of platform-owned files that the update wrote and deleted.
    written: int = 0
    deleted: int = 0
    seeds: Seeds = field(default_factory=Seeds)
    # Waived paths that differ between the two versions, and the differences, which were not applied.
    waived: list[str] = field(default_factory=list)
    waived_diff: str = ""
    # Seeds that differ between the two versions. The team's files stay unchanged.
    changed_seeds: list[str] = field(default_factory=list)
    changed_seeds_diff: str = ""
    # Notes about the answers: changed aggregates, dropped answers, and defaults.
    answers: list[str] = field(default_factory=list)
    # The notes for a deployer.
    notes: list[Note] = field(default_factory=list)
    # Whether anything was committed.
    changed: bool = False
    # The output of `make specs` if it failed after the update.
    unfinished: str = ""
