"""compose.yaml of a generated service, started by Docker Compose: the service's image, and stand-ins for others."""

import json
import shutil
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.delivery.image.checks import INVOICE, TRACE, TRACEPARENT
from tests.delivery.image.project import LIMIT_SECONDS, Project, project_of
from tests.support.engine import Engine

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("image")]


@pytest.fixture(scope="module")
def project(
    engine: Engine, apart: Engine, image: str, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Project]:
    folder = shutil.copytree(source, tmp_path_factory.mktemp("compose") / "billing")
    with project_of(engine, apart, image, folder) as project:
        yield project


@pytest.fixture(scope="module")
def happened(project: Project) -> list[tuple[str, str]]:
    return project.up().succeeded().events


def test_everything_comes_up_healthy(project: Project, happened: list[tuple[str, str]]) -> None:
    assert ("migrate", "die 0") in happened
    states = map(json.loads, project.compose("ps", "--format", "json").stdout.splitlines())
    assert {one["Service"]: one["Health"] for one in states} == {
        name: "healthy" for name in project.file["services"] if name != "migrate"
    }


def test_each_container_starts_after_its_dependencies(project: Project, happened: list[tuple[str, str]]) -> None:
    there = {"service_healthy": "health_status: healthy", "service_completed_successfully": "die 0"}
    waited = [
        (happened.index((other, there[how["condition"]])), happened.index((name, "start")))
        for name, service in project.file["services"].items()
        for other, how in service.get("depends_on", {}).items()
    ]
    assert len(waited) == 6
    assert all(is_there < begins for is_there, begins in waited), happened


@pytest.mark.usefixtures("happened")
def test_a_request_from_this_machine_becomes_an_event_and_one_trace(project: Project) -> None:
    made = project.ask("POST", "/v1/invoices", json=INVOICE)
    project.ask("POST", f"/v1/invoices/{made['id']}/issue", headers={"If-Match": '"1"', **TRACEPARENT})
    deadline = time.monotonic() + LIMIT_SECONDS
    while not {"SERVER", "PRODUCER"} <= {span.kind for span in project.spans(TRACE)}:
        assert time.monotonic() < deadline, project.spans(TRACE)
        time.sleep(0.2)


@pytest.mark.usefixtures("happened")
def test_compose_stops_on_a_signal_and_keeps_its_data(project: Project) -> None:
    made = project.ask("POST", "/v1/invoices", json=INVOICE)
    project.compose("stop")
    states = map(json.loads, project.compose("ps", "--all", "--format", "json").stdout.splitlines())
    assert {one["Service"]: one["ExitCode"] for one in states if one["Service"] in ("service", "worker")} == {
        "service": 0,
        "worker": 0,
    }
    project.compose("down")
    project.up().succeeded()
    assert project.ask("GET", f"/v1/invoices/{made['id']}") == made


@pytest.mark.usefixtures("happened")
@pytest.mark.parametrize(
    ("part", "change", "held_back"),
    [
        ("migrate", {"environment": {"DATABASE_URL": "postgresql://billing:wrong@postgres:5432/billing"}}, "service"),
        ("nats", {"healthcheck": {"test": ["CMD", "false"], "retries": 1, "interval": "0.1s"}}, "worker"),
    ],
    ids=["migrations that fail", "a broker that is not well"],
)
def test_a_container_that_does_not_start_is_reported_and_holds_back_its_dependents(
    project: Project, part: str, change: dict[str, Any], held_back: str
) -> None:
    project.compose("down")
    override = project.folder / "compose.override.yaml"
    override.write_text(json.dumps({"services": {part: change}}))
    try:
        start = project.up()
        assert start.done.returncode != 0
        assert (part, "start") in start.events
        assert (held_back, "start") not in start.events
    finally:
        override.unlink()
