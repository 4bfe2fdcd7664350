"""Services of every variant, each with random but repeatable edits, taken through every version.

`make simulation` takes forty services through every version, by `fleet update` and by plain `copier update`. `make test` takes
the first service through every version, and a service of each other variant to the newest version at once. Plain `copier
update`, which takes five times as long, has one service and one step there. A failure names the seed of the service that failed.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.check.drift import check_drift
from fleet.check.findings import Level
from fleet.service.fleet_toml import Member
from fleet.service.service import Service
from fleet.template.answers import Answers
from fleet.update.conflicts import refuse_conflicts
from fleet.update.outcomes import RunOptions
from fleet.update.update import Options, update
from fleet.update.update_all import update_all
from tests.fleet.services import Born, commit, waive
from tests.fleet.template_history import HANDED_OVER
from tests.fleet.update.plain import plain_update
from tests.support.answers import VARIANTS
from tests.support.commands import git

pytestmark = pytest.mark.slow

SERVICES = int(os.environ.get("SERVICES", len(VARIANTS)))
BY_PLAIN_UPDATE = int(os.environ.get("BY_PLAIN_UPDATE", "1"))
# The number of services whose gates run: the gates of a service take minutes.
GREEN = int(os.environ.get("GREEN", "1"))
VERSIONS = ("v1.1.0", "v1.2.0", "v1.3.0")
LINES = ("# Why: see our decision 7.\n", "\n# TODO: not before June.\n", "# über uns\n", "x = 1\n")

# The migration of 1.2.0 moves it, with any content.
MOVED = {"docs/runbook.md": "docs/operations/runbook.md"}


def owned(service: Service, owner: str) -> list[str]:
    paths = sorted(service.tree.keys() - {".copier-answers.yml"})
    return [path for path in paths if service.expected.owner_of(path) == owner]


def contents(service: Service, paths: list[str]) -> dict[str, bytes]:
    return {path: (service.root / path).read_bytes() for path in paths}


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
    """Simulate some weeks of a team: edited and new files; with `by_hand` also the platform's, some with a waiver."""
    # Read the list before any edit. It leaves conventions.yml out, which is replaced below with the waivers.
    found = Service(service)
    paths = [path for path in owned(found, "team") if path != "conventions.yml"]
    for path in chance.sample(paths, 12):
        if (service / path).exists():
            chance.choice(EDITS)(chance, service / path)
    for folder in chance.sample(["src", "docs", "tests", ".github/workflows", "scripts"], 2):
        (service / folder).mkdir(parents=True, exist_ok=True)
        (service / folder / f"ours_{chance.randint(10, 99)}.txt").write_text(chance.choice(LINES))
    if by_hand:
        edited = chance.sample(owned(found, "platform"), 6)
        for path in edited:
            if (service / path).exists():
                chance.choice(EDITS[:4])(chance, service / path)
        waive(service, *edited[:2])
    commit(service)


def of_the_team(service: Service) -> dict[str, bytes]:
    return {MOVED.get(path, path): content for path, content in contents(service, owned(service, "team")).items()}


def variant(number: int) -> dict[str, Any]:
    return list(VARIANTS.values())[number % len(VARIANTS)]


def way(number: int) -> tuple[str, ...]:
    """Return the versions that `fleet update` takes a service to."""
    return VERSIONS if number == 0 or len(VARIANTS) < SERVICES else VERSIONS[-1:]


def numbered(count: int) -> list[Any]:
    """Number the services. One process has all services of a variant, and renders it once."""
    groups = [pytest.mark.xdist_group(f"simulation-{number % len(VARIANTS)}") for number in range(count)]
    return [pytest.param(number, marks=group) for number, group in enumerate(groups)]


@pytest.mark.parametrize("number", numbered(SERVICES))
def test_no_conflict_and_no_byte_of_the_teams_by_fleet_update(born: Born, number: int) -> None:
    chance = random.Random(number)
    service = born(**variant(number))
    for version in way(number):
        work(chance, service, by_hand=True)
        worked = Service(service)
        before = of_the_team(worked)
        waived = contents(worked, [one.path for one in worked.waivers.waivers if one.path in worked.tree])
        report = update(service, Options({}, version, finish=False))
        updated = Service(service)
        after = of_the_team(updated)
        assert {path: after.get(path) for path in before} == before, version
        assert set(after) - set(before) <= {*report.seeds.new, *HANDED_OVER}, version
        assert contents(updated, list(waived)) == waived, version
        assert [finding for finding in check_drift(updated) if finding.level is Level.ERROR] == [], version
        refuse_conflicts(service, version)
        assert git(service, "status", "--porcelain") == ""
    assert not update(service, Options({}, VERSIONS[-1], finish=False)).changed


