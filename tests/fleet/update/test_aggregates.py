"""`fleet update -d aggregates=…`: a new aggregate adds new files, and its migration follows the service's last one."""

import re
import shutil
from pathlib import Path

import pytest

from fleet.check.drift import check_drift
from fleet.check.findings import Level
from fleet.errors import FleetError
from fleet.service.service import Service
from fleet.template.answers import aggregates_in, without_aggregates
from fleet.update.update import Options, update
from tests.fleet.services import Born, Installed, commit, contents, state
from tests.fleet.update.plain import plain_update
from tests.support.commands import git, make

pytestmark = pytest.mark.slow

ONE = "Invoice: {number: string(40), total: money}\n"
TWO = f"{ONE}Refund: {{invoice: Invoice, reason: text, amount: money}}\n"
THREE = f"{TWO}Dunning: {{level: integer}}\n"
VERSIONS = "src/billing/migrations/versions"


def add(service: Path, aggregates: str, **data: str) -> list[str]:
    return update(service, Options({"aggregates": aggregates, **data}, "v1.0.0", finish=False)).seeds.new


def test_a_reference_to_an_aggregate_that_is_left_out_becomes_a_uuid() -> None:
    answer = (
        "Order:\n  customer: customer-record?\n  seller: Seller\nCustomerRecord:\n  name: text\nSeller:\n  name: text"
    )
    kept = without_aggregates(aggregates_in({"aggregates": answer}), {"CustomerRecord"})
    assert kept == "Order:\n  customer_id: uuid\n  seller: Seller\nSeller:\n  name: text"


def team_migration(service: Path, number: str, after: str) -> None:
    (service / f"{VERSIONS}/{number}_ours.py").write_text(
        f'"""Ours."""\n\nrevision: str = "{number}"\ndown_revision: str | None = "{after}"\n\n\ndef upgrade() -> None: ...\n'
    )
    commit(service)


def chain(service: Path) -> dict[str, tuple[str, str]]:
    found = {}
    for file in sorted((service / VERSIONS).glob("*.py")):
        revision, after = re.findall(r'^(?:down_)?revision.* = "?(\w+)"?$', file.read_text(), re.MULTILINE)
        found[file.name] = (revision, after)
    return found


def test_a_new_aggregate_is_new_files_only(born: Born) -> None:
    service = born(aggregates=ONE)
    before = contents(service)
    seeds = add(service, TWO)
    after = contents(service)
    assert {path for path in before if after[path] != before[path]} == {".copier-answers.yml"}
    assert set(after) - set(before) == set(seeds)
    assert {"src/billing/domain/refunds.py", "src/billing/api/refunds.py", f"{VERSIONS}/0002_create_refunds.py"} < set(
        seeds
    )
    assert chain(service)["0002_create_refunds.py"] == ("0002", "0001")
    assert git(service, "log", "--format=%s", "-1") == "Change the answers: aggregates\n"


def test_the_migration_of_a_new_aggregate_follows_the_migrations_of_the_team(born: Born) -> None:
    service = born(aggregates=ONE)
    team_migration(service, "0002", "0001")
    team_migration(service, "0003", "0002")
    add(service, THREE, independent_aggregates="yes")
    # Invoices and refunds are one module, because a refund refers to its invoice.
    assert re.findall(r"contract:module-(\S+)\]", (service / ".importlinter").read_text()) == ["invoice", "dunning"]
    assert chain(service) == {
        "0001_create_invoices.py": ("0001", "None"),
        "0002_ours.py": ("0002", "0001"),
        "0003_ours.py": ("0003", "0002"),
        "0004_create_refunds.py": ("0004", "0003"),
        "0005_create_dunnings.py": ("0005", "0004"),
    }
    assert add(service, THREE) == []


def test_two_ends_of_the_chain_are_refused(born: Born) -> None:
    service = born(aggregates=ONE)
    team_migration(service, "0002", "0001")
    team_migration(service, "0003", "0001")
    before = state(service)
    with pytest.raises(FleetError, match=r"migrations have 2 heads: .*0002_ours.py, .*0003_ours.py"):
        add(service, TWO)
    assert state(service) == before


