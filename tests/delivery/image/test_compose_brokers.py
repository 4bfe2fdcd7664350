"""compose.yaml of services on Kafka and on RabbitMQ, started by Docker Compose, with the real brokers in stand-ins."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from uuid import uuid4

import pytest

from tests.delivery.image.checks import INVOICE, TRACE, TRACEPARENT
from tests.delivery.image.project import LIMIT_SECONDS, Project, project_of
from tests.delivery.image.world import build, locked
from tests.support import brokers
from tests.support.engine import Engine
from tests.support.event_handler import APPROVED, issue_invoices_on
from tests.support.services import Render

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("image")]

IMAGE = "slipway-test:broker"
ADDRESS = {"kafka": "kafka://{}", "rabbitmq": "amqp://guest:guest@{}"}
PORT = {"kafka": "9092", "rabbitmq": "5672"}
PUBLISH = """
import asyncio, json, sys
from chassis.brokers import Kind, Message, Options, Topology, broker_for
from pydantic import SecretStr

async def publish(url, name, id, body, headers):
    broker = broker_for(Options(url=SecretStr(url), client_name="approvals", publish_timeout_seconds=120))
    await broker.connect()
    await broker.declare(Topology("approvals", published_events=frozenset({name})))
    await broker.publish(Message(Kind.EVENT, name, id, id, json.dumps(body).encode(), headers))
    await broker.close()

asyncio.run(publish(*json.loads(sys.argv[1])))
"""


@pytest.fixture(scope="module", params=["kafka", "rabbitmq"])
def project(
    request: pytest.FixtureRequest,
    engine: Engine,
    apart: Engine,
    render: Render,
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[Project]:
    """A started service that issues an invoice when another service publishes an event."""
    files = render(service_name="billing", messaging_style="events", broker=request.param)
    service = shutil.copytree(files, tmp_path_factory.mktemp("compose") / "billing")
    issue_invoices_on(APPROVED, service)
    image = build(engine, locked(service), IMAGE)
    try:
        with project_of(engine, apart, image, service) as project:
            project.up().succeeded()
            yield project
    except brokers.Missing as reason:
        pytest.skip(str(reason))
    finally:
        engine.docker("image", "rm", "--force", IMAGE)


def broker_of(project: Project) -> str:
    return next(name for name in ADDRESS if name in project.file["services"])


def approve(project: Project, invoice: str) -> None:
    """Publish the event of an approved invoice from outside of the containers, at the port that Compose publishes."""
    name = broker_of(project)
    address = project.compose("port", name, PORT[name]).stdout.strip()
    body = {"invoice_id": invoice, "occurred_at": "2027-01-31T12:00:00Z"}
    event = [ADDRESS[name].format(address), APPROVED, str(uuid4()), body, TRACEPARENT]
    command = [*project.engine.enter, sys.executable, "-c", PUBLISH, json.dumps(event)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert done.returncode == 0, done.stderr


def until(project: Project, reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not reached():
        assert time.monotonic() < deadline, project.compose("logs", "--tail", "20").stdout
        time.sleep(0.2)


def test_an_event_of_another_service_has_its_effect_and_the_event_that_follows_is_in_its_trace(
    project: Project,
) -> None:
    made = project.ask("POST", "/v1/invoices", json=INVOICE)
    approve(project, made["id"])
    until(project, lambda: project.ask("GET", f"/v1/invoices/{made['id']}")["status"] == "issued")
    until(project, lambda: {"CONSUMER", "PRODUCER"} <= {span.kind for span in project.spans(TRACE)})


def test_a_worker_stops_on_a_signal_and_new_containers_have_the_messages_of_their_volumes(project: Project) -> None:
    made = project.ask("POST", "/v1/invoices", json=INVOICE)
    project.compose("stop", "worker")
    (worker,) = map(json.loads, project.compose("ps", "--all", "--format", "json", "worker").stdout.splitlines())
    assert worker["ExitCode"] == 0
    approve(project, made["id"])
    project.compose("up", "--detach", "--wait", "--no-build", "--force-recreate", broker_of(project), "worker")
    until(project, lambda: project.ask("GET", f"/v1/invoices/{made['id']}")["status"] == "issued")
