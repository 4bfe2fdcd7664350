"""A generated service under Docker Compose: its image, and stand-ins for the other images of its compose.yaml."""

import base64
import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from chassis.dev.issuer import PATH

from tests.delivery.image import servers
from tests.support import brokers
from tests.support.base_image import TAG
from tests.support.engine import Engine
from tests.support.otlp import OtlpReceiver, Span
from tests.support.tokens import Trusted, trusted_issuer

LIMIT_SECONDS = 60
ASK = "import httpx2, json, sys; print(httpx2.request(**json.loads(sys.argv[1]), timeout=60).raise_for_status().text)"


@dataclass(frozen=True)
class Project:
    """A service's folder, in which a developer runs `docker compose`."""

    engine: Engine
    folder: Path
    trusted: Trusted

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
        headers = {**self.trusted.headers("invoices"), **request.pop("headers", {})}
        request = {"method": method, "url": f"http://{address}{path}", "headers": headers, **request}
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


@contextlib.contextmanager
def project_of(engine: Engine, apart: Engine, image: str, folder: Path) -> Generator[Project]:
    """Yield the project of the service in this folder, whose image `engine` has built. Remove the project at the end.

    The stand-ins are built where they run: nothing is copied between the engines but the service's image and its base.
    """
    with trusted_issuer() as trusted:
        named = {**trusted.settings, "OIDC_JWKS_URL": servers.KEYS_URL}
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in named.items()))
        project = Project(apart, folder, trusted)
        if not apart.enter:
            keep_apart(folder)
        tags = {name: service["image"] for name, service in project.file["services"].items()}
        engine.docker("tag", image, tags["service"])
        if apart.enter:
            archive = str(folder.with_name("images.tar"))
            engine.docker("save", "--output", archive, tags["service"], TAG)
            apart.docker("load", "--input", archive)
            Path(archive).unlink()
        built = {name: tags[name] for name in servers.DOCKERFILES if name in tags}
        servers.build(apart, built, trusted.issuer.answer(f"{PATH}/keys"))
        try:
            yield project
        finally:
            project.compose("down", "--volumes", "--timeout", "5")
            if not apart.enter:
                apart.docker("image", "rm", "--force", *{*tags.values()})


def keep_apart(folder: Path) -> None:
    """Rename project, images and ports, so that they do not conflict with others of this machine's engine."""
    mark = f"tests-{uuid4().hex[:8]}"
    file = folder / "compose.yaml"
    renamed = re.sub(r"(?m)^( *image: )", rf"\1{mark}/", file.read_text())
    file.write_text(re.sub(r"(?m)^name: ", f"name: {mark}-", renamed))
    ports = {name: brokers.free_port() for name in ("HTTP_PORT", "GRAFANA_PORT", "BROKER_PORT", "RABBITMQ_PORT")}
    with (folder / ".env").open("a") as environment:
        environment.writelines(f"{name}={port}\n" for name, port in ports.items())