@pytest.mark.parametrize("number", numbered(BY_PLAIN_UPDATE))
def test_no_conflict_and_no_byte_of_the_teams_by_plain_update(born: Born, number: int) -> None:
    chance = random.Random(number)
    service = born(**variant(number))
    for version in VERSIONS if BY_PLAIN_UPDATE > 1 else VERSIONS[-1:]:
        work(chance, service, by_hand=False)
        worked = Service(service)
        before = contents(worked, owned(worked, "team"))
        plain_update(service, version)
        refuse_conflicts(service, version)
        commit(service)
        updated = Service(service)
        after = contents(updated, owned(updated, "team"))
        assert {path: after.get(path) for path in before} == before, version
        assert set(after) - set(before) <= {*HANDED_OVER}, version
        assert list(check_drift(updated)) == [], version


# Additions of a team in its first weeks: a rule with its test, a setting, and a migration.
FEATURE = {
    "src/{package}/domain/discounts.py": '''"""Discounts: what a loyal customer does not pay."""

from datetime import timedelta

LOYAL_AFTER = timedelta(days=365)


def discount_cents(total_cents: int, known_for: timedelta) -> int:
    """A twentieth, rounded down, for who has been a customer for a year."""
    return total_cents // 20 if known_for >= LOYAL_AFTER else 0
''',
    "tests/domain/test_discounts.py": '''"""Discounts go to loyal customers."""

from datetime import timedelta

import pytest

from {package}.domain.discounts import discount_cents


@pytest.mark.parametrize(("days", "expected"), [(364, 0), (365, 50), (4000, 50)])
def test_a_customer_is_loyal_after_a_year(days: int, expected: int) -> None:
    assert discount_cents(1019, timedelta(days=days)) == expected
''',
    "src/{package}/migrations/versions/0099_ours.py": '''"""Ours."""

revision = "0099"
down_revision = "{last}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
''',
}


def add_a_feature(service: Path) -> None:
    package = Service(service).package
    (*_, last) = sorted((service / "src" / package / "migrations/versions").glob("0*.py"))
    for path, text in FEATURE.items():
        file = service / path.replace("{package}", package)
        file.write_text(text.replace("{package}", package).replace("{last}", last.name[:4]))
    commit(service, "Give loyal customers a discount")


def release_with_the_first_ruff(service: Path, successor: Path) -> Path:
    """Release 1.4.0 of the template for this service. Its chassis has lines that are too long for ruff since 1.1.0."""
    answers = service / ".copier-answers.yml"
    source = Answers.parse(answers.read_bytes()).source
    git(successor.parent, "clone", "--quiet", source, str(successor))
    git(successor, "checkout", "--quiet", "v1.0.0", "--", "template/ruff.toml")
    commit(successor, "v1.4.0")
    git(successor, "tag", "v1.4.0")
    answers.write_text(answers.read_text().replace(source, str(successor)))
    return successor


@pytest.mark.parametrize("number", numbered(GREEN))
def test_a_service_with_the_teams_own_code_passes_its_gates_after_an_update_of_the_fleet(
    born: Born, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The update runs by `fleet update-all`, with the service's own Makefile."""
    service = born(**variant(number + 1))
    successor = release_with_the_first_ruff(service, tmp_path / "slipway")
    add_a_feature(service)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("FLEET_TEMPLATE", str(successor))
    monkeypatch.delenv("FLEET_TRUSTED_TEMPLATES", raising=False)
    (outcome,) = update_all([Member("green", str(service), is_local=True)], tmp_path / "work", RunOptions(), jobs=1)
    assert outcome.failure == "", Path(outcome.log).read_text()[-5000:]
    assert outcome.tested
    assert "All gates passed." in Path(outcome.log).read_text()
    assert Answers.parse(git(service, "show", f"{outcome.branch}:.copier-answers.yml").encode()).version == "v1.4.0"
