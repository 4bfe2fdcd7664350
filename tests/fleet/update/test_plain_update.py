"""Plain `copier update`, without --trust, never harms the team's files, and has the same result as `fleet update`.

A run of Copier takes seconds, so each looks at many cases at once.
"""

from pathlib import Path

import pytest

from fleet.check.drift import check_drift
from fleet.check.findings import Level
from fleet.service.service import Service
from fleet.update.update import Options, update
from tests.fleet.services import Born, commit, contents
from tests.fleet.template_history import HANDED_OVER
from tests.fleet.update.edits import TEAM, kept, platform_edits, team_edits
from tests.fleet.update.plain import plain_update
from tests.support.commands import git

pytestmark = pytest.mark.slow

THREE = "Invoice: {number: string(40)}\nRefund: {reason: text}\nDunning: {level: integer}\n"


def findings(service: Path) -> list[tuple[str, str]]:
    return [(finding.id, finding.path) for finding in check_drift(Service(service))]


def test_a_service_that_only_the_team_has_edited_is_the_same_as_after_fleet_update(born: Born) -> None:
    plain, fleets = born(), born()
    for service in (plain, fleets):
        team_edits(service)
    plain_update(plain, "v1.1.0", with_shortcuts=False)
    commit(plain)
    kept(plain)
    assert findings(plain) == []
    seeds = update(fleets, Options({}, "v1.1.0", finish=False)).seeds.new
    for seed in seeds:
        (fleets / seed).unlink()
    assert contents(plain) == contents(fleets)


def test_platform_files_edited_by_hand_do_no_harm_to_the_teams_files_and_fleet_update_restores_the_rest(
    born: Born,
) -> None:
    service = born()
    platform_edits(service)
    team_edits(service)
    plain_update(service, "v1.1.0")
    # Both sides changed that line: Copier reports success, and the index has the conflict.
    assert {row.split("\t")[1] for row in git(service, "ls-files", "--unmerged").splitlines()} == {"ruff.toml"}
    # "Theirs" is the side of the template.
    git(service, "checkout", "--theirs", "ruff.toml")
    commit(service)
    kept(service)
    assert not (service / ".editorconfig").exists()
    # Unchanged files of the template stay as they were edited; files that the template moved arrive at their new path.
    assert findings(service) == [
        ("drift-mode", "Makefile"),
        ("drift-edited", "chassis/src/chassis/http.py"),
        ("drift-deleted", "compose.yaml"),
    ]
    update(service, Options({}, finish=False))
    assert findings(service) == []


def test_an_aggregate_added_another_dropped_and_other_pipelines_leave_the_teams_files_alone(born: Born) -> None:
    service = born(aggregates="Invoice: {number: string(40)}\nOrder: {total: money}\n")
    for path in ("src/billing/domain/orders.py", "tests/domain/test_orders.py"):
        (service / path).write_text("# The team's.\n")
    (service / "src/billing/usecases/orders.py").unlink()
    commit(service)
    before = contents(service)
    plain_update(service, "v1.0.0", aggregates=THREE, ci="gitlab")
    commit(service)
    after = contents(service)
    mine = {path for path in before if Service(service).expected.owner_of(path) == "team"}
    assert {path: after.get(path) for path in mine} == {path: before[path] for path in mine}
    assert "src/billing/domain/refunds.py" not in after
    assert ".gitlab-ci.yml" in after
    assert ".github/workflows/ci.yaml" not in after
    told = [finding for finding in check_drift(Service(service)) if finding.level is Level.WARNING]
    assert [finding.reason.split()[0] for finding in told] == ["Refund", "Dunning"]
    assert findings(service) == [("answers", ".copier-answers.yml")] * 2


def test_a_file_that_the_platform_hands_over_stays_as_in_the_teams_repository(handed_over: Path) -> None:
    service = handed_over
    untouched, dropped = service / HANDED_OVER[0], service / HANDED_OVER[-1]
    before = contents(service)
    plain_update(service, "v1.2.0")
    after = contents(service)
    assert {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)} == {
        ".copier-answers.yml"
    }
    assert untouched.exists()
    assert dropped.exists()
    commit(service)
    assert findings(service) == []


def test_messaging_that_is_turned_on_and_off_again_leaves_no_drift(born: Born) -> None:
    service = born()
    chassis = service / "chassis/src/chassis"
    for answers, has_messaging in (
        ({"messaging_style": "events", "broker": "nats"}, True),
        ({"messaging_style": "sync"}, False),
    ):
        plain_update(service, "v1.0.0", **answers)
        commit(service)
        assert (chassis / "messaging").exists() == has_messaging
        assert findings(service) == []
    assert Service(service).expected.platform == Service(born()).expected.platform


def test_a_file_that_the_platform_claims_is_a_conflict_where_the_team_has_the_file_already(claimed: Path) -> None:
    service = claimed
    plain_update(service, "v1.4.0")
    assert {row.split("\t")[1] for row in git(service, "ls-files", "--unmerged").splitlines()} == {"README.md"}
    text = (service / "README.md").read_text()
    assert "# Ours.\n" in text
    assert "# Billing\n" in text
    git(service, "checkout", "--theirs", "README.md")
    commit(service)
    assert findings(service) == []


@pytest.mark.slow
@pytest.mark.parametrize("start", ["v1.0.0", "v1.1.0", "v1.2.0"])
def test_from_every_version_to_the_newest(born: Born, start: str) -> None:
    service = born(start)
    edits = {path: content for path, content in TEAM.items() if content is not None or (service / path).exists()}
    for path, content in edits.items():
        (service / path).parent.mkdir(parents=True, exist_ok=True)
        (service / path).write_text(content) if content is not None else (service / path).unlink()
    commit(service)
    plain_update(service)
    commit(service)
    kept(service)
    assert findings(service) == []
