"""The messages of a use case are in the outbox if, and only if, its change is committed."""

import json
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta, tzinfo
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from chassis.brokers import Kind
from chassis.database import Database, UnitOfWork
from chassis.messages import NO_MESSAGES, Contract, Event, Messages, OnJob
from chassis.messaging.outbox import CHANNEL, Outbox, Unlisted
from chassis.telemetry.setup import Telemetry
from chassis.testing import Mailbox
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from pydantic import SecretStr

from tests.chassis.tiny_messages import MESSAGES, CountV1, ThingMade, ThingMadeV1, TidyUp, on_count


@pytest.fixture
async def rows(connection: asyncpg.Connection) -> AsyncGenerator[Any]:
    """`await rows()`: the rows of the outbox, from outside of the transaction."""

    async def rows() -> list[dict[str, Any]]:
        return [dict(row) for row in await connection.fetch("SELECT * FROM chassis.outbox ORDER BY seq")]

    await connection.execute("DELETE FROM chassis.outbox")
    yield rows
    await connection.execute("DELETE FROM chassis.outbox")


@pytest.fixture
def open_database(database_url: str) -> Any:
    def open_database(messages: Messages = MESSAGES) -> Database:
        return Database(
            SecretStr(database_url), pool_size=2, name="tiny", command_timeout_seconds=5, outbox=Outbox(messages)
        )

    return open_database


async def test_an_event_is_one_row_with_the_columns_that_debezium_routes_by(open_database: Any, rows: Any) -> None:
    thing = uuid4()
    async with open_database() as database:
        async with database.unit_of_work() as uow:
            await uow.publish(ThingMade(thing, 7))
            assert await rows() == []
        (row,) = await rows()

    assert (row["aggregatetype"], row["aggregateid"], row["type"]) == ("thing", str(thing), "tiny.thing-made.v1")
    assert json.loads(row["payload"]) == {"thing_id": str(thing), "number": 7}
    assert (row["kind"], row["content_type"], row["not_before"]) == (Kind.EVENT, "application/json", None)
    assert row["id"].version == 7


async def test_an_event_is_said_in_each_version_of_its_contract(open_database: Any, rows: Any) -> None:
    class ThingMadeV2(Contract):
        number: int

    lines = (Event(ThingMade, contract, "thing", "thing_id") for contract in (ThingMadeV1, ThingMadeV2))
    thing = uuid4()
    async with open_database(Messages("tiny", tuple(lines))) as database, database.unit_of_work() as uow:
        await uow.publish(ThingMade(thing, 7))
    first, second = await rows()
    assert [row["type"] for row in (first, second)] == ["tiny.thing-made.v1", "tiny.thing-made.v2"]
    assert {(row["aggregatetype"], row["aggregateid"]) for row in (first, second)} == {("thing", str(thing))}
    assert first["id"] != second["id"]
    assert json.loads(second["payload"]) == {"number": 7}


async def test_a_transaction_that_fails_stores_no_message(open_database: Any, rows: Any) -> None:
    async def fail() -> None:
        async with database.unit_of_work() as uow:
            await uow.publish(ThingMade(uuid4(), 7))
            await uow.enqueue(TidyUp(uuid4()))
            raise RuntimeError

    async with open_database() as database:
        with pytest.raises(RuntimeError):
            await fail()
    assert await rows() == []


async def test_events_keep_the_order_of_publication(open_database: Any, rows: Any) -> None:
    thing = uuid4()
    async with open_database() as database, database.unit_of_work() as uow:
        await uow.publish(*(ThingMade(thing, number) for number in range(3)))
    assert [json.loads(row["payload"])["number"] for row in await rows()] == [0, 1, 2]


async def test_a_job_can_be_delayed_and_has_a_key_of_its_own(open_database: Any, rows: Any) -> None:
    async with open_database() as database, database.unit_of_work() as uow:
        await uow.enqueue(TidyUp(uuid4()))
        await uow.enqueue(TidyUp(uuid4()), after=timedelta(days=7))
    at_once, later = await rows()
    assert at_once["not_before"] is None
    assert abs(later["not_before"] - later["created_at"] - timedelta(days=7)) < timedelta(minutes=1)
    assert (at_once["kind"], at_once["type"]) == (Kind.JOB, "tiny.tidy-up.v1")
    assert UUID(at_once["aggregateid"]) == at_once["id"]


