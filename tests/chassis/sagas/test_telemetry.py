"""A saga is one trace, and a stopped worker holds the row of a saga for a limited time."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from chassis.database import Database, pool
from chassis.messaging.outbox import Outbox
from chassis.sagas import AdvanceSagaV1, Run, rows, run, saga
from chassis.sagas.sweep import Sweep
from chassis.sagas.testing import SagaPlayer
from chassis.telemetry.setup import Telemetry
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from pydantic import SecretStr

from tests.chassis.running import recording
from tests.chassis.sagas.ordering import PlaceOrder, place_order, refund, request_payment
from tests.chassis.sagas.players import Play, effects, messages_of, start

JOB = "orders.advance-saga.v1"
NOW = datetime.now(UTC)


async def test_the_steps_of_a_saga_are_in_the_trace_of_its_start_and_linked_to_their_messages(
    orders: Database, player: SagaPlayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = InMemorySpanExporter()
    tracer = recording(spans).tracer
    monkeypatch.setattr(run, "tracer", tracer)
    with tracer.start_as_current_span("POST /orders"):
        await start(orders)
    with tracer.start_as_current_span("another trace, as after a sweep") as message:
        await player.play()
        await player.pass_time(timedelta(minutes=6))
    steps = [span for span in spans.get_finished_spans() if span.name.startswith("saga ")]
    assert [span.name.removeprefix("saga place-order ") for span in steps] == [
        "reserve_stock", "request_payment", "undo request_payment", "undo reserve_stock",
    ]  # fmt: skip
    [start_span] = [span for span in spans.get_finished_spans() if span.name == "POST /orders"]
    for span in steps:
        assert span.parent is not None
        assert (span.parent.trace_id, span.parent.span_id) == (start_span.context.trace_id, start_span.context.span_id)
        assert [link.context.span_id for link in span.links] == [message.get_span_context().span_id]


async def test_sagas_are_measured_by_name_state_step_and_age(orders: Database, player: SagaPlayer) -> None:
    reader = InMemoryMetricReader()
    telemetry = Telemetry(Resource({}), sampler=ALWAYS_OFF, span_processors=[], metric_readers=[reader])
    sweep = Sweep(orders, messages_of(place_order).sagas, telemetry)
    await start(orders, "17")
    await start(orders, "18")
    await player.play()
    await orders.execute("UPDATE chassis.sagas SET problem = 'a reason' WHERE key = '18'")
    await orders.execute("UPDATE chassis.sagas SET started_at = now() - interval '2 days' WHERE key = '17'")
    task = asyncio.create_task(sweep.run(stop := asyncio.Event()))
    await asyncio.sleep(0)
    stop.set()
    await task
    data = reader.get_metrics_data()
    assert data is not None
    found = {
        (metric.name, point.attributes["state"]): point.value  # ty: ignore[missing-union-attribute, not-subscriptable]
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        for point in metric.data.data_points
    }
    assert found["saga.active", "waiting"] == found["saga.active", "parked"] == 1
    assert found["saga.idle", "waiting"] == 0
    assert 172_800 <= found["saga.oldest.age", "waiting"] < 173_800


async def test_names_of_steps_that_hold_ids_make_a_bounded_number_of_series(orders: Database) -> None:
    await orders.execute("""
        INSERT INTO chassis.sagas (id, name, key, version, params, position, started_at)
        SELECT gen_random_uuid(), 'notify', number::text, 1, '{}', 'notify ' || least(number, 70), now() - number * interval '1 hour'
        FROM generate_series(1, 80) AS number
    """)
    found = {row["position"]: row for row in await orders.fetch(rows.MEASURE)}
    assert len(found) == 51
    assert found["notify 70"]["sagas"] == 11
    assert found["other"]["sagas"] == 20
    assert sum(row["sagas"] for row in found.values()) == 80
    assert 3600 < found["other"]["oldest_seconds"] < found["notify 70"]["oldest_seconds"]


@saga("two-notes")
async def two_notes(saga_run: Run, order: PlaceOrder) -> None:
    for number in range(2):
        await saga_run.step(request_payment, order, undo=refund, name=f"request {number}")


async def test_durations_are_measured_by_use_case_because_names_of_steps_may_hold_ids(
    orders: Database, playing: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[dict[str, str]] = []

    class Durations:
        def record(self, _: float, attributes: dict[str, str]) -> None:
            measured.append(attributes)

    monkeypatch.setattr(run, "durations", Durations())
    player = playing(two_notes)
    await start(orders, saga=two_notes)
    await player.play()
    assert measured == [{"saga": "two-notes", "step": "request_payment"}] * 2


def read_rows(plan: dict[str, Any]) -> int:
    """Return how many rows of sagas the plan has read, in all of its nodes."""
    own = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) if plan.get("Relation Name") == "sagas" else 0
    return own * plan["Actual Loops"] + sum(map(read_rows, plan.get("Plans", [])))


@pytest.mark.parametrize(
    ("query", "arguments"),
    [(rows.MEASURE, []), (rows.SWEEP, [timedelta(minutes=1), 500, NOW]), (rows.FORGET, [timedelta(hours=4980), 10])],
    ids=["measure", "sweep", "forget"],
)
async def test_a_sweep_reads_only_the_sagas_that_its_statement_is_about(
    orders: Database, query: str, arguments: list[Any]
) -> None:
    await orders.execute("""
        INSERT INTO chassis.sagas (id, name, key, version, params, state, due_at, ended_at)
        SELECT gen_random_uuid(), 'place-order', number::text, 1, '{}', CASE WHEN active THEN 'running' ELSE 'completed' END,
            CASE WHEN active THEN now() - interval '1 day' END, CASE WHEN NOT active THEN now() - interval '1 hour' * number END
        FROM generate_series(1, 5000) AS number, LATERAL (SELECT number % 500 = 0 AS active)
    """)
    await orders.execute("ANALYZE chassis.sagas")
    async with orders.unit_of_work() as uow:
        explained = await uow.connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT json) {query}", *arguments)
    [found] = json.loads(explained)
    assert 10 <= read_rows(found["Plan"]) <= 30


async def test_a_worker_that_stops_inside_a_step_loses_the_row_to_another_worker(
    orders: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "SPARE_SECONDS", 0)
    messages = messages_of(place_order)
    job = AdvanceSagaV1(saga_id=await start(orders))
    handler = messages.receiver(JOB).handler
    url, outbox = SecretStr(database_url), Outbox(messages)
    async with Database(url, pool_size=1, name="stopped", command_timeout_seconds=2, outbox=outbox) as stopped:
        connections = stopped.unit_of_work()
        uow = await connections.__aenter__()
        await handler(job, uow)  # and then the process is stopped, with the row locked
        async with orders.unit_of_work() as other:
            await asyncio.wait_for(handler(job, other), 60)
        assert await effects(orders) == ["reserve"]
        with pytest.raises(Exception, match=r"terminat|closed|broke"):
            await connections.__aexit__(None, None, None)
    assert await effects(orders) == ["reserve"]
