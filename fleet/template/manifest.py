"""The files that a template version renders from a service's answers, as ids without bytes: enough to see drift and new seeds."""

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fleet.cache import mark_used, write_atomically
from fleet.git.objects import Entry, Tree, blob_id
from fleet.template.answers import ANSWERS_FILE, Answers
from fleet.template.ownership import Owner, Ownership


@dataclass(frozen=True)
class Manifest:
    """Every path of a rendered service, by owner. Copier owns .copier-answers.yml, which is in neither tree.

    A rendered file of the team has a digest of its inputs in the place of the content's id (fleet/template/seed_inputs.py).
    """

    platform: Tree
    team: Tree
    # The patterns of ownership/service-owned.yml in that version.
    patterns: list[str]
    # The answers to questions as the template read them: an answer that the template did not accept is its default here.
    # Values that the template records for itself (`seeded`) are left out, because nobody can answer them.
    answers: dict[str, Any]
    # The names of the aggregates in code (line_items), as in aggregate_list.
    plurals: list[str]

    @property
    def paths(self) -> Tree:
        """All rendered paths."""
        return self.platform | self.team

    def entry_of(self, path: str) -> Entry | None:
        """Return the entry of a rendered path; None for any other path, and for .copier-answers.yml."""
        return self.platform.get(path) or self.team.get(path)

    def owner_of(self, path: str) -> Owner:
        """Return the owner of any path, rendered or not."""
        if path in self.platform:
            return Owner.PLATFORM
        return Owner.TEAM if path in self.team else _owned_by(tuple(self.patterns)).owner_of(path)


def manifest_of(
    tree: Tree, answers_file: bytes, *, ownership: Ownership, asked: Collection[str], computed: Mapping[str, Any]
) -> Manifest:
    """Describe a render. `asked` are the names of the questions; `computed` has all answers, recorded or not."""
    owned: dict[Owner, Tree] = {owner: {} for owner in Owner}
    for path, entry in sorted(tree.items()):
        if path != ANSWERS_FILE:
            owned[ownership.owner_of(path)][path] = entry
    return Manifest(
        platform=owned[Owner.PLATFORM],
        team=owned[Owner.TEAM],
        patterns=ownership.patterns,
        answers={name: value for name, value in Answers.parse(answers_file).values.items() if name in asked},
        plurals=[aggregate["plural"] for aggregate in computed.get("aggregate_list") or []],
    )


@lru_cache(maxsize=16)
def _owned_by(patterns: tuple[str, ...]) -> Ownership:
    return Ownership(patterns)


@lru_cache(maxsize=16)
def ownership_of(template: Path) -> Ownership:
    """Return the list of a version in the cache, which is read once for all services."""
    return Ownership.of(template)


def entry_of(path: Path) -> Entry:
    """Return the mode and blob id with which git would record a file."""
    content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
    mode = "120000" if path.is_symlink() else "100755" if path.stat().st_mode & 0o100 else "100644"
    return Entry(mode, blob_id(content))


def recall(file: Path) -> Manifest | None:
    """Read a manifest from a file; None if the file is missing or incomplete."""
    try:
        known = json.loads(file.read_bytes())
        trees = ({path: Entry(*entry) for path, entry in known[owner].items()} for owner in ("platform", "team"))
        platform, team = trees
        mark_used(file)
        return Manifest(platform, team, known["patterns"], known["answers"], known["plurals"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(file: Path, manifest: Manifest) -> None:
    """Write a manifest for `recall`."""
    write_atomically(file, json.dumps(vars(manifest), default=str))
