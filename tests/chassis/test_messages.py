"""The lines of OUTGOING and INCOMING: names, and refused combinations."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from chassis.brokers import Kind
from chassis.messages import Contract, Event, Job, Messages, OnEvent, OnJob, messages_in, name_of
from chassis.messaging.topology import topology_of

from tests.chassis import tiny_messages
from tests.chassis.tiny_messages import MESSAGES, PaidV1, ThingMade, ThingMadeV1, TidyUp, TidyUpV1, on_paid


@pytest.mark.parametrize(
    ("class_name", "name"),
    [
        ("PaidV1", "tiny.paid.v1"),
        ("InvoiceIssuedV12", "tiny.invoice-issued.v12"),
        ("SEPAFileSentV2", "tiny.sepa-file-sent.v2"),
        ("Route66ClosedV1", "tiny.route66-closed.v1"),
    ],
)
def test_a_contract_is_named_for_its_class_and_version(class_name: str, name: str) -> None:
    assert name_of("tiny", type(class_name, (Contract,), {})) == name


@pytest.mark.parametrize("class_name", ["Paid", "PaidV0", "paidV1", "PaidV1b"])
def test_a_contract_without_a_version_is_refused(class_name: str) -> None:
    with pytest.raises(ValueError, match=f"{class_name} names no version: end the name of a contract with its version"):
        name_of("tiny", type(class_name, (Contract,), {}))


def test_a_job_may_go_to_another_service() -> None:
    messages = Messages("tiny", outgoing=(Job(TidyUp, TidyUpV1, to="cleaners"),))
    assert [route.name for route in messages.routes[TidyUp]] == ["cleaners.tidy-up.v1"]


def test_the_topology_is_all_that_is_said_and_heard() -> None:
    topology = topology_of(MESSAGES)
    assert topology.service == "tiny"
    assert topology.published_events == {"tiny.thing-made.v1"}
    assert topology.sent_jobs == {"tiny.tidy-up.v1"}
    assert topology.awaited_events == {"bank.paid.v1"}
    assert topology.accepted_jobs == {"tiny.count.v1"}


def test_the_key_must_be_an_attribute_of_the_event() -> None:
    with pytest.raises(ValueError, match="ThingMade has no attribute 'invoice_id'"):
        Messages("tiny", outgoing=(Event(ThingMade, ThingMadeV1, aggregate="thing", key="invoice_id"),))


def test_two_lines_for_one_message_are_refused() -> None:
    line = Event(ThingMade, ThingMadeV1, aggregate="thing", key="thing_id")
    with pytest.raises(ValueError, match=r"tiny\.thing-made\.v1 has two lines"):
        Messages("tiny", outgoing=(line, line))


def test_a_job_is_sent_once() -> None:
    with pytest.raises(ValueError, match="TidyUp has two lines"):
        Messages("tiny", outgoing=(Job(TidyUp, TidyUpV1), Job(TidyUp, TidyUpV1, to="cleaners")))


def test_two_handlers_for_one_message_are_refused() -> None:
    line = OnEvent("bank.paid.v1", PaidV1, on_paid)
    with pytest.raises(ValueError, match=r"bank\.paid\.v1 has two lines"):
        Messages("tiny", incoming=(line, line))


@pytest.mark.parametrize("name", ["paid", "bank.paid", "Bank.paid.v1", "bank.paid.v0", "bank.paid.1", "bank..v1"])
def test_a_name_that_is_not_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not the name of an event"):
        Messages("tiny", incoming=(OnEvent(name, PaidV1, on_paid),))


def test_an_event_and_a_job_are_told_apart() -> None:
    kinds = {receiver.name: receiver.kind for receiver in MESSAGES.receivers.values()}
    assert kinds == {"bank.paid.v1": Kind.EVENT, "tiny.count.v1": Kind.JOB}


def test_the_lines_of_every_module_below_a_package_are_found(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "talk" / "incoming"
    inner.mkdir(parents=True)
    (tmp_path / "talk" / "__init__.py").touch()
    (inner / "__init__.py").touch()
    (inner / "payments.py").write_text(
        "from chassis.messages import OnEvent\n"
        "from tests.chassis.tiny_messages import PaidV1, on_paid\n"
        'INCOMING = [OnEvent("bank.paid.v1", PaidV1, on_paid)]\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import talk  # ty: ignore[import-not-found]

    assert list(messages_in(talk, service="tiny").receivers) == ["bank.paid.v1"]
    assert not messages_in(talk, service="tiny").routes


def test_a_service_without_lines_has_no_messages() -> None:
    assert not Messages("tiny")
    assert MESSAGES
    assert Messages("tiny", incoming=(OnJob(tiny_messages.CountV1, tiny_messages.on_count),))


def test_lines_are_refused_where_the_answers_leave_messaging_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.discovery._CHASSIS", tmp_path)
    assert not Messages("tiny")
    with pytest.raises(ValueError, match=r"tiny has lines in OUTGOING or INCOMING .*fleet update -d messaging_style="):
        Messages("tiny", incoming=(OnJob(tiny_messages.CountV1, tiny_messages.on_count),))


def test_the_queue_of_a_job_is_part_of_its_name_for_sender_and_receiver() -> None:
    apart = Messages(
        "tiny",
        (Job(TidyUp, tiny_messages.CountV1), Job(ThingMade, ThingMadeV1, to="bank--slow")),
        (OnJob(tiny_messages.CountV1, tiny_messages.on_count, queue="reports", timeout=timedelta(minutes=10)),),
    )
    assert [route.name for routes in apart.routes.values() for route in routes] == [
        "tiny--reports.count.v1",
        "bank--slow.thing-made.v1",
    ]
    (receiver,) = apart.receivers.values()
    assert (receiver.name, receiver.queue, receiver.timeout_seconds) == ("tiny--reports.count.v1", "reports", 600)
    assert apart.queues == ["reports"]
    assert (apart.longest_timeout(["reports"]), apart.longest_timeout([""])) == (600, 0)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"queue": "Reports"}, r"'Reports' cannot be the queue of CountV1: write a short name in lower case"),
        ({"queue": "a.b"}, "cannot be the queue"),
        ({"queue": "default"}, "default is the queue of the lines that name none"),
        ({"timeout": timedelta(0)}, "the timeout of CountV1 is 0:00:00: write a time of up to an hour"),
        ({"queue": "reports", "timeout": timedelta(hours=2)}, "divide longer work into several jobs"),
        ({"timeout": timedelta(minutes=6)}, "would hold up all other jobs: give it a queue of its own"),
    ],
)
def test_a_queue_or_a_timeout_that_cannot_work_is_refused_with_the_remedy(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Messages("tiny", incoming=(OnJob(tiny_messages.CountV1, tiny_messages.on_count, **options),))


def test_a_contract_ignores_unknown_fields() -> None:
    @dataclass
    class Wider:
        number: int = 3
        added_later: str = "new"

    assert PaidV1.model_validate_json('{"number": 3, "added_later": "new"}') == PaidV1.model_validate(Wider())
