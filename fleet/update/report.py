"""What an update did, and what it could not do."""

from dataclasses import dataclass, field

from fleet.service.seeds import Seeds
from fleet.template.changelog import Note


@dataclass
class Report:
    """For people, and for what runs updates of many services."""

    service: str
    old: str
    new: str
    # Platform-owned paths that were not the template's any longer, and what was undone in them.
    healed: list[str] = field(default_factory=list)
    healed_diff: str = ""
    # Summary and output of each migration of the template.
    migrated: list[str] = field(default_factory=list)
    # How many platform-owned files the update wrote and deleted.
    written: int = 0
    deleted: int = 0
    seeds: Seeds = field(default_factory=Seeds)
    # Waived paths that the template has changed meanwhile, and the change that was not applied.
    waived: list[str] = field(default_factory=list)
    waived_diff: str = ""
    # Seeds of the template that are others now; the team's files stay as they are.
    changed_seeds: list[str] = field(default_factory=list)
    changed_seeds_diff: str = ""
    # About the answers: aggregates that are no longer named, or have other fields.
    answers: list[str] = field(default_factory=list)
    # What a deployer must know.
    notes: list[Note] = field(default_factory=list)
    # Whether anything was committed.
    changed: bool = False
    # What `make specs` said if it failed after the update.
    unfinished: str = ""
