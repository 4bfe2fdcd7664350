"""Generated services on Kafka and on RabbitMQ: the effect of a request, its trace, and the metrics for alerts.

Billing runs in `make dev`, and ledger as in production: a process that serves and a worker.
"""

import asyncio
import contextlib
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx2
import pytest
from chassis.dev import embedded

from tests.support import brokers
from tests.support.commands import service_environment
from tests.support.event_handler import issue_invoices_on
from tests.support.monitoring import queries, recorded
from tests.support.otlp import Span
from tests.support.prometheus import MetricsReceiver, problems
from tests.support.services import Render, use_packages_of_the_tests
from tests.support.tokens import Trusted, trusted_issuer
from tests.support.waiting import until

# These tests are in the group of the other tests that start brokers of their own.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("chaos")]

WAIT_SECONDS = 120
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4737"
TRACED = {"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01"}
CONSUMED = {"billing.invoice-issued.v1", "ledger.events"}
"""The topic of Kafka, and the queue of RabbitMQ, that ledger consumes."""
AGGREGATES = "Invoice: {number: string(40), total: money}"
INVOICE = {
    "number": "2027-1",
    "total": {"amount": 1250, "currency": "EUR"},
}


@dataclass(frozen=True)
class Life:
    """The traces of two services that ran: the folder of the consumer, telemetry, the output of `make messages`, a log."""

    listener: Path
    telemetry: MetricsReceiver
    overview: dict[str, Any]
    dev_log: str


@pytest.fixture(scope="module", params=["kafka", "rabbitmq"])
def life(request: pytest.FixtureRequest, render: Render, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """A request with an effect in the other service, a message that is parked, and an answer that is a failure."""
    folder = tmp_path_factory.mktemp(request.param)
    billing, ledger = (made(render, folder, name, request.param) for name in ("billing", "ledger"))
    issue_invoices_on("billing.invoice-issued.v1", ledger)
    with contextlib.ExitStack() as stack:
        try:
            broker = stack.enter_context(brokers.BROKERS[request.param]())
        except brokers.Missing as reason:
            pytest.skip(str(reason))
        telemetry = stack.enter_context(MetricsReceiver())
        server = stack.enter_context(embedded.temporary_postgres())
        trusted = stack.enter_context(trusted_issuer("ledger"))
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": telemetry.endpoint, "BROKER_URL": broker.url, "DRAIN_SECONDS": "0"}
        with contextlib.ExitStack() as processes:
            overview = asyncio.run(live(billing, ledger, server, settings, trusted, processes))
        # When a process stops, it sends the rest of its telemetry, so everything has arrived here.
        yield Life(ledger, telemetry, overview, (billing / "dev.log").read_text())


def made(render: Render, folder: Path, name: str, broker: str) -> Path:
    """Make a service that uses the environment of the tests, so that it need not be installed."""
    messages = {"messaging_style": "events-and-queues", "broker": broker, "chassis_parts": "[overview]"}
    answers = {"service_name": name, "domain": "tests", "aggregates": AGGREGATES, **messages}
    service = Path(shutil.copytree(render(**answers), folder / name))
    use_packages_of_the_tests(service)
    return service


async def live(
    billing: Path,
    ledger: Path,
    server: str,
    settings: dict[str, str],
    trusted: Trusted,
    processes: contextlib.ExitStack,
) -> dict[str, Any]:
    urls = {name: urlsplit(server)._replace(path=f"/{name}").geturl() for name in ("billing", "ledger")}
    connection = await asyncpg.connect(server)
    for name in urls:
        await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()

    def start(service: Path, *command: str, stop: signal.Signals = signal.SIGTERM, **more: str) -> embedded.Process:
        environment = service_environment(DATABASE_URL=urls[service.name], **settings, **more)
        with (service / f"{command[-1]}.log").open("w") as log:
            options: dict[str, Any] = {"cwd": service, "env": environment, "stdout": log, "stderr": log}
            process = embedded.spawn(list(command), stop_signal=stop, **options)
        processes.callback(process.stop)
        return process

    python = [".venv/bin/python", "-m", "ledger"]
    assert await asyncio.to_thread(start(ledger, *python, "migrate").child.wait, WAIT_SECONDS) == 0
    ports = {name: str(brokers.free_port()) for name in ("dev", "serve", "work")}
    start(billing, "make", "dev", stop=signal.SIGINT, HTTP_PORT=ports["dev"])
    start(ledger, *python, "serve", HTTP_PORT=ports["serve"], **trusted.settings)
    start(ledger, *python, "work", HTTP_PORT=ports["work"], MESSAGE_MAX_ATTEMPTS="1", **trusted.settings)

    def logs() -> str:
        return "\n".join(
            f"== {log}\n{log.read_text()[-3000:]}" for one in (billing, ledger) for log in one.glob("*.log")
        )

    # RabbitMQ keeps no message for a queue that has never existed.
    await until(lambda: "consumer_started" in (ledger / "work.log").read_text(), logs)
    async with (
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{ports['dev']}", timeout=WAIT_SECONDS) as to_billing,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{ports['serve']}", timeout=WAIT_SECONDS) as to_ledger,
    ):
        for client in (to_billing, to_ledger):
            await until(lambda client=client: ready(client), logs)
        to_billing.headers["Authorization"] = await asyncio.to_thread(token_of_make_dev, billing)
        to_ledger.headers.update(trusted.headers("invoices"))
        known, unknown = [(await to_billing.post("/v1/invoices", json=INVOICE)).json()["id"] for _ in range(2)]
        await copy(known, urls)
        issue = "/v1/invoices/{}/issue"
        assert (await to_billing.post(issue.format(known), headers={"If-Match": "*", **TRACED})).status_code == 200
        await until(lambda: status(to_ledger, known, "issued"), logs)

        assert (await to_billing.post(issue.format(unknown), headers={"If-Match": "*"})).status_code == 200
        database = await asyncpg.connect(urls["ledger"])
        await until(lambda: database.fetchval("SELECT count(*) = 1 FROM chassis.parked"), logs)
        await database.execute("ALTER TABLE ledger.invoices RENAME TO lost")
        await database.close()
        assert (await to_ledger.get("/v1/invoices")).status_code == 500
    command = ["make", "--silent", "messages", "ARGS=--format json"]
    environment = service_environment(DATABASE_URL=urls["ledger"], **settings)
    overview: dict[str, Any] = {}

    async def all_received() -> bool:  # Kafka learns the position of the worker once a second
        shown = await asyncio.to_thread(subprocess.check_output, command, cwd=ledger, env=environment)
        overview.update(json.loads(shown))
        return [stream["waiting"] for stream in overview["streams"] if stream["name"] in CONSUMED] == [0]

    await until(all_received, logs)
    return overview


