"""The worker alone or with HTTP: its probes and metrics, the order of messages, and its refusals to start."""

import asyncio
import dataclasses
import re
import sys
from collections.abc import AsyncGenerator
from datetime import timedelta
from uuid import uuid4

import asyncpg
import httpx2
import pytest
from chassis.application import application, worker
from chassis.brokers import BrokerUnavailable, Kind, Message
from chassis.commands import main
from chassis.database import UnitOfWork
from chassis.messages import Contract, Job, Messages, OnJob
from chassis.messaging import inbox, parking
from chassis.messaging.worker import Loop, endure
from chassis.service import Service
from chassis.settings import SettingsError
from chassis.telemetry.setup import Telemetry
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from structlog.testing import CapturingLogger

from tests.chassis import tiny_messages
from tests.chassis.memory_broker import MemoryBroker
from tests.chassis.serving import serving
from tests.chassis.tiny_messages import MESSAGES
from tests.support.waiting import until


@pytest.fixture
def talking(service: Service) -> Service:
    return dataclasses.replace(service, messages=MESSAGES)


@pytest.fixture
async def tables(connection: asyncpg.Connection) -> AsyncGenerator[None]:
    await connection.execute(tiny_messages.EFFECTS)
    yield
    await connection.execute("DROP TABLE effects; DELETE FROM chassis.outbox; DELETE FROM chassis.inbox")
    await connection.execute("DELETE FROM chassis.parked")


