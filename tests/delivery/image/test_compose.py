"""compose.yaml of a generated service, started by Docker Compose: the service's image, and stand-ins for others."""

import base64
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from demo.otlp import OtlpReceiver, Span
from tests.delivery.image import servers
from tests.delivery.image.checks import INVOICE, TRACE, TRACEPARENT
from tests.support import brokers
from tests.support import engine as engines
from tests.support.engine import Engine

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("image")]

LIMIT_SECONDS = 60
ASK = "import httpx, json, sys; print(httpx.request(**json.loads(sys.argv[1]), timeout=10).raise_for_status().text)"


@dataclass(frozen=True)
class Project:
    """A service's folder, in which a developer runs `docker compose`."""

    engine: Engine
    folder: Path

    @property
    def file(self) -> dict[str, Any]:
        return yaml.safe_load((self.folder / "compose.yaml").read_text())

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.engine.docker("compose", *arguments, check=check, cwd=self.folder)

    def up(self) -> "Start":
        # Read the events at once: the engine keeps only 256 events, and a slow start has more.
        ours = ("--filter", "type=container", "--filter", f"label=com.docker.compose.project={self.file['name']}")
        command = [str(self.engine.folder / "docker"), "events", *ours, "--since", f"{time.time():.9f}"]
        with subprocess.Popen([*command, "--format", "{{json .}}"], stdout=subprocess.PIPE, text=True) as listening:
            assert listening.stdout is not None
            done = self.compose("up", "--detach", "--wait", "--no-build", check=False)
            ended, events = time.time_ns(), []
            for line in listening.stdout:  # health checks are events, so the loop always gets another event
                event = json.loads(line)
                if event["timeNano"] > ended:
                    break
                events.append(_event(event))
            listening.terminate()
        return Start(done, events)

    def ask(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        """Send a request to the service as a program on this machine does, to the port that Compose publishes."""
        address = self.compose("port", "service", "8000").stdout.strip()
        request = {"method": method, "url": f"http://{address}{path}", **request}
        command = [*self.engine.enter, sys.executable, "-c", ASK, json.dumps(request)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def spans(self, trace: str) -> list[Span]:
        """Return the spans of a trace that arrived at the collector in compose.yaml."""
        telemetry = self.compose("ps", "--quiet", "telemetry").stdout.strip()
        with OtlpReceiver() as receiver:
            for line in self.engine.docker("logs", telemetry).stdout.splitlines():
                path, _, body = line.partition(" ")
                receiver.take(path, base64.b64decode(body))
        return [span for span in receiver.spans if span.trace_id == trace]


@dataclass(frozen=True)
class Start:
    """The result of `docker compose up --wait`."""

    done: subprocess.CompletedProcess[str]
    events: list[tuple[str, str]]
    """Service and event in order, until all services were up, or one had failed."""

    def succeeded(self) -> "Start":
        assert self.done.returncode == 0, self.done.stderr
        return self


def _event(event: dict[str, Any]) -> tuple[str, str]:
    attributes = event["Actor"]["Attributes"]
    status = f" {attributes['exitCode']}" if event["Action"] == "die" else ""
    return attributes["com.docker.compose.service"], f"{event['Action']}{status}"


@pytest.fixture(scope="module")
def project(engine: Engine, image: str, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Project]:
    with engines.with_compose() as apart:
        project = Project(apart, shutil.copytree(source, tmp_path_factory.mktemp("compose") / "billing"))
        if not apart.enter:
            keep_apart(project.folder)
        tags = {name: service["image"] for name, service in project.file["services"].items()}
        engine.docker("tag", image, tags["service"])
        servers.build(engine, {name: tags[name] for name in servers.DOCKERFILES})
        if apart.enter:
            archive = str(tmp_path_factory.mktemp("images") / "images.tar")
            engine.docker("save", "--output", archive, *{*tags.values()})
            apart.docker("load", "--input", archive)
        yield project
        project.compose("down", "--volumes", "--timeout", "5")
        if not apart.enter:
            engine.docker("image", "rm", "--force", *{*tags.values()})


def keep_apart(folder: Path) -> None:
    """Rename project, images and ports, so that they do not conflict with others of this machine's engine."""
    mark = f"tests-{uuid4().hex[:8]}"
    file = folder / "compose.yaml"
    renamed = re.sub(r"(?m)^( *image: )", rf"\1{mark}/", file.read_text())
    file.write_text(re.sub(r"(?m)^name: ", f"name: {mark}-", renamed))
    ports = {name: brokers.free_port() for name in ("HTTP_PORT", "GRAFANA_PORT", "BROKER_PORT")}
    (folder / ".env").write_text("".join(f"{name}={port}\n" for name, port in ports.items()))


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
