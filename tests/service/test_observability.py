"""Alerts and dashboard use metrics that a service exports, fire at the right time, and lead to a helpful page."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import nats
import pytest
import stamina
import yaml
from chassis.neighbours import NeighbourUnavailable, client, transport
from chassis.sagas.sweep import Sweep
from chassis.telemetry.setup import Telemetry
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from tests.chassis.calling import Neighbour, calling
from tests.service.chaos.system import System, system
from tests.support import debian
from tests.support.answers import VARIANTS
from tests.support.monitoring import MONITORING, dashboards, queries, recorded, rules
from tests.support.paths import ROOT
from tests.support.prometheus import MetricsReceiver, Series, problems, translated
from tests.support.services import Render
from tests.support.waiting import until

# These tests are in the group of tests/delivery/test_delivery.py, so that one worker renders the services of both.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("delivery")]

SOME = [pytest.param(VARIANTS[name], id=name) for name in ("default", "short", "both-rabbitmq", "queues-nats")]
WAIT_SECONDS = 60
STORIES = {path.name: yaml.safe_load(path.read_text()) for path in (ROOT / "tests/service/alerts").glob("*.yaml")}
"""The files of `promtool test rules`."""

# Answers that fit the two services of tests/service/chaos: one publishes the event that the other handles.
COUNTER = {"service_name": "counter", "domain": "tests", "messaging_style": "events", "broker": "nats"}
CALLER = {**COUNTER, "chassis_parts": "[neighbours]"}
TOO_LONG = "x" * 41


def alerts(service: Path) -> list[dict[str, Any]]:
    return [rule for rule in rules(service) if "alert" in rule]


# --- exported metrics -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported() -> set[Series]:
    """All metrics that two real services export while some messages and requests fail."""
    with (
        MetricsReceiver() as receiver,
        system("nats", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint, MESSAGE_MAX_ATTEMPTS="1") as running,
    ):
        asyncio.run(live(running))
    # When a process stops, it sends the rest of its telemetry. The two services together export the metrics of one service
    # that publishes and consumes events.
    return {
        Series(one.name, tuple(sorted({**one.label, "job": one.label["job"].replace("journal", "counter")}.items())))
        for one in receiver.series
    }


async def live(running: System) -> None:
    """Cause an answer, a failure, a handled message and a parked message."""
    await running.wait_until_up()
    async with httpx2.AsyncClient(base_url=running.base) as client:
        assert (await client.post("/v1/counters/one/steps")).status_code == 201
        assert (await client.post(f"/v1/counters/{TOO_LONG}/steps")).status_code == 500
    broker = await nats.connect(running.parts["broker"].url)  # ty: ignore[missing-union-attribute]
    body = json.dumps({"name": TOO_LONG, "step": 1, "ballast": ""}).encode()
    await broker.jetstream().publish("counter.stepped.v1", body, headers={"id": "too-long"})
    await broker.close()
    journal = await asyncpg.connect(running.databases["journal"])
    both = "SELECT (SELECT count(*) FROM journal.entries) = 1 AND (SELECT count(*) FROM chassis.parked) = 1"
    await until(lambda: journal.fetchval(both), running.logs)
    await journal.close()


def test_every_query_asks_for_series_that_a_real_service_exports(render: Render, exported: set[Series]) -> None:
    service = render(**COUNTER)
    found = {name: problems(query, exported | recorded(service)) for name, query in queries(service).items()}
    assert len(found) > 30
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("healthy", "broken"),
    [
        ("http_server_request_duration_seconds_count", "http_server_duration_seconds_count"),
        ('http_response_status_code=~"5.."', 'http_status_code=~"5.."'),
        ('le="0.5"', 'le="0.3"'),
        ('job="tests/counter"', 'job="counter"'),
        ("sum by (instance)", "sum by (pod)"),
        ("service:requests_slow:budget{", "service:requests_slow:objective{"),
    ],
)
def test_a_query_for_a_series_that_nobody_exports_is_found(
    render: Render, exported: set[Series], tmp_path: Path, healthy: str, broken: str
) -> None:
    service = copied(render(**COUNTER), tmp_path)
    change(service / MONITORING / "alerts.yaml", healthy, broken)
    assert any(problems(query, exported | recorded(service)) for query in queries(service).values())


@pytest.fixture
def exported_by_calls(monkeypatch: pytest.MonkeyPatch) -> set[Series]:
    """The metrics of a client whose calls succeed, fail, are repeated and are refused."""
    reader = InMemoryMetricReader()
    named = {"service.namespace": "tests", "service.name": "counter", "service.instance.id": "one"}
    provider = MeterProvider([reader], Resource(named))
    for module in (client, transport):
        monkeypatch.setattr(module.metrics, "get_meter", provider.get_meter)
    with stamina.set_testing(True, attempts=100):
        asyncio.run(call_until_refused())
    found = reader.get_metrics_data()
    assert found is not None
    return set(translated(encode_metrics(found)))


async def call_until_refused() -> None:
    async with calling(Neighbour(200, httpx2.ConnectError("refused"), 503)) as customers:
        await customers.get("/v1/customers")
        for _ in range(3):
            with pytest.raises(NeighbourUnavailable):
                await customers.get("/v1/customers")


def test_every_query_about_calls_asks_for_series_that_a_real_client_exports(
    render: Render, exported_by_calls: set[Series]
) -> None:
    asked = {name: query for name, query in queries(render(**CALLER)).items() if "slipway_neighbour" in query}
    assert len(asked) > 8
    found = {name: problems(query, exported_by_calls) for name, query in asked.items()}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_a_service_without_messages_asks_for_none(render: Render) -> None:
    asked = queries(render(**VARIANTS["default"]))
    assert asked
    assert not any("messaging" in query for query in asked.values())


def copied(service: Path, folder: Path) -> Path:
    return Path(shutil.copytree(service, folder / "service"))


def change(file: Path, healthy: str, broken: str) -> None:
    text = file.read_text()
    assert healthy in text
    file.write_text(text.replace(healthy, broken))


# --- the conditions of alerts ---------------------------------------------------------------------------------------


def promtool(service: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run promtool in a folder with the service's rules, in the form that Prometheus itself reads."""
    folder = service / "rules"
    folder.mkdir(exist_ok=True)
    for path in (ROOT / "tests/service/alerts").glob("*.yaml"):
        shutil.copy(path, folder)
    for path in (service / MONITORING).glob("alerts*.yaml"):
        (folder / path.name).write_text(yaml.safe_dump(yaml.safe_load(path.read_text())["spec"]))
    command = [debian.program("promtool", "prometheus"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=WAIT_SECONDS)


@pytest.fixture
def listener(render: Render, tmp_path: Path) -> Path:
    """A copy of a service to break, with the rules for messages."""
    return copied(render(**COUNTER), tmp_path)


def test_prometheus_takes_the_rules(listener: Path) -> None:
    checked = promtool(listener, "check", "rules", "--lint-fatal", "alerts.yaml", "alerts-messages.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("healthy", "broken"), [("for: 10m", "for: ten minutes"), ("annotations:", "annotation:"), ("[5m]", "[5]")]
)
def test_prometheus_would_refuse_rules(listener: Path, healthy: str, broken: str) -> None:
    change(listener / MONITORING / "alerts.yaml", healthy, broken)
    assert promtool(listener, "check", "rules", "alerts.yaml").returncode != 0


def test_alerts_fire_at_their_limits_and_not_before(listener: Path) -> None:
    tested = promtool(listener, "test", "rules", "hours.yaml", "days.yaml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize(
    ("file", "healthy", "broken", "story"),
    [
        ("alerts.yaml", "> 14.4 *", "> 1.44 *", "3 of 2000 requests fail"),
        ("alerts.yaml", "> 6 *", "> 60 *", "1 of 100 fails"),
        ("alerts.yaml", "vector(0.001)", "vector(0.01)", "3 of 2000 requests fail"),
        ("alerts.yaml", "0.1)", "0)", "two failures in a quiet night"),
        ("alerts.yaml", '"5.."', '"4.."', "what callers do wrong"),
        ("alerts.yaml", "[5m])\n          for: 10m", "[5m])\n          for: 10h", "no pod is left"),
        ("alerts-messages.yaml", "max(", "sum(", "the outbox holds a message for too long"),
        ("alerts-messages.yaml", "severity: page", "severity: ticket", "the outbox holds a message for too long"),
    ],
)
def test_a_wrong_threshold_is_found(listener: Path, file: str, healthy: str, broken: str, story: str) -> None:
    change(listener / MONITORING / file, healthy, broken)
    assert_that_the_story_fails(listener, story)


def assert_that_the_story_fails(service: Path, story: str) -> None:
    """Play this story alone, because all stories of a file take ten times as long. The whole files pass without a change."""
    stories = [(file, one) for file, each in STORIES.items() for one in each["tests"] if one["name"].startswith(story)]
    ((file, only),) = stories
    (service / "rules").mkdir()
    (service / "rules/only.yaml").write_text(yaml.safe_dump(STORIES[file] | {"tests": [only]}))
    tested = promtool(service, "test", "rules", "only.yaml")
    assert "FAILED" in tested.stdout + tested.stderr


@pytest.fixture
def caller(render: Render, tmp_path: Path) -> Path:
    """A copy of a service to break, with the rules for calls to other services."""
    return copied(render(**CALLER), tmp_path)


def test_alerts_about_calls_fire_at_their_limits_and_not_before(caller: Path) -> None:
    checked = promtool(caller, "check", "rules", "--lint-fatal", "alerts.yaml", "alerts-neighbours.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = promtool(caller, "test", "rules", "neighbours.yaml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize(
    ("file", "healthy", "broken", "story"),
    [
        ("alerts-neighbours.yaml", '"[1-4].."', '"[1-3].."', "a healthy neighbour refuses some calls"),
        ("alerts-neighbours.yaml", ", 0.1)", ", 0)", "one failed call in a quiet night"),
        ("alerts-neighbours.yaml", 'le="1"', 'le="5"', "a neighbour is slow"),
        ("alerts-neighbours.yaml", "(slipway_neighbour, reason)", "(reason)", "repeated calls spend their budget"),
        (
            "alerts-neighbours.yaml",
            "> 0.1\n          for: 10m\n          labels: &ticket",
            "> 0.2\n          for: 10m\n          labels: &ticket",
            "one of two neighbours fails for an hour",
        ),
        ("alerts-neighbours.yaml", "severity: ticket", "severity: page", "a neighbour is slow"),
        ("alerts.yaml", '"50[^4]|5[^0]."', '"5.."', "callers name too short a time"),
    ],
)
def test_a_wrong_threshold_for_calls_is_found(caller: Path, file: str, healthy: str, broken: str, story: str) -> None:
    change(caller / MONITORING / file, healthy, broken)
    assert_that_the_story_fails(caller, story)


SAGAS = {**COUNTER, "messaging_style": "queues", "sagas": "postgres"}


@pytest.fixture
def long_worker(render: Render, tmp_path: Path) -> Path:
    """A copy of a service to break, with the rules for sagas."""
    return copied(render(**SAGAS), tmp_path)


def test_alerts_and_panels_about_sagas_ask_for_series_that_a_worker_exports(long_worker: Path) -> None:
    reader = InMemoryMetricReader()
    named = {"service.namespace": "tests", "service.name": "counter", "service.instance.id": "one"}
    telemetry = Telemetry(Resource(named), sampler=ALWAYS_OFF, span_processors=[], metric_readers=[reader])
    sweep = Sweep(None, None, telemetry)  # ty: ignore[invalid-argument-type]
    counted = {"sagas": 1, "idle": 1, "oldest_seconds": 1.0}
    sweep._measured = [{"name": "count", "state": "parked", "position": "one", **counted}]
    found = reader.get_metrics_data()
    assert found is not None
    exported = set(translated(encode_metrics(found)))
    asked = {name: query for name, query in queries(long_worker).items() if name.startswith("Sagas")}
    names = {name.rpartition(" ")[0] for name in asked}
    assert names == {"SagasParked", "SagasIdle", "Sagas by step", "Sagas by step, age of the oldest"}
    assert {name: wrong for name, query in asked.items() if (wrong := problems(query, exported))} == {}


def test_alerts_about_sagas_fire_at_their_limits(long_worker: Path) -> None:
    tested = promtool(long_worker, "test", "rules", "sagas.yaml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize(
    ("healthy", "broken"), [('state="parked"', 'state="running"'), ("max by", "sum by"), ("for: 10m", "for: 10h")]
)
def test_a_wrong_threshold_for_sagas_is_found(long_worker: Path, healthy: str, broken: str) -> None:
    change(long_worker / MONITORING / "alerts-sagas.yaml", healthy, broken)
    tested = promtool(long_worker, "test", "rules", "sagas.yaml")
    assert "FAILED" in tested.stdout + tested.stderr


# --- the pages of alerts --------------------------------------------------------------------------------------------


def without_help(service: Path) -> list[str]:
    """Return the alerts whose page or section is missing, or does not name the alert."""
    return [alert["alert"] for alert in alerts(service) if f"`{alert['alert']}`" not in section(service, alert)]


def section(service: Path, alert: dict[str, Any]) -> str:
    path, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    page = service / path
    for text in re.split(r"^(?=## )", page.read_text() if page.is_file() else "", flags=re.MULTILINE):
        heading = text.partition("\n")[0].removeprefix("## ")
        if re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") == anchor:
            return text
    return ""


@pytest.mark.parametrize("answers", SOME)
def test_every_alert_links_to_the_section_with_its_remedy(render: Render, answers: dict[str, Any]) -> None:
    service = render(**answers)
    assert len(alerts(service)) >= 6
    assert without_help(service) == []


def test_an_alert_without_a_section_is_found(listener: Path) -> None:
    change(listener / "docs/runbook.md", "## Requests fail", "## What fails")
    change(listener / "docs/messages.md", "`MessagesParked`", "The alert")
    assert without_help(listener) == ["MessagesParked", "RequestsFail", "RequestsFail"]


def test_a_page_and_a_ticket_go_to_the_team(render: Render) -> None:
    found = alerts(render(**VARIANTS["short"]))
    assert {alert["labels"]["severity"] for alert in found} == {"page", "ticket"}
    assert {(alert["labels"]["service"], alert["labels"]["team"]) for alert in found} == {("hr", "people")}


# --- the dashboard --------------------------------------------------------------------------------------------------


def unknown_to_grafana(board: dict[str, Any]) -> list[str]:
    """Return the paths that Grafana's own model of a dashboard drops as unknown fields."""
    return list(_dropped(board, json.loads(JSONEncoder().encode(Dashboard.from_json(board))), ""))


def _dropped(given: Any, kept: Any, path: str) -> Iterator[str]:
    match given, kept:
        case dict(), dict():
            for name, value in given.items():
                yield from _dropped(value, kept.get(name), f"{path}/{name}")
        case list(), list():
            for number, value in enumerate(given):
                yield from _dropped(value, kept[number], f"{path}/{number}")
        case _:
            if given != kept:
                yield path


@pytest.mark.parametrize("answers", SOME)
def test_grafana_knows_every_field_of_the_dashboards(render: Render, answers: dict[str, Any]) -> None:
    found = dashboards(render(**answers))
    assert len(found) == 1 + ("neighbours" in answers.get("chassis_parts", ""))
    assert len({one["uid"] for one in found}) == len(found)
    assert [unknown_to_grafana(one) for one in found] == [[]] * len(found)


@pytest.mark.parametrize(("healthy", "broken"), [('"gridPos"', '"gridpos"'), ('"fieldConfig"', '"fieldconfig"')])
def test_a_field_that_grafana_does_not_know_is_found(listener: Path, healthy: str, broken: str) -> None:
    change(listener / MONITORING / "dashboard.json", healthy, broken)
    assert [unknown_to_grafana(one) for one in dashboards(listener)] != [[]]


@pytest.mark.parametrize("answers", [pytest.param(CALLER, id="calls"), pytest.param(SAGAS, id="sagas")])
def test_panels_have_names_of_their_own_and_do_not_overlap(render: Render, answers: dict[str, str]) -> None:
    for board in dashboards(render(**answers)):
        panels = board["panels"]
        assert len({panel["title"] for panel in panels}) == len(panels)
        for one, other in combinations([panel["gridPos"] for panel in panels], 2):
            apart = (
                one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"],
                one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"],
            )
            assert any(apart), (one, other)
        assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