async def is_ready(client: httpx2.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 200


async def park(connection: asyncpg.Connection) -> None:
    message = Message(Kind.EVENT, "bank.paid.v1", "one", "a", b"{}")
    await parking.park(connection, message, direction="incoming", reason="no", attempts=5)


async def test_readiness_tells_of_waiting_and_parked_messages_and_stays_ready(
    talking: Service, database_url: str, connection: asyncpg.Connection, tables: None
) -> None:
    await park(connection)
    await connection.execute(
        "INSERT INTO chassis.outbox (id, kind, aggregatetype, aggregateid, type, payload, created_at) "
        "VALUES (gen_random_uuid(), 'event', 'thing', 'a', 'tiny.thing-made.v1', '{}', now() - interval '1 hour')"
    )
    await connection.execute(
        "INSERT INTO chassis.outbox (id, kind, aggregatetype, aggregateid, type, payload, created_at, not_before) "
        "SELECT gen_random_uuid(), 'job', 'tiny.tidy-up.v1', 'a', 'tiny.tidy-up.v1', '{}', now() - interval '1 day', "
        "now() + due FROM unnest('{-2 hours, 1 hour}'::interval[]) AS due"
    )
    await connection.execute(
        "INSERT INTO chassis.outbox (id, kind, aggregatetype, aggregateid, type, payload, created_at, waits_for) "
        "SELECT gen_random_uuid(), 'event', 'thing', 'b', name, '{}', now() - interval '3 hours' * number, name "
        "FROM unnest('{a.b.v1, a.b.v1, c.d.v1}'::text[]) WITH ORDINALITY AS one (name, number)"
    )
    settings = {"database_url": database_url, "probe_details": True}
    app = application(talking, talking.settings.model_validate(settings))
    async with serving(app) as client:
        await until(lambda: app.state.parts[0].gauges.parked == 1)
        ready = await client.get("/readyz")
    assert ready.status_code == 200
    told = ready.json()
    assert (told["status"], told["parked"], told["outbox"]["waiting"]) == ("ok", 1, 5)
    assert 9 * 3600 <= told["outbox"]["oldest_seconds"] < 9 * 3600 + 100
    assert "broker" not in told  # this process has no connection to the broker


async def test_depth_age_and_parked_messages_are_metrics(
    talking: Service, database_url: str, connection: asyncpg.Connection, tables: None
) -> None:
    await park(connection)
    reader = InMemoryMetricReader()
    telemetry = Telemetry(Resource({}), sampler=ALWAYS_OFF, span_processors=[], metric_readers=[reader])
    app = application(
        talking,
        talking.settings.model_validate({"database_url": database_url, "parked_max_messages": 2}),
        telemetry=telemetry,
    )
    async with serving(app):
        await until(lambda: app.state.parts[0].gauges.parked == 1)
        metrics = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    found = {
        metric.name: metric.data.data_points[0].value for metric in metrics if metric.name.startswith("messaging.")
    }
    size = len("{}") + len("{}") + len("no")  # body, headers and reason
    assert found == {
        "messaging.outbox.messages": 0,
        "messaging.outbox.oldest.age": 0,
        "messaging.parked.messages": 1,
        "messaging.parked.size": size,
        "messaging.parked.utilization": 0.5,
    }


async def test_a_service_without_messages_reports_nothing_about_messages(service: Service, database_url: str) -> None:
    settings = {"database_url": database_url, "probe_details": True}
    app = application(service, service.settings.model_validate(settings))
    async with serving(app) as client:
        assert (await client.get("/readyz")).json() == {"status": "ok", "version": "0.0.0", "database": "ok"}


@pytest.mark.slow
async def test_an_unreachable_broker_is_told_and_stops_nothing(talking: Service, database_url: str) -> None:
    settings = {
        "database_url": database_url,
        "broker_url": "nats://127.0.0.1:1",
        "run_worker": True,
        "probe_details": True,
    }
    app = application(talking, talking.settings.model_validate(settings))
    async with serving(app) as client:
        ready = await client.get("/readyz")
        alive = await client.get("/livez")
    assert (ready.status_code, ready.json()["broker"], alive.status_code) == (200, "unreachable", 200)


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a broker in memory, for any BROKER_URL."""
    monkeypatch.setattr("chassis.messaging.worker.broker_for", MemoryBroker)


@pytest.mark.usefixtures("in_memory")
async def test_a_worker_on_a_database_without_migrations_asks_for_a_migration(
    talking: Service, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.messaging.worker.log", logged := CapturingLogger())
    settings = {"database_url": empty_database, "broker_url": f"nats://{uuid4()}"}
    app = worker(talking, talking.settings.model_validate(settings))

    def parts() -> set[str]:
        return {call.kwargs["part"] for call in logged.calls if call.args == ("worker_interrupted",)}

    async with serving(app):
        await until(lambda: parts() >= {"gauges", "inbox", "relay", "events", "jobs"})

    interruptions = [call.kwargs for call in logged.calls if call.args == ("worker_interrupted",)]
    assert {(one["unavailable"], one["reason"]) for one in interruptions} == {
        ("database", "migrations missing: run `migrate`")
    }
    assert "worker_failed" not in str(logged.calls)


@pytest.mark.usefixtures("in_memory")
async def test_the_broker_is_not_reported_as_ok_before_the_worker_has_connected(
    talking: Service, database_url: str
) -> None:
    settings = {"database_url": database_url, "broker_url": f"nats://{uuid4()}"}
    app = worker(talking, talking.settings.model_validate(settings | {"probe_details": True}))
    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://s")
    async with app.state.database, client:  # the application is not started
        before = (await client.get("/readyz")).json()
    async with serving(app) as client:
        await until(lambda: app.state.parts[0].worker.broker.connected)
        after = (await client.get("/readyz")).json()
    assert (before["broker"], after["broker"]) == ("unreachable", "ok")


async def test_an_interruption_is_told_of_once_however_long_each_try_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chassis.messaging.worker.LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("chassis.messaging.worker.log", logged := CapturingLogger())
    tries = iter(range(4))

    async def reach(_: asyncio.Event) -> None:
        if next(tries) < 3:
            await asyncio.sleep(0.05)
            raise BrokerUnavailable("no answer")

    await endure("broker", reach, asyncio.Event())
    assert [call.args for call in logged.calls] == [("worker_interrupted",)]


@pytest.mark.slow
async def test_a_statement_of_a_handler_may_take_as_long_as_the_handler(talking: Service, database_url: str) -> None:
    settings = {"database_url": database_url, "broker_url": "nats://127.0.0.1:1", "request_timeout_seconds": 0.2}
    app = worker(talking, talking.settings.model_validate(settings))
    async with serving(app):
        assert await app.state.database.fetchrow("SELECT pg_sleep(0.5)") is not None


async def test_a_worker_that_has_ended_by_itself_is_not_alive(talking: Service, database_url: str) -> None:
    settings = {"database_url": database_url, "broker_url": "nats://127.0.0.1:1"}
    app = worker(talking, talking.settings.model_validate(settings))
    async with serving(app) as client:
        assert (await client.get("/livez")).status_code == 200
        app.state.parts[0].worker._tasks[0].cancel()
        await until(lambda: app.state.parts[0].worker._tasks[0].done())
        assert (await client.get("/livez")).status_code == 503


@pytest.mark.slow
async def test_the_worker_serves_probes_and_nothing_else(talking: Service, database_url: str) -> None:
    settings = {"database_url": database_url, "broker_url": "nats://127.0.0.1:1"}
    async with serving(worker(talking, talking.settings.model_validate(settings))) as client:
        await until(lambda: is_ready(client))
        statuses = {path: (await client.get(path)).status_code for path in ("/livez", "/v1/things", "/docs")}
    assert statuses == {"/livez": 200, "/v1/things": 404, "/docs": 404}


@pytest.mark.slow
async def test_the_worker_of_a_service_that_has_a_broker_and_no_message_yet_is_ready_and_says_so(
    service: Service, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = CapturingLogger()
    monkeypatch.setattr("chassis.application.log", logger)
    settings = service.settings.model_validate({"database_url": database_url})
    app = worker(dataclasses.replace(service, broker="kafka"), settings)
    async with serving(app) as client:
        await until(lambda: is_ready(client))
        assert (await client.get("/livez")).status_code == 200
    logged = [(call.args, call.kwargs) for call in logger.calls if call.args == ("no_messages",)]
    assert logged == [(("no_messages",), {"remedy": "add a line to OUTGOING or INCOMING of a module in messaging/"})]


async def on_report(job: Contract, uow: UnitOfWork) -> None:
    await uow.connection.execute("INSERT INTO effects (number) VALUES (7)")


class ReportV1(Contract):
    pass


@pytest.fixture
def apart(service: Service) -> Service:
    """A service with a job in a queue of its own."""
    report = OnJob(ReportV1, on_report, queue="reports", timeout=timedelta(minutes=10))
    incoming = (*MESSAGES.incoming, report)
    return dataclasses.replace(
        service, messages=Messages("tiny", (*MESSAGES.outgoing, Job(Report, ReportV1)), incoming)
    )


@dataclasses.dataclass(frozen=True)
class Report:
    pass


@pytest.mark.parametrize(
    ("queues", "size"),
    [([], 4 + 2 * 20 + 2), ([""], 4 + 20 + 2), (["reports"], 20 + 2)],
)
@pytest.mark.usefixtures("in_memory")
def test_the_pool_of_a_worker_has_a_connection_for_each_message_that_is_handled_at_once(
    apart: Service, queues: list[str], size: int
) -> None:
    values = {"database_url": "postgresql://db/tiny", "broker_url": "nats://127.0.0.1:1"}
    for at_once, expected in ((20, size), (1, 10)):
        settings = apart.settings.model_validate({**values, "jobs_at_once": at_once})
        assert worker(apart, settings, queues=queues).state.database._options["max_size"] == expected


@pytest.mark.parametrize(
    ("queues", "parts", "seconds"),
    [
        ([], {"relay", "inbox", "events", "jobs", "reports-jobs"}, 600),
        ([""], {"relay", "inbox", "events", "jobs"}, 30),
        (["reports"], {"reports-jobs"}, 600),
    ],
)
@pytest.mark.usefixtures("in_memory")
async def test_a_worker_of_a_queue_does_nothing_but_the_jobs_of_that_queue(
    apart: Service, database_url: str, monkeypatch: pytest.MonkeyPatch, queues: list[str], parts: set[str], seconds: int
) -> None:
    running = set()

    async def note(part: str, loop: Loop, stop: asyncio.Event) -> None:
        running.add(part)
        await endure(part, loop, stop)

    monkeypatch.setattr("chassis.messaging.worker.endure", note)
    settings = apart.settings.model_validate({"database_url": database_url, "broker_url": f"nats://{uuid4()}"})
    app = worker(apart, settings, queues=queues)
    async with serving(app):
        await until(lambda: running - {"broker"} == parts)
        assert app.state.database._longest_seconds == seconds


@pytest.mark.usefixtures("in_memory")
async def test_a_job_of_a_queue_is_done_by_the_worker_of_that_queue(
    apart: Service, database_url: str, connection: asyncpg.Connection, tables: None
) -> None:
    settings = apart.settings.model_validate({"database_url": database_url, "broker_url": f"nats://{uuid4()}"})
    usual, reports = (worker(apart, settings, queues=queues) for queues in ([""], ["reports"]))
    async with serving(usual):
        async with usual.state.database.unit_of_work() as uow:
            await uow.enqueue(Report())
        await until(lambda: connection.fetchval("SELECT count(*) = 0 FROM chassis.outbox"))
        assert await connection.fetchval("SELECT count(*) FROM effects") == 0
        async with serving(reports):
            await until(lambda: connection.fetchval("SELECT count(*) FROM effects"))


def test_work_lists_the_queues_that_there_are(apart: Service, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(apart, ["work", "--queue", "rapports"])
    assert refused.value.code == 2
    assert re.search(r"invalid choice: 'rapports' \(choose from '?default'?, '?reports'?\)", capsys.readouterr().err)


def test_a_worker_needs_a_broker(talking: Service, database_url: str) -> None:
    with pytest.raises(SettingsError, match="BROKER_URL: is not set"):
        worker(talking, talking.settings.model_validate({"database_url": database_url}))


def test_work_says_that_a_service_without_messages_has_none(
    service: Service, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    assert main(service, ["work"]) == 2
    assert "`work` has nothing to do" in capsys.readouterr().err


def test_work_names_the_setting_that_is_missing(
    talking: Service, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.delenv("BROKER_URL", raising=False)
    assert main(talking, ["work"]) == 2
    assert "BROKER_URL: is not set" in capsys.readouterr().err


def refused(
    talking: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broker_url: str
) -> str:
    """Return the message of a worker that refuses a BROKER_URL."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:secret@localhost/x")
    monkeypatch.setenv("BROKER_URL", broker_url)
    assert main(talking, ["work"]) == 2
    return capsys.readouterr().err


