"""The cost of sagas that wait for an answer for days: bench/sagas.py shows it."""

import json
import time
from datetime import UTC, datetime, timedelta
from statistics import median

from chassis.database import Database
from chassis.sagas import rows
from chassis.sagas.sweep import BATCH, FORGOTTEN, Sweep
from chassis.telemetry.setup import Telemetry
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from structlog.testing import capture_logs

from tests.service.chaos.shop import main as shop

IDLE, KEEP = timedelta(minutes=1), timedelta(days=30)
TELEMETRY = Telemetry(Resource({}), sampler=ALWAYS_OFF, span_processors=[], metric_readers=[])
STEPS = [{"name": name, "at": "2026-11-30T12:00:00+00:00", "result": None} for name in ("reserve", "request")]
FILL = """
    INSERT INTO chassis.sagas (id, name, key, version, state, position, turn, params, steps, deadline, due_at, ended_at)
    SELECT gen_random_uuid(), 'place-order', $3 || n, 1, $2, 'CardChargedV1 | CardRefusedV1', 2, json_build_object('number', n), $4,
        now() + interval '3 days', CASE WHEN $2 = 'waiting' THEN now() + interval '3 days' END,
        CASE WHEN $2 = 'completed' THEN now() END
    FROM generate_series(1, $1) AS n
"""
FILL_OUTBOX = """
    INSERT INTO chassis.outbox (id, kind, aggregatetype, aggregateid, type, payload, not_before)
    SELECT gen_random_uuid(), 'job', 'advance-saga', id::text, 'shop.advance-saga.v1',
        json_build_object('saga_id', id, 'turn', turn), deadline FROM chassis.sagas WHERE state = 'waiting'
"""
SIZE = """
    SELECT pg_table_size('chassis.sagas') / 1e6, pg_indexes_size('chassis.sagas') / 1e6,
        pg_total_relation_size('chassis.outbox') / 1e6
"""


async def fill(opened: Database, waiting: int) -> None:
    """Empty the tables, and store sagas that wait for three days, with the delayed jobs of their time-outs."""
    await opened.execute("TRUNCATE chassis.sagas, chassis.outbox, chassis.inbox")
    await opened.execute(FILL, waiting, "waiting", "waiting ", json.dumps(STEPS))
    await opened.execute(FILL_OUTBOX)
    await opened.execute("ANALYZE chassis.sagas, chassis.outbox")


async def show(opened: Database, waiting: int) -> None:
    """Show the size of the tables, and the statements of the sweep; then the same with four times as many ended sagas."""
    await fill(opened, waiting)
    table, indexes, outbox = await opened.fetchrow(SIZE)
    print(
        f"{waiting:,} waiting sagas: table {table:.0f} MB, indexes {indexes:.0f} MB, their delayed jobs in the outbox {outbox:.0f} MB"
    )
    await _show_sweep(opened)
    ended = waiting * 4
    await opened.execute(FILL, ended, "completed", "completed ", json.dumps(STEPS))
    await opened.execute("ANALYZE chassis.sagas")
    print(f"with {ended:,} ended sagas, which are kept for 30 days:")
    await _show_sweep(opened)
    await opened.execute("UPDATE chassis.sagas SET due_at = now() WHERE ended_at IS NULL")
    began = time.perf_counter()
    with capture_logs():  # the sweep logs a line for each batch
        swept = await Sweep(opened, shop.messages_of(1).sagas, TELEMETRY).sweep()
    seconds = time.perf_counter() - began
    print(f"  all are idle at once: {swept:,} jobs in {seconds:.1f} s, {seconds / swept * BATCH * 1000:.0f} ms a batch")


async def _show_sweep(opened: Database) -> None:
    for name, statement, arguments in (
        ("find idle sagas", rows.SWEEP, (IDLE, BATCH, datetime.now(UTC))),
        ("measure", rows.MEASURE, ()),
        ("forget", rows.FORGET, (KEEP, FORGOTTEN)),
    ):
        times = []
        for _ in range(5):
            began = time.perf_counter()
            await opened.fetch(statement, *arguments)
            times.append((time.perf_counter() - began) * 1000)
        print(f"  {name}: {median(times):.1f} ms")