def test_an_aggregate_that_is_named_first_is_still_the_only_new_aggregate(born: Born) -> None:
    """The template numbers migrations by the order of the answers, but the service has its own order."""
    service = born(aggregates=ONE)
    seeds = add(service, "Refund: {reason: text}\n" + ONE)
    assert all("refund" in path for path in seeds), seeds
    assert chain(service) == {"0001_create_invoices.py": ("0001", "None"), "0002_create_refunds.py": ("0002", "0001")}


def test_a_dropped_aggregate_keeps_its_files_and_comes_back_only_when_named_again(born: Born) -> None:
    service = born(aggregates=TWO)
    before = contents(service)
    report = update(service, Options({"aggregates": ONE}, "v1.0.0", finish=False))
    assert report.answers == ["Refund is no longer among the aggregates; its files are the team's and stay"]
    assert {path: content for path, content in contents(service).items() if path != ".copier-answers.yml"} == {
        path: content for path, content in before.items() if path != ".copier-answers.yml"
    }
    for path in contents(service):
        if "refund" in path and "migrations" not in path:
            (service / path).unlink()
    commit(service)
    seeds = add(service, TWO)
    assert "src/billing/domain/refunds.py" in seeds
    assert [path for path in seeds if "migrations" in path] == []


def test_other_fields_change_no_file(born: Born) -> None:
    service = born(aggregates=ONE)
    report = update(service, Options({"aggregates": ONE.replace("40", "50")}, "v1.0.0", finish=False))
    assert report.answers == ["Invoice has other fields; its files are the team's: change them, and write a migration"]
    assert (report.seeds.new, report.written) == ([], 0)
    assert "src/billing/api/invoices.py" in report.changed_seeds
    assert "max_length=50" in report.changed_seeds_diff


@pytest.mark.parametrize(("removed", "kept"), [("refund", "invoice"), ("invoice", "refund")])
def test_a_style_turned_on_seeds_its_example_but_for_an_aggregate_that_the_team_removed(
    born: Born, removed: str, kept: str
) -> None:
    service = born(aggregates=TWO)
    for path in contents(service):
        if removed in path and "migrations" not in path:
            (service / path).unlink()
    commit(service)
    seeds = update(service, Options({"messaging_style": "events"}, "v1.0.0", finish=False)).seeds
    assert f"src/billing/messaging/{kept}s.py" in seeds.new
    assert [path for path in seeds.new if removed in path] == []
    assert f"src/billing/messaging/{removed}s.py" in seeds.left
    assert (service / "deploy/base/worker.yaml").exists()


def test_a_style_turned_off_and_on_again_brings_back_nothing(born: Born) -> None:
    service = born(aggregates=ONE, messaging_style="events")
    (service / "src/billing/messaging/invoices.py").unlink()
    commit(service)
    update(service, Options({"messaging_style": "sync"}, "v1.0.0", finish=False))
    assert not (service / "deploy/base/worker.yaml").exists()
    assert (service / "tests/messaging/test_invoices.py").exists()
    update(service, Options({"messaging_style": "events", "broker": "kafka"}, "v1.0.0", finish=False))
    assert (service / "deploy/base/worker.yaml").exists()
    assert not (service / "src/billing/messaging/invoices.py").exists()


@pytest.mark.slow
def test_all_gates_pass_after_an_aggregate_was_added_behind_a_migration_of_the_teams(
    born: Born, installed: Installed
) -> None:
    service = born(aggregates=ONE)
    installed(service)
    (service / f"{VERSIONS}/0002_ours.py").write_text(
        '"""Ours."""\n\nrevision = "0002"\ndown_revision = "0001"\nbranch_labels = None\ndepends_on = None\n\n\n'
        'def upgrade() -> None:\n    """Nothing yet."""\n\n\ndef downgrade() -> None:\n    """Nothing yet."""\n'
    )
    commit(service)
    report = update(service, Options({"aggregates": TWO}, "v1.0.0"))
    assert report.unfinished == ""
    assert "/refunds" in (service / "specs/openapi.json").read_text()
    assert (
        git(service, "log", "--format=%s", "-1") == "Generate the files that follow from the template: uv.lock, specs\n"
    )
    make(service, "check", "ARGS=-k refund")  # the tests of the other aggregate are as before
    assert git(service, "status", "--porcelain") == ""