def test_a_broker_that_the_service_has_no_client_for_is_refused_with_the_remedy(
    talking: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "chassis.brokers.kafka.broker", None)
    told = refused(talking, monkeypatch, capsys, "kafka://user:hidden@broker")
    assert "BROKER_URL: names a broker that this service has no client for" in told
    assert "fleet update -d broker=" in told
    assert "hidden" not in told


@pytest.mark.parametrize(
    "url", ["redis://broker", "localhost:4222", "memory://x", "http://broker", "nats", "nats:broker"]
)
def test_a_broker_of_another_kind_is_refused_with_the_kinds_there_are(
    talking: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    told = refused(talking, monkeypatch, capsys, url)
    assert "BROKER_URL: must start with one of nats://, tls://, kafka://, kafkas://, amqp://, amqps://" in told


@pytest.mark.parametrize(
    "url",
    [
        "amqp://",
        "kafka://user@",
        "nats://one:4222,nats://",
        "kafka://broker:port",
        "amqp://broker:99999",
        "nats://[::1:4222",
        "amqp://user:p/hidden@broker:5672",
        "kafka://user:1/hidden@broker:9092",
        "nats://user:p#hidden@broker:4222",
        "nats://one:4222,nats://user:p?hidden@two:4222",
    ],
)
def test_a_broker_that_no_host_is_named_of_is_refused_and_no_password_shown(
    talking: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    told = refused(talking, monkeypatch, capsys, url)
    assert "BROKER_URL: must look like scheme://user:password@host:port" in told
    assert "hidden" not in told


@pytest.mark.parametrize(
    "url",
    [
        "nats://one:4222,nats://user:p%2Fw@two:4222",
        "nats://one,two",
        "kafkas://user:p%40w@one:9092,two,three:9092",
        "amqps://user:pw@one,two:5671/%2Fhost?heartbeat=5",
    ],
)
def test_several_hosts_of_a_broker_may_be_named(talking: Service, url: str) -> None:
    settings = {"database_url": "postgresql://user:secret@localhost/x", "broker_url": url}
    assert talking.settings.model_validate(settings).broker_url.get_secret_value() == url


def test_ids_must_be_remembered_longer_than_events_are_kept(
    talking: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:secret@localhost/x")
    monkeypatch.setenv("BROKER_URL", "nats://localhost")
    monkeypatch.setenv("INBOX_RETENTION_DAYS", "7")
    assert main(talking, ["work"]) == 2
    assert "is not longer than EVENT_RETENTION_HOURS=" in capsys.readouterr().err


async def test_ids_that_no_copy_can_come_of_are_forgotten(
    talking: Service, database_url: str, connection: asyncpg.Connection, tables: None
) -> None:
    await connection.execute(
        "INSERT INTO chassis.inbox (message_id, name, received_at) "
        "SELECT n, 'bank.paid.v1', now() - interval '15 days' FROM generate_series(1, 20005) AS n"
    )
    fresh = str(uuid4())
    await connection.execute("INSERT INTO chassis.inbox (message_id, name) VALUES ($1, 'bank.paid.v1')", fresh)
    app = application(talking, talking.settings.model_validate({"database_url": database_url}))
    async with serving(app):
        assert await inbox.forget(app.state.database, older_than=timedelta(days=14)) == 20005
    assert [row["message_id"] for row in await connection.fetch("SELECT message_id FROM chassis.inbox")] == [fresh]
