"""Many services of mixed variants, each with random but repeatable edits, taken through every version.

`SERVICES=40` for more than the few of every test run. A failure names the seed of the service that failed.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.drift import drift
from fleet.findings import Level
from fleet.scars import refuse_scars
from fleet.service import Service
from fleet.update import Options, update
from tests.answers import VARIANTS
from tests.conftest import git
from tests.fleet.conftest import Born, commit, waive
from tests.fleet.test_plain_update import plain_update

SERVICES = int(os.environ.get("SERVICES", "5"))
VERSIONS = ("v1.1.0", "v1.2.0", "v1.3.0")
LINES = ("# Why: see our decision 7.\n", "\n# TODO: not before June.\n", "# über uns\n", "x = 1\n")

# The migration of 1.2.0 moves it, whatever is in it.
MOVED = {"docs/runbook.md": "docs/operations/runbook.md"}


# What 1.2.0 hands over to the team.
HANDED_OVER = {"renovate.json"}


def owned(service: Path, owner: str) -> list[str]:
    found = Service(service)
    return [
        path for path in sorted(found.tree) if found.expected.owner_of(path) == owner and path != ".copier-answers.yml"
    ]


def insert_a_line(chance: random.Random, file: Path) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    lines.insert(chance.randint(0, len(lines)), chance.choice(LINES).encode())
    file.write_bytes(b"".join(lines))


def remove_lines(chance: random.Random, file: Path) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    start = chance.randint(0, len(lines))
    file.write_bytes(b"".join(lines[:start] + lines[start + chance.randint(1, 9) :]))


def delete(_: random.Random, file: Path) -> None:
    file.unlink()


def rename(chance: random.Random, file: Path) -> None:
    file.rename(file.with_name(f"{file.stem}_{chance.randint(2, 9)}{file.suffix}"))


EDITS: tuple[Callable[[random.Random, Path], None], ...] = (insert_a_line, insert_a_line, remove_lines, delete, rename)


def work(chance: random.Random, service: Path, *, by_hand: bool) -> None:
    """Some weeks of a team: its own files, new ones among them; with `by_hand` the platform's too, some of it waived."""
    # conventions.yml is written anew below, for it is the waivers.
    paths = [path for path in owned(service, "team") if path != "conventions.yml"]
    for path in chance.sample(paths, 12):
        if (service / path).exists():
            chance.choice(EDITS)(chance, service / path)
    for folder in chance.sample(["src", "docs", "tests", ".github/workflows", "scripts"], 2):
        (service / folder).mkdir(parents=True, exist_ok=True)
        (service / folder / f"ours_{chance.randint(10, 99)}.txt").write_text(chance.choice(LINES))
    if by_hand:
        edited = chance.sample(owned(service, "platform"), 6)
        for path in edited:
            if (service / path).exists():
                chance.choice(EDITS[:4])(chance, service / path)
        waive(service, *edited[:2])
    commit(service)


def of_the_team(service: Path) -> dict[str, bytes]:
    return {MOVED.get(path, path): (service / path).read_bytes() for path in owned(service, "team")}


def variant(number: int) -> dict[str, Any]:
    return list(VARIANTS.values())[number % len(VARIANTS)]


@pytest.mark.parametrize("number", range(SERVICES))
def test_no_conflict_and_no_byte_of_the_teams_by_fleet_update(born: Born, number: int) -> None:
    chance = random.Random(number)
    service = born(**variant(number))
    for version in VERSIONS:
        work(chance, service, by_hand=True)
        before = of_the_team(service)
        waived = {path: (service / path).read_bytes() for path in _waived(service)}
        report = update(service, Options({}, version, finish=False))
        after = of_the_team(service)
        assert {path: after.get(path) for path in before} == before, version
        assert set(after) - set(before) <= {*report.seeds.new, *HANDED_OVER}, version
        assert {path: (service / path).read_bytes() for path in waived} == waived, version
        assert [finding for finding in drift(Service(service)) if finding.level is Level.ERROR] == [], version
        refuse_scars(service, version)
        assert git(service, "status", "--porcelain") == ""
        assert not update(service, Options({}, version, finish=False)).changed


def _waived(service: Path) -> list[str]:
    found = Service(service)
    return [waiver.path for waiver in found.waivers.waivers if waiver.path in found.tree]


@pytest.mark.parametrize("number", [pytest.param(n, marks=pytest.mark.slow) for n in range(max(1, SERVICES // 5))])
def test_no_conflict_and_no_byte_of_the_teams_by_plain_update(born: Born, number: int) -> None:
    chance = random.Random(number)
    service = born(**variant(number))
    for version in VERSIONS:
        work(chance, service, by_hand=False)
        before = {path: (service / path).read_bytes() for path in owned(service, "team")}
        plain_update(service, version)
        refuse_scars(service, version)
        commit(service)
        after = {path: (service / path).read_bytes() for path in owned(service, "team")}
        assert {path: after.get(path) for path in before} == before, version
        assert set(after) - set(before) <= HANDED_OVER, version
        assert list(drift(Service(service))) == [], version
