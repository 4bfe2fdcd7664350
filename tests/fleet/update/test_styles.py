"""A change of the messaging style or the broker of a service works, or is refused with a remedy that works."""

from itertools import product
from pathlib import Path

import pytest

from fleet.check.drift import check_drift
from fleet.errors import FleetError
from fleet.service.service import Service
from fleet.update.report import Report
from fleet.update.update import Options, update
from tests.fleet.services import Born, commit, state

pytestmark = pytest.mark.slow

STYLES: dict[str, set[str]] = {
    "sync": set(),
    "events": {"events"},
    "queues": {"queues"},
    "events-and-queues": {"events", "queues"},
}
SCHEMES = {"nats": "nats", "kafka": "kafka", "rabbitmq": "amqp"}
EXAMPLES = {
    "events": "src/billing/messaging/invoices.py",
    "queues": "src/billing/messaging/invoice_reminders.py",
}


def change(service: Path, **data: str) -> Report:
    return update(service, Options(dict(data), "v1.0.0", finish=False))


@pytest.mark.parametrize(("first", "second"), [pair for pair in product(STYLES, STYLES) if pair[0] != pair[1]])
def test_every_messaging_style_can_follow_every_other(born: Born, first: str, second: str) -> None:
    service = born(messaging_style=first)
    change(service, messaging_style=second)
    answers = Service(service).answers.values
    assert answers["messaging_style"] == second
    assert set(answers.get("seeded", [])) == STYLES[first] | STYLES[second]
    there = {style for style, path in EXAMPLES.items() if (service / path).exists()}
    assert there == STYLES[first] | STYLES[second]
    assert (service / "deploy/base/worker.yaml").exists() == (second != "sync")
    assert list(check_drift(Service(service))) == []
    if first < second:  # once for each two styles
        # After the change back, the platform's files are as in the first commit.
        before = Service(born(messaging_style=first)).expected.platform
        change(service, messaging_style=first)
        assert Service(service).expected.platform == before
        assert list(check_drift(Service(service))) == []


@pytest.mark.parametrize(("first", "second"), [("nats", "kafka"), ("kafka", "rabbitmq"), ("rabbitmq", "nats")])
def test_every_broker_can_follow_every_other_also_while_a_style_is_turned_on(
    born: Born, first: str, second: str
) -> None:
    service = born(messaging_style="events", broker=first)
    change(service, broker=second)
    assert f"BROKER_URL: {SCHEMES[second]}://" in (service / "compose.yaml").read_text()
    change(service, messaging_style="events-and-queues", broker=first)
    answers = Service(service).answers.values
    assert (answers["messaging_style"], answers["broker"]) == ("events-and-queues", first)
    assert f"BROKER_URL: {SCHEMES[first]}://" in (service / "compose.yaml").read_text()
    assert (service / EXAMPLES["queues"]).exists()
    assert list(check_drift(Service(service))) == []


def test_an_update_names_dropped_answers_and_new_defaults(born: Born) -> None:
    service = born(messaging_style="events-and-queues", broker="rabbitmq", sagas="postgres")
    dropped = change(service, messaging_style="sync").answers
    assert [one.partition(" is no longer recorded")[0] for one in dropped] == ["broker: rabbitmq", "sagas: postgres"]
    assert "-d broker=rabbitmq" in dropped[0]
    defaults = change(service, messaging_style="queues", sagas="postgres").answers
    assert defaults == ["broker is nats, by default: -d broker=… gives another answer"]
    assert change(service, messaging_style="events-and-queues").answers == []


def test_an_example_that_the_team_deleted_stays_away_while_the_other_style_is_turned_on(born: Born) -> None:
    service = born(messaging_style="events")
    (service / EXAMPLES["events"]).unlink()
    commit(service)
    change(service, messaging_style="events-and-queues")
    assert not (service / EXAMPLES["events"]).exists()
    assert (service / EXAMPLES["queues"]).exists()


@pytest.mark.parametrize(("style", "wish"), [("sync", {}), ("events", {"messaging_style": "sync"})])
def test_a_broker_without_a_messaging_style_is_refused_and_the_remedy_works(
    born: Born, style: str, wish: dict[str, str]
) -> None:
    service = born(messaging_style=style)
    before = state(service)
    with pytest.raises(FleetError, match=r"answer broker would be ignored: .* only if has_messaging\. Leave out"):
        change(service, broker="kafka", **wish)
    assert state(service) == before
    change(service, broker="kafka", messaging_style="queues")
    assert Service(service).answers.values["broker"] == "kafka"


@pytest.mark.parametrize(("style", "remedy"), [("sync", "queues"), ("events", "events-and-queues")])
def test_sagas_without_queues_are_refused_and_the_remedy_works(born: Born, style: str, remedy: str) -> None:
    service = born(messaging_style=style)
    before = state(service)
    with pytest.raises(
        FleetError, match=rf"no queues\. Give both answers: -d messaging_style={remedy} -d sagas=postgres"
    ):
        change(service, sagas="postgres")
    assert state(service) == before
    change(service, messaging_style=remedy, sagas="postgres")
    assert (service / "src/billing/sagas/review_invoice.py").exists()
    assert list(check_drift(Service(service))) == []
    change(service, messaging_style=style)
    assert not (service / "chassis/src/chassis/sagas").exists()
    assert list(check_drift(Service(service))) == []


def test_a_check_accepts_the_records_that_the_template_keeps_for_itself(born: Born) -> None:
    service = born(messaging_style="events")
    answers = service / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace("messaging_style: events\n", "messaging_style: events-and-queues\n"))
    commit(service)
    assert [finding for finding in check_drift(Service(service)) if finding.id == "answers"] == []


def test_the_files_for_an_editor_come_with_their_answer_once_and_stay_the_teams(born: Born) -> None:
    service = born()
    assert not (service / ".vscode").exists()
    change(service, editor="vscode", dev_container="yes")
    assert Service(service).answers.values["seeded"] == ["devcontainer", "vscode"]
    assert (service / ".devcontainer/Dockerfile").exists()
    settings, tasks = service / ".vscode/settings.json", service / ".vscode/tasks.json"
    settings.write_text("{}\n")
    tasks.unlink()
    commit(service)
    change(service, messaging_style="events")
    assert (settings.read_text(), tasks.exists()) == ("{}\n", False)
    change(service, editor="none", dev_container="no")
    assert settings.read_text() == "{}\n"
    assert list(check_drift(Service(service))) == []
