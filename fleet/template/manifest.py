"""What a template version makes of a service's answers, without the bytes: enough to see drift and new seeds."""

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fleet.cache import write_whole
from fleet.git.objects import Entry, Tree, blob_id
from fleet.template.answers import ANSWERS_FILE, Answers
from fleet.template.ownership import Owner, Ownership


@dataclass(frozen=True)
class Manifest:
    """Every path of a rendered service, by owner; .copier-answers.yml is Copier's own and in neither."""

    platform: Tree
    team: Tree
    # The list as it was in that version.
    patterns: list[str]
    # Answers to questions, as the template read them: what it did not accept has become its default. What the template
    # records for itself beside them (`seeded`) is not among them: nobody can give that another value.
    answers: dict[str, Any]
    # Their names in code (line_items), as in aggregate_list.
    plurals: list[str]

    @property
    def paths(self) -> Tree:
        """All of them."""
        return self.platform | self.team

    def owner_of(self, path: str) -> Owner:
        """The owner of any path, one that was not rendered included."""
        if path in self.platform:
            return Owner.PLATFORM
        return Owner.TEAM if path in self.team else Ownership(self.patterns).owner_of(path)


def manifest_of(
    tree: Tree, answers_file: bytes, *, template: Path, asked: Collection[str], computed: Mapping[str, Any]
) -> Manifest:
    """Describe what was rendered. `asked` are the questions; `computed` are all answers, also those not recorded."""
    ownership = _ownership(template)
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
def _ownership(template: Path) -> Ownership:
    """The list of a version in the cache, which is read once for all services."""
    return Ownership.of(template)


def entry_of(path: Path) -> Entry:
    """Mode and blob id, as git would record the file."""
    content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
    mode = "120000" if path.is_symlink() else "100755" if path.stat().st_mode & 0o100 else "100644"
    return Entry(mode, blob_id(content))


def recall(file: Path) -> Manifest | None:
    """A manifest that was written to that file; None if there is none, or only half of one."""
    try:
        known = json.loads(file.read_bytes())
        trees = ({path: Entry(*entry) for path, entry in known[owner].items()} for owner in ("platform", "team"))
        platform, team = trees
        return Manifest(platform, team, known["patterns"], known["answers"], known["plurals"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(file: Path, manifest: Manifest) -> None:
    """Write it for `recall`."""
    write_whole(file, json.dumps(asdict(manifest), default=str))