def only_recorded(service: Path, into: Path, **data: str) -> None:
    """Leave the service as plain `copier update -d aggregates=…` does, in a fraction of the time."""
    found = Service(service)
    found.release.render(found.answers, into, data)
    shutil.copy(into / ".copier-answers.yml", service)
    commit(service, "Update by plain Copier")


def test_plain_copier_records_an_aggregate_and_the_next_fleet_update_brings_its_files(born: Born) -> None:
    service = born(aggregates=ONE)
    plain_update(service, "v1.0.0", aggregates=TWO)
    commit(service)
    assert not (service / "src/billing/domain/refunds.py").exists()
    assert "src/billing/domain/refunds.py" in update(service, Options({}, "v1.0.0", finish=False)).seeds.new


@pytest.mark.parametrize("to", ["v1.0.0", "v1.1.0"])
def test_an_aggregate_that_was_only_recorded_comes_as_if_fleet_update_had_been_asked_at_once(
    born: Born, tmp_path: Path, to: str
) -> None:
    service, other = born(aggregates=ONE), born(aggregates=ONE)
    only_recorded(service, tmp_path, aggregates=TWO)
    told = [finding for finding in check_drift(Service(service)) if "Refund is among the aggregates" in finding.reason]
    assert [(finding.id, finding.level) for finding in told] == [("answers", Level.WARNING)]
    report = update(service, Options({}, to, finish=False))
    assert "src/billing/domain/refunds.py" in report.seeds.new
    assert chain(service)["0002_create_refunds.py"] == ("0002", "0001")
    assert list(check_drift(Service(service))) == []
    update(other, Options({"aggregates": TWO}, to, finish=False))
    assert contents(service) == contents(other)
    assert not update(service, Options({}, to, finish=False)).changed


def test_an_aggregate_that_the_team_removed_altogether_does_not_come_back(born: Born) -> None:
    service = born(aggregates=ONE)
    add(service, TWO)
    for path in contents(service):
        if "refund" in path:
            (service / path).unlink()
    commit(service)
    assert not update(service, Options({}, "v1.0.0", finish=False)).changed
    update(service, Options({}, "v1.1.0", finish=False))
    assert not [path for path in contents(service) if "refund" in path]


def test_an_aggregate_whose_files_the_team_deleted_before_its_first_commit_does_not_come_back(born: Born) -> None:
    service = born(aggregates=TWO)
    for path in contents(service):
        if "refund" in path:
            (service / path).unlink()
    git(service, "add", "--all")
    git(service, "commit", "--quiet", "--amend", "--message", "Start")
    assert not update(service, Options({}, "v1.0.0", finish=False)).changed


def test_a_service_whose_first_commit_recorded_no_version_is_updated_once_the_team_has_written_the_version(
    born: Born,
) -> None:
    """A copy from a folder without Git history has no version, and `fleet` asks the team to write one."""
    service = born(aggregates=ONE)
    answers = service / ".copier-answers.yml"
    recorded = answers.read_text()
    answers.write_text(recorded.replace("_commit: v1.0.0\n", ""))
    git(service, "commit", "--quiet", "--all", "--amend", "--message", "Start")
    answers.write_text(recorded)
    commit(service)
    assert not update(service, Options({}, "v1.0.0", finish=False)).changed


def test_an_aggregate_of_a_history_that_is_not_all_there_is_not_brought(born: Born, tmp_path: Path) -> None:
    """A shallow history does not show whether the team has deleted the aggregate."""
    service = born(aggregates=ONE)
    only_recorded(service, tmp_path / "render", aggregates=TWO)
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{service}", "shallow")
    assert not update(tmp_path / "shallow", Options({}, "v1.0.0", finish=False)).changed


def test_a_messaging_style_that_was_written_into_the_answers_by_hand_brings_its_example(born: Born) -> None:
    service, other = born(aggregates=ONE, messaging_style="events"), born(aggregates=ONE, messaging_style="events")
    answers = service / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace("messaging_style: events\n", "messaging_style: events-and-queues\n"))
    commit(service)
    seeds = update(service, Options({}, "v1.0.0", finish=False)).seeds.new
    assert "src/billing/messaging/invoice_reminders.py" in seeds
    update(other, Options({"messaging_style": "events-and-queues"}, "v1.0.0", finish=False))
    assert contents(service) == contents(other)
    assert not update(service, Options({}, "v1.0.0", finish=False)).changed