async def test_the_delay_of_a_job_is_the_same_where_the_clock_of_the_process_is_slow(
    open_database: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) - timedelta(minutes=10)

    monkeypatch.setattr("chassis.messaging.outbox.datetime", Slow, raising=False)
    async with open_database() as database, database.unit_of_work() as uow:
        await uow.enqueue(TidyUp(uuid4()), after=timedelta(hours=1))
    (row,) = await rows()
    assert timedelta(0) <= row["not_before"] - row["created_at"] - timedelta(hours=1) < timedelta(minutes=1)


async def test_the_delay_of_a_job_begins_at_the_call_of_enqueue_not_with_the_transaction(
    open_database: Any, rows: Any
) -> None:
    async with open_database() as database, database.unit_of_work() as uow:
        await uow.connection.execute("SELECT pg_sleep(0.2)")
        await uow.enqueue(TidyUp(uuid4()), after=timedelta(hours=1))
    (row,) = await rows()
    assert row["not_before"] - row["created_at"] >= timedelta(hours=1, seconds=0.2)


async def test_a_row_carries_the_trace_of_its_request(open_database: Any, rows: Any) -> None:
    telemetry = Telemetry(Resource({}), sampler=ALWAYS_ON, span_processors=[], metric_readers=[])
    async with open_database() as database, database.unit_of_work() as uow:
        with telemetry.tracer.start_as_current_span("request") as span:
            await uow.publish(ThingMade(uuid4(), 7))
    (row,) = await rows()
    context = span.get_span_context()
    _, trace_id, span_id, _ = row["traceparent"].split("-")
    assert (int(trace_id, 16), int(span_id, 16)) == (context.trace_id, context.span_id)


async def test_the_mailbox_of_a_teams_tests_shows_and_delivers_the_subjects_of_messages(
    open_database: Any, rows: Any
) -> None:
    seen: list[str | None] = []

    async def on_count(_: CountV1, uow: UnitOfWork) -> None:
        seen.append(uow.subject)

    async with open_database() as database:
        async with database.unit_of_work() as uow:
            uow.subject = "ana"
            await uow.publish(ThingMade(uuid4(), 7))
        mailbox = Mailbox(database, Messages("tiny", incoming=(OnJob(CountV1, on_count),)))
        assert [(sent.name, sent.subject) for sent in await mailbox.sent()] == [("tiny.thing-made.v1", "ana")]
        await mailbox.receive("tiny.count.v1", CountV1(number=1), subject="ben")
        await mailbox.receive("tiny.count.v1", CountV1(number=1))
        assert seen == ["ben", None]
        await database.execute("DELETE FROM chassis.inbox")


async def test_a_commit_notifies_the_relay(open_database: Any, rows: Any, connection: asyncpg.Connection) -> None:
    heard: list[str] = []
    await connection.add_listener(CHANNEL, lambda *arguments: heard.append(arguments[2]))
    async with open_database() as database, database.unit_of_work() as uow:
        await uow.publish(ThingMade(uuid4(), 7))
        await connection.fetchval("SELECT 1")
        assert heard == []
    await connection.fetchval("SELECT 1")
    assert heard == [CHANNEL]


async def test_a_service_that_publishes_no_events_stores_none(open_database: Any, rows: Any) -> None:
    jobs_only = Messages("tiny", incoming=(OnJob(CountV1, on_count),))
    for messages in (NO_MESSAGES, jobs_only):
        async with open_database(messages) as database, database.unit_of_work() as uow:
            await uow.publish(ThingMade(uuid4(), 7))
    assert await rows() == []


async def test_an_event_without_a_line_is_refused_and_named_where_others_have_a_line(open_database: Any) -> None:
    async with open_database() as database:
        with pytest.raises(Unlisted, match=r"int has no line Event\(int, …\) in OUTGOING of messaging/"):
            async with database.unit_of_work() as uow:
                await uow.publish(1)


async def test_a_job_without_a_line_is_refused_always(open_database: Any) -> None:
    async with open_database(NO_MESSAGES) as database:
        with pytest.raises(Unlisted, match=r"TidyUp has no line Job\(TidyUp, …\)"):
            async with database.unit_of_work() as uow:
                await uow.enqueue(TidyUp(uuid4()))


async def test_a_job_is_not_published_as_an_event(open_database: Any) -> None:
    async with open_database() as database:
        with pytest.raises(Unlisted, match=r"Event\(TidyUp"):
            async with database.unit_of_work() as uow:
                await uow.publish(TidyUp(uuid4()))