def token_of_make_dev(service: Path) -> str:
    command = [".venv/bin/python", "-m", service.name, "token"]
    return f"Bearer {subprocess.check_output(command, cwd=service, env=service_environment(), text=True).strip()}"


async def copy(invoice: str, urls: dict[str, str]) -> None:
    """Copy one of billing's invoices with its id to ledger."""
    source, target = [await asyncpg.connect(urls[name]) for name in ("billing", "ledger")]
    row = await source.fetchrow("SELECT * FROM billing.invoices WHERE id = $1", invoice)
    values = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    await target.execute(f"INSERT INTO ledger.invoices ({', '.join(row.keys())}) VALUES ({values})", *row.values())
    await source.close()
    await target.close()


async def ready(client: httpx2.AsyncClient) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return (await client.get("/readyz")).status_code == 200
    return False


async def status(client: httpx2.AsyncClient, invoice: str, wanted: str) -> bool:
    return (await client.get(f"/v1/invoices/{invoice}")).json()["status"] == wanted


def test_make_messages_shows_the_inbox_and_the_streams_of_the_broker(life: Life) -> None:
    overview = life.overview
    assert (overview["outbox"]["messages"], overview["parked"]) == (0, {"incoming": 1, "outgoing": 0})
    assert {row["name"] for row in overview["inbox"]["latest"]} == {"billing.invoice-issued.v1"}
    assert all(stream["exists"] for stream in overview["streams"])
    assert CONSUMED & {stream["name"] for stream in overview["streams"]}


def test_make_dev_prints_a_line_in_its_trace_for_each_message_that_was_sent(life: Life) -> None:
    lines = [line for line in life.dev_log.splitlines() if "message_sent" in line and TRACE_ID in line]
    assert len(lines) == 1
    assert "name=billing.invoice-issued.v1" in lines[0]


def test_a_request_and_its_effect_in_the_other_service_are_one_trace(life: Life) -> None:
    spans = [span for span in life.telemetry.spans if span.trace_id == TRACE_ID]

    def one(name: str, service: str) -> Span:
        (span,) = [span for span in spans if (span.name, span.service) == (name, service)]
        return span

    request = one("POST /v1/invoices/{invoice_id}/issue", "billing")
    sent = one("send billing.invoice-issued.v1", "billing")
    processed = one("process billing.invoice-issued.v1", "ledger")
    again = one("send ledger.invoice-issued.v1", "ledger")
    assert [sent.parent_id, processed.parent_id, again.parent_id] == [
        request.span_id,
        sent.span_id,
        processed.span_id,
    ]
    assert one("UPDATE ledger.invoices", "ledger").parent_id == processed.span_id


def test_every_query_of_alerts_and_dashboard_asks_for_series_that_the_services_export(life: Life) -> None:
    exported = {one for one in life.telemetry.series if one.label["job"] == "tests/ledger"}
    found = {
        name: problems(query, exported | recorded(life.listener)) for name, query in queries(life.listener).items()
    }
    assert len(found) > 30
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
