"""The relay sends the whole outbox, in order within a key, from one replica at a time, during all kinds of failures."""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from statistics import median
from uuid import UUID, uuid4

import asyncpg
import pytest
from chassis.brokers import (
    BrokerUnavailable,
    DestinationUnavailable,
    Kind,
    Message,
    MessageRefused,
    Options,
    broker_for,
)
from chassis.brokers.nats.broker import NatsBroker
from chassis.database import Database, UnitOfWork, leadership
from chassis.messages import Messages
from chassis.messaging import destinations, in_flight, message_log, relay, relay_queries
from chassis.messaging.gauges import Gauges
from chassis.messaging.outbox import Outbox
from chassis.messaging.relay import LOCK, Relay
from chassis.messaging.relay_queries import BATCH
from chassis.messaging.topology import topology_of
from chassis.settings import Settings
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from pydantic import SecretStr
from structlog.testing import CapturingLogger

from tests.chassis import tiny_messages
from tests.chassis.each_broker import Run, each_of
from tests.chassis.running import recording, running
from tests.chassis.tiny_messages import MESSAGES, MessageLines, ThingMade, TidyUp
from tests.support.link import Link

WAIT_SECONDS = 90
SILENCE_SECONDS = 5
"""How long a publisher waits for a broker that does not answer."""
OFTEN_SECONDS = 0.1


class Recorder:
    """The half of a broker that a relay uses. It records the messages, and can refuse them."""

    system = "memory"

    def __init__(self) -> None:
        self.got: list[Message] = []
        self.got_at: list[float] = []
        self.refuses: set[int] = set()
        self.breaks_on: set[int] = set()
        self.away = False
        self.unavailable: set[str] = set()
        """The names of messages that the broker refuses as unavailable."""
        self.silent: set[str] = set()
        """The names of messages that the broker does not answer."""
        self.asked: Counter[str] = Counter()
        self.slowly = 0.0
        self.answers = asyncio.Event()
        self.answers.set()
        self.answers_at_most: int | None = None
        """After this number of messages the broker does not answer until `answers` is set."""
        self.in_hand = 0
        self.most_in_hand = 0

    async def publish(self, message: Message) -> None:
        self.asked[message.name] += 1
        self.in_hand += 1
        self.most_in_hand = max(self.most_in_hand, self.in_hand)
        try:
            await asyncio.sleep(self.slowly)
            await self.answers.wait()
            if self.away:
                raise BrokerUnavailable("away")
            if message.name in self.unavailable:
                raise DestinationUnavailable("full")
            if message.name in self.silent:
                await asyncio.sleep(SILENCE_SECONDS)
                raise BrokerUnavailable("no answer")
            if number_of(message) in self.refuses:
                raise MessageRefused("too large")
            if number_of(message) in self.breaks_on:
                raise ValueError("the client of the broker cannot encode it")
            if len(self.got) == self.answers_at_most:
                self.answers_at_most = None
                self.answers.clear()
                await self.answers.wait()
            self.got.append(message)
            self.got_at.append(time.monotonic())
        finally:
            self.in_hand -= 1

    def got_of(self, name: str) -> int:
        return sum(message.name == name for message in self.got)


def number_of(message: Message) -> int | None:
    return json.loads(message.body).get("number")


class Bench:
    def __init__(self, url: str, connection: asyncpg.Connection) -> None:
        self.url = url
        self.connection = connection
        self.broker = Recorder()
        self.spans = InMemorySpanExporter()
        self.telemetry = recording(self.spans)

    @asynccontextmanager
    async def relaying(
        self, broker: Recorder | None = None, *, sends_events: bool = True, log_messages: bool = False
    ) -> AsyncGenerator[None]:
        relay = Relay(
            self.url,
            broker or self.broker,
            self.telemetry,
            name="tiny",
            events=sends_events,
            log_messages=log_messages,
        )
        async with running("relay", relay.run):
            yield

    async def say(self, *said: object, after: timedelta = timedelta(0)) -> None:
        """Publish the events and enqueue the jobs, all in one transaction."""
        outbox = Outbox(MESSAGES)
        async with self.connection.transaction():
            for one in said:
                if isinstance(one, TidyUp):
                    await outbox.enqueue(self.connection, one, after=after)
                else:
                    await outbox.publish(self.connection, [one])

    async def waiting(self) -> int:
        return await self.connection.fetchval("SELECT count(*) FROM chassis.outbox")

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():  # noqa: ASYNC110 (what we wait for has no event)
                await asyncio.sleep(0.005)

    async def until_sent(self, count: int) -> None:
        await self.until(lambda: len(self.broker.got) >= count)

    async def until_empty(self) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while await self.waiting():  # noqa: ASYNC110 (what we wait for is in the database)
                await asyncio.sleep(0.01)


@pytest.fixture
async def bench(
    database_url: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Bench]:
    monkeypatch.setattr(leadership, "PROOF_SECONDS", 0.2)
    monkeypatch.setattr(
        leadership, "LEASE_SECONDS", WAIT_SECONDS
    )  # no relay loses the lead because the machine is slow
    monkeypatch.setattr(leadership, "HANDOVER_SECONDS", 4.5)
    yield Bench(database_url, connection)
    await connection.execute("DELETE FROM chassis.outbox; DELETE FROM chassis.parked; DELETE FROM chassis.leaders")


def events(count: int, *, things: int = 1) -> list[ThingMade]:
    return [ThingMade(UUID(int=number % things), number) for number in range(count)]


async def test_a_row_is_sent_unchanged_and_then_deleted(bench: Bench) -> None:
    await bench.say(*events(1))
    stored = await bench.connection.fetchval("SELECT id FROM chassis.outbox")
    async with bench.relaying():
        await bench.until_empty()
    (message,) = bench.broker.got
    assert (message.kind, message.name, message.id) == (Kind.EVENT, "tiny.thing-made.v1", str(stored))
    assert message.key == str(UUID(int=0))
    assert json.loads(message.body) == {"thing_id": message.key, "number": 0}
    assert message.headers["content-type"] == "application/json"


@pytest.mark.parametrize("log_messages", [True, False])
async def test_a_sent_message_is_logged_in_its_trace_if_log_messages_is_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, log_messages: bool
) -> None:
    monkeypatch.setattr(message_log, "log", lines := MessageLines())
    with bench.telemetry.tracer.start_as_current_span("request") as request:
        await bench.say(*events(2))
    async with bench.relaying(log_messages=log_messages):
        await bench.until_empty()
    sent = [("message_sent", message.name, message.id, message.key) for message in bench.broker.got]
    trace_id = format(request.get_span_context().trace_id, "032x")
    assert lines.logged == ([(*each, trace_id) for each in sent] if log_messages else [])


async def test_an_event_that_is_published_again_has_the_header_of_its_run(bench: Bench) -> None:
    async with bench.connection.transaction():
        await Outbox(MESSAGES).publish(bench.connection, events(1), run="run-1")
        await Outbox(MESSAGES).publish(bench.connection, events(1))
    async with bench.relaying():
        await bench.until_empty()
    assert [message.headers.get("republished") for message in bench.broker.got] == ["run-1", None]


async def test_a_message_carries_the_subject_of_its_unit_of_work_and_a_state_that_is_published_again_carries_none(
    bench: Bench,
) -> None:
    async with bench.connection.transaction():
        uow = UnitOfWork(bench.connection, Outbox(MESSAGES))
        uow.subject = "auth0|Zoë 17"
        await uow.publish(*events(1))
        await uow.enqueue(TidyUp(UUID(int=1)))
        await Outbox(MESSAGES).publish(bench.connection, events(1), run="run-1")
    async with bench.relaying():
        await bench.until_empty()
    found = [message.headers.get("subject") for message in sorted(bench.broker.got, key=lambda one: one.id)]
    assert found == ["auth0|Zoë 17", "auth0|Zoë 17", None]


async def test_where_another_program_sends_events_the_relay_deletes_events_and_sends_jobs(bench: Bench) -> None:
    await bench.say(*events(3), TidyUp(UUID(int=0)))
    async with bench.relaying(sends_events=False):
        await bench.until_empty()
    assert [message.kind for message in bench.broker.got] == [Kind.JOB]


async def test_a_commit_is_sent_at_once_not_at_the_next_poll(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "POLL_SECONDS", 10 * WAIT_SECONDS)
    async with bench.relaying():
        await bench.say(*events(1))
        await bench.until_sent(1)
        await asyncio.sleep(0.1)  # the relay has nothing to do, and waits
        await bench.say(*events(1))
        await bench.until_sent(2)


async def test_more_rows_than_a_batch_all_go_in_order_within_their_keys(bench: Bench) -> None:
    total = BATCH + 200
    await bench.say(*events(total, things=7))
    async with bench.relaying():
        await bench.until_empty()
    assert len(bench.broker.got) == total
    for key in {message.key for message in bench.broker.got}:
        numbers = [number_of(message) for message in bench.broker.got if message.key == key]
        assert numbers == sorted(numbers)


async def test_large_rows_are_in_flight_up_to_a_number_of_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "IN_FLIGHT_BYTES", 100_000, raising=False)
    bench.broker.slowly = 0.02
    await store(bench, *((MADE, str(number % 50), number) for number in range(200)), filled=10_000)
    async with bench.relaying():
        await bench.until_empty()
    assert bench.broker.most_in_hand < 20
    for key in {message.key for message in bench.broker.got}:
        numbers = [number_of(message) for message in bench.broker.got if message.key == key]
        assert numbers == sorted(numbers)
    assert len(bench.broker.got) == 200


async def test_the_database_reads_no_bodies_of_rows_that_are_not_returned(bench: Bench) -> None:
    digits = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 2000))"
    await bench.connection.execute(
        "INSERT INTO chassis.outbox (id, kind, aggregatetype, aggregateid, type, payload) "
        f"SELECT gen_random_uuid(), 'event', 'thing', number, 'a.v1', json_build_object('text', {digits}) "
        "FROM generate_series(1, 50) AS number"
    )

    async def blocks_for(size: int, *, rows: int) -> int:
        before = await blocks_of_bodies(bench.connection)
        found = await relay_queries.read(bench.connection, BATCH, relay_queries.Excluded([], []), size=size)
        assert len(found) == rows
        return await blocks_of_bodies(bench.connection) - before

    two, all_of_them = await blocks_for(100_000, rows=2), await blocks_for(10**9, rows=50)
    await bench.connection.execute("DELETE FROM chassis.outbox")
    assert two < all_of_them / 10


async def blocks_of_bodies(connection: asyncpg.Connection) -> int:
    """Return how many blocks of large values of the outbox have been read since the database began."""
    await connection.execute("SELECT pg_stat_force_next_flush()")
    return await connection.fetchval(
        "SELECT toast_blks_read + toast_blks_hit FROM pg_statio_all_tables WHERE relid = 'chassis.outbox'::regclass"
    )


async def test_a_row_that_is_larger_than_all_that_may_be_in_flight_is_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "IN_FLIGHT_BYTES", 100, raising=False)
    await store(bench, (MADE, "a", 1), (MADE, "b", 2), (CHANGED, "a", 3), filled=1000)
    async with bench.relaying():
        await bench.until_empty()
    assert (bench.broker.got_of(MADE), bench.broker.got_of(CHANGED)) == (2, 1)


async def test_keys_are_sent_at_the_same_time_and_the_messages_of_a_key_in_turn(bench: Bench) -> None:
    bench.broker.slowly = 0.02
    await bench.say(*events(6, things=3))
    async with bench.relaying():
        await bench.until_empty()
    assert bench.broker.most_in_hand == 3


@pytest.mark.slow
async def test_a_batch_is_deleted_and_another_is_read_while_a_third_is_being_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_flight, "LONG_SECONDS", WAIT_SECONDS)  # a slow machine must not count as a slow destination
    await bench.say(*events(3 * BATCH, things=3 * BATCH))
    bench.broker.answers_at_most = BATCH
    async with bench.relaying():
        await bench.until(lambda: bench.broker.in_hand == 2 * BATCH)
        assert await bench.waiting() == 2 * BATCH
        bench.broker.answers.set()
        await bench.until_empty()
    assert len(bench.broker.got) == len({message.id for message in bench.broker.got}) == 3 * BATCH


@pytest.mark.slow
async def test_a_relay_that_ends_in_the_middle_of_a_batch_loses_nothing_and_repeats_only_rows_that_were_not_deleted(
    bench: Bench,
) -> None:
    total = 3 * BATCH
    await bench.say(*events(total, things=900))
    bench.broker.answers_at_most = BATCH + 300
    relay_of_this_process = Relay(bench.url, bench.broker, bench.telemetry, name="tiny")
    task = asyncio.create_task(relay_of_this_process.run(asyncio.Event()))
    await bench.until(lambda: len(bench.broker.got) == BATCH + 300 and bench.broker.in_hand > 0)
    left = await bench.waiting()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    bench.broker.answers.set()
    async with bench.relaying():
        await bench.until_empty()
    assert len({message.id for message in bench.broker.got}) == total
    assert len(bench.broker.got) <= BATCH + 300 + left
    for key in {message.key for message in bench.broker.got}:
        first_copies = dict.fromkeys(number_of(message) for message in bench.broker.got if message.key == key)
        assert list(first_copies) == sorted(first_copies)


async def test_a_key_with_many_events_delays_no_other_key(bench: Bench) -> None:
    bench.broker.slowly = 0.01
    await store(bench, *((MADE, "busy", number) for number in range(2 * BATCH)))
    async with bench.relaying():
        await bench.until_sent(1)
        await store(bench, (MADE, "quiet", 1))
        await bench.until(lambda: "quiet" in [message.key for message in bench.broker.got])
        assert len(bench.broker.got) < BATCH
        await bench.connection.execute("DELETE FROM chassis.outbox")


async def test_a_job_waits_until_its_time(bench: Bench) -> None:
    async with bench.relaying():
        await bench.say(TidyUp(UUID(int=1)), after=timedelta(hours=1))
        await bench.say(*events(1))
        await bench.until_sent(1)
        await asyncio.sleep(0.5)
        assert [message.kind for message in bench.broker.got] == [Kind.EVENT]
        await bench.connection.execute("UPDATE chassis.outbox SET not_before = now()")  # as if the hour were over
        await bench.until_sent(2)
    assert bench.broker.got[1].name == "tiny.tidy-up.v1"


async def test_messages_wait_for_an_absent_broker_and_are_sent_on_its_return(bench: Bench) -> None:
    bench.broker.away = True
    await bench.say(*events(5, things=2))
    async with bench.relaying():
        await bench.until(lambda: bench.broker.asked.total() > 0)
        assert await bench.waiting() == 5
        bench.broker.away = False
        await bench.until_empty()
    assert sorted(number_of(message) or 0 for message in bench.broker.got) == list(range(5))


async def test_a_message_that_the_broker_refuses_is_parked_and_holds_up_nothing(bench: Bench) -> None:
    bench.broker.refuses = {1}
    await bench.say(*events(3))
    async with bench.relaying():
        await bench.until_empty()
    assert [number_of(message) for message in bench.broker.got] == [0, 2]
    parked = await bench.connection.fetchrow("SELECT * FROM chassis.parked")
    assert (parked["direction"], parked["reason"], json.loads(parked["body"])["number"]) == ("outgoing", "too large", 1)


JOB, MADE, CHANGED = "tiny.tidy-up.v1", "tiny.thing-made.v1", "tiny.thing-changed.v1"


async def store(bench: Bench, *rows: tuple[str, str, int], filled: int = 0) -> None:
    """Commit events: name, key, number. Their payloads have at least `filled` bytes."""
    await bench.connection.executemany(
        "INSERT INTO chassis.outbox (id, kind, aggregatetype, aggregateid, type, payload) VALUES "
        "(gen_random_uuid(), 'event', 'thing', $2, $1, json_build_object('number', $3::int, 'text', repeat('x', $4)))",
        [(*row, filled) for row in rows],
    )


async def typical_wait(bench: Bench, *, seconds: float) -> float:
    """Commit an event again and again, and return how long a typical one of them took to the broker.

    The slowest one would tell how busy this machine is. A destination that delays others delays each event.
    """
    waits: list[float] = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends or len(waits) < 10:
        before, committed_at = bench.broker.got_of(MADE), time.monotonic()
        await bench.say(*events(1))
        await bench.until(lambda: bench.broker.got_of(MADE) > before)  # noqa: B023 (it is awaited here)
        waits.append(time.monotonic() - committed_at)
        await asyncio.sleep(OFTEN_SECONDS)
    return median(waits)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, BATCH + 200])
@pytest.mark.parametrize("failing", ["unavailable", "silent"])
async def test_a_destination_that_takes_nothing_delays_no_other_destination(
    bench: Bench, failing: str, count: int
) -> None:
    getattr(bench.broker, failing).add(JOB)
    await bench.say(*[TidyUp(UUID(int=number)) for number in range(count)])
    async with bench.relaying():
        await bench.until(lambda: bench.broker.asked[JOB] > 0)
        assert await typical_wait(bench, seconds=5) < SILENCE_SECONDS / 2
        assert bench.broker.asked[JOB] <= BATCH + 20, "a few rows show whether the destination is back"
        bench.broker.unavailable.clear()
        bench.broker.silent.clear()
        await bench.until_empty()
    assert bench.broker.got_of(JOB) == count


@pytest.mark.slow
@pytest.mark.parametrize("name", each_of("nats"))
@pytest.mark.parametrize("count", [1, BATCH + 100])
async def test_a_full_stream_of_jobs_delays_no_event(bench: Bench, run: Run, name: str, count: int) -> None:
    messages = Messages(f"tiny-{uuid4().hex[:8]}", tiny_messages.MESSAGES.outgoing)
    broker = broker_for(Options(SecretStr(run(name).url), "tiny", publish_timeout_seconds=WAIT_SECONDS))
    assert isinstance(broker, NatsBroker)
    await broker.connect()
    await broker.declare(topology_of(messages))
    jetstream = await broker.connection.ready()
    jobs = await jetstream.stream_info(f"{messages.service}-jobs")
    await jetstream.update_stream(jobs.config, max_msgs=1, discard="new")
    outbox = Outbox(messages)

    async def commit(message: object) -> None:
        async with bench.connection.transaction():
            if isinstance(message, TidyUp):
                await outbox.enqueue(bench.connection, message, after=timedelta(0))
            else:
                await outbox.publish(bench.connection, [message])

    for number in range(1 + count):
        await commit(TidyUp(UUID(int=number)))
    an_event_waits = "SELECT EXISTS (SELECT FROM chassis.outbox WHERE kind = 'event')"
    waits: list[float] = []
    async with running("relay", Relay(bench.url, broker, bench.telemetry, name=messages.service).run):
        for event in events(40):
            await commit(event)
            committed_at = time.monotonic()
            while await bench.connection.fetchval(an_event_waits):  # noqa: ASYNC110 (the event is in the database)
                await asyncio.sleep(0.01)
            waits.append(time.monotonic() - committed_at)
            await asyncio.sleep(OFTEN_SECONDS)
        assert median(waits) < SILENCE_SECONDS / 2
        assert await bench.waiting() == count
        await jetstream.update_stream(jobs.config, max_msgs=-1)
        await bench.until_empty()
    await broker.close()


@pytest.mark.slow
async def test_rows_that_a_failed_destination_holds_up_are_not_read_again_for_other_rows(bench: Bench) -> None:
    stuck = 5_000
    bench.broker.unavailable.add(MADE)
    await store(bench, *((MADE if number % 2 else CHANGED, str(number // 2 % 100), number) for number in range(stuck)))
    await store(bench, (CHANGED, "other", 0))
    async with bench.relaying():
        await bench.until_sent(1)
        before = await rows_read(bench)
        sent = len(bench.broker.got)
        for number in range(20):
            await store(bench, (CHANGED, f"other {number}", number))
            await bench.until_sent(sent + number + 1)
        assert await rows_read(bench) - before < 1000
        bench.broker.unavailable.clear()
        await bench.until_empty()
    for key in {message.key for message in bench.broker.got}:
        numbers = [number_of(message) or 0 for message in bench.broker.got if message.key == key]
        assert numbers == sorted(numbers)


async def rows_read(bench: Bench) -> int:
    """Return how many rows of the outbox the server has read so far, for all sessions."""
    await bench.connection.execute("SELECT pg_stat_force_next_flush()")
    await asyncio.sleep(2.5)  # the relay's session reports its statistics only with a statement a second later
    return await bench.connection.fetchval(
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relid = 'chassis.outbox'::regclass"
    )


@pytest.mark.slow
async def test_a_burst_into_an_outbox_without_statistics_is_read_a_few_times_at_most(bench: Bench) -> None:
    await store_many(bench, BURST)
    before = await rows_read(bench)
    async with bench.relaying():
        await bench.until_sent(5 * BATCH)
    assert await rows_read(bench) - before < 4 * (len(bench.broker.got) + BATCH)


@pytest.mark.slow
async def test_the_age_of_a_burst_is_found_without_reading_all_rows(bench: Bench) -> None:
    await store_many(bench, BURST)
    before = await rows_read(bench)
    url = SecretStr(bench.url)
    async with Database(url, pool_size=1, name="tiny", command_timeout_seconds=30, outbox=Outbox(MESSAGES)) as database:
        gauges = Gauges(MESSAGES, database, bench.telemetry, Settings(database_url=url))
        async with running("gauges", gauges.run):
            await bench.until(lambda: gauges.oldest_seconds > 0)
    assert gauges.waiting == BURST
    assert await rows_read(bench) - before < 1.5 * BURST  # the relay counts the rows only up to a bound


BURST = 20_000
"""The number of rows with which the planner, without statistics, prefers to sort them."""


async def store_many(bench: Bench, count: int) -> None:
    await bench.connection.execute(
        "INSERT INTO chassis.outbox (id, kind, aggregatetype, aggregateid, type, payload) "
        "SELECT gen_random_uuid(), 'event', 'thing', number % 1000, $1, "
        "json_build_object('number', number, 'text', repeat('x', 1500)) FROM generate_series(1, $2) AS number",
        MADE,
        count,
    )


async def test_the_next_relay_sends_the_messages_of_a_failed_destination_in_order(bench: Bench) -> None:
    bench.broker.unavailable.add(MADE)
    await store(bench, (MADE, "a", 1), (CHANGED, "a", 2))
    async with bench.relaying():
        await bench.until(lambda: bench.broker.asked[MADE] > 1)
        await store(bench, (CHANGED, "a", 3))
    bench.broker.unavailable.clear()
    await store(bench, (CHANGED, "a", 4))
    async with bench.relaying():
        await bench.until_empty()
    assert [number_of(message) for message in bench.broker.got] == [1, 2, 3, 4]


async def test_a_destination_stays_paused_while_its_rows_are_put_off(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destinations, "log", logged := CapturingLogger())
    bench.broker.unavailable.add(JOB)
    await bench.say(TidyUp(UUID(int=0)))
    async with bench.relaying():
        await bench.until(lambda: bench.broker.asked[JOB] >= 2)
        await bench.connection.execute("UPDATE chassis.outbox SET not_before = now() + interval '1 hour'")
        await asyncio.sleep(0.5)
        transactions = await transactions_so_far(bench)
        await asyncio.sleep(1)
        assert await transactions_so_far(bench) - transactions < 100, "the relay waits, it does not spin"
        asked = bench.broker.asked[JOB]
        await bench.say(*[TidyUp(UUID(int=number)) for number in range(BATCH)])
        await bench.until(lambda: bench.broker.asked[JOB] > asked)
        await asyncio.sleep(0.2)
        assert bench.broker.asked[JOB] < asked + 20
    assert "destination_restored" not in [call.args[0] for call in logged.calls]


async def transactions_so_far(bench: Bench) -> int:
    await bench.connection.execute("SELECT pg_stat_force_next_flush()")
    return await bench.connection.fetchval(
        "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    )


async def test_an_event_does_not_overtake_an_event_of_its_key_whose_destination_fails(bench: Bench) -> None:
    bench.broker.unavailable.add(MADE)
    await store(bench, (MADE, "a", 1), (CHANGED, "a", 2), (MADE, "b", 3), (CHANGED, "c", 4), (CHANGED, "a", 5))
    async with bench.relaying():
        await bench.until_sent(1)
        await store(bench, (CHANGED, "a", 6), (CHANGED, "b", 7), (CHANGED, "c", 8))
        await bench.until_sent(2)
        assert [number_of(message) for message in bench.broker.got] == [4, 8]
        bench.broker.unavailable.clear()
        await bench.until_empty()
    for key, numbers in {"a": [1, 2, 5, 6], "b": [3, 7], "c": [4, 8]}.items():
        assert [number_of(message) for message in bench.broker.got if message.key == key] == numbers


@pytest.mark.parametrize("in_flight_bytes", [16 * 2**20, 1000])
async def test_a_destination_that_is_back_is_sent_all_in_order_also_more_than_a_batch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, in_flight_bytes: int
) -> None:
    monkeypatch.setattr(relay, "IN_FLIGHT_BYTES", in_flight_bytes, raising=False)
    bench.broker.unavailable.add(MADE)
    await store(bench, *((name, str(number % 3), number) for number in range(BATCH) for name in (MADE, CHANGED)))
    async with bench.relaying():
        await bench.until(lambda: bench.broker.asked[MADE] > 3)
        assert bench.broker.got == []
        bench.broker.unavailable.clear()
        await bench.until_empty()
    assert len(bench.broker.got) == len({message.id for message in bench.broker.got}) == 2 * BATCH
    for key in "012":
        numbers = [number_of(message) for message in bench.broker.got if message.key == key]
        assert numbers == sorted(numbers)


@pytest.mark.slow
async def test_a_destination_that_is_back_is_sent_a_few_batches_at_a_time(bench: Bench) -> None:
    bench.broker.unavailable.add(JOB)
    await bench.say(*[TidyUp(UUID(int=number)) for number in range(5 * BATCH)])
    async with bench.relaying():
        await bench.until(lambda: bench.broker.asked[JOB] > BATCH)
        bench.broker.unavailable.clear()
        bench.broker.slowly = 0.05
        await bench.until_empty()
    assert bench.broker.got_of(JOB) == 5 * BATCH
    assert bench.broker.most_in_hand <= 3 * BATCH


async def test_a_message_on_which_the_client_of_the_broker_fails_is_parked_and_holds_up_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_flight, "RETRY_SECONDS", 0.05)
    bench.broker.breaks_on = {1}
    await store(bench, (MADE, "a", 1), (MADE, "a", 2), (MADE, "b", 3))
    async with bench.relaying():
        await bench.until_empty()
    assert [number_of(message) for message in bench.broker.got] == [3, 2]
    parked = await bench.connection.fetchrow("SELECT * FROM chassis.parked")
    assert parked["reason"] == "ValueError: the client of the broker cannot encode it"
    assert parked["attempts"] == in_flight.ATTEMPTS


async def test_an_interruption_of_the_broker_is_logged_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destinations, "log", logged := CapturingLogger())
    bench.broker.away = True
    await store(bench, (MADE, "a", 1), (CHANGED, "b", 2))
    async with bench.relaying():
        await bench.until(lambda: bench.broker.asked.total() >= 6)
        bench.broker.away = False
        await bench.until_empty()
    assert [call.args[0] for call in logged.calls if call.method_name == "warning"] == ["worker_interrupted"]


async def test_the_reason_of_a_destination_is_logged_also_where_the_broker_was_away_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destinations, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(destinations, "log", logged := CapturingLogger())
    bench.broker.away = True
    await store(bench, (MADE, "a", 1))
    async with bench.relaying():
        await bench.until(lambda: bench.broker.asked[MADE] > 1)
        bench.broker.unavailable.add(MADE)
        bench.broker.away = False
        asked = bench.broker.asked[MADE]
        await bench.until(lambda: bench.broker.asked[MADE] > asked + 2)
        bench.broker.unavailable.clear()
        await bench.until_empty()
    assert [(call.args[0], call.kwargs["reason"]) for call in logged.calls if call.method_name == "warning"] == [
        ("worker_interrupted", "away"),
        ("destination_unavailable", "full"),
    ]


async def test_an_interruption_is_logged_also_where_a_destination_failed_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destinations, "log", logged := CapturingLogger())

    def told(event: str) -> list[str | None]:
        return [call.kwargs.get("name") for call in logged.calls if call.args[0] == event]

    bench.broker.unavailable.add(MADE)
    await store(bench, (MADE, "a", 1))
    async with bench.relaying():
        await bench.until(lambda: bench.broker.asked[MADE] > 1)
        bench.broker.away = True
        await store(bench, (CHANGED, "b", 2))
        await bench.until(lambda: bench.broker.asked[CHANGED] > 1)
        await bench.say(TidyUp(UUID(int=0)))
        await bench.until(lambda: bench.broker.asked[JOB] > 1)
        bench.broker.away = False
        bench.broker.unavailable.clear()
        await bench.until(lambda: len(told("destination_restored")) >= 2)
        await bench.until_empty()
        await store(bench, (JOB, "c", 3))
        await bench.until_empty()
    assert (told("destination_unavailable"), told("worker_interrupted")) == ([MADE], [None])
    assert sorted(filter(None, told("destination_restored"))) == [CHANGED, MADE], "no outage of the job was logged"


async def test_a_lost_database_is_waited_for(bench: Bench, link: Link) -> None:
    bench.url = link.url
    async with bench.relaying():
        await bench.say(*events(1))
        await bench.until_sent(1)
        link.cut()
        await bench.say(*events(1))
        await asyncio.sleep(0.5)
        link.restore()
        await bench.until_empty()
    assert len({message.id for message in bench.broker.got}) == 2


async def test_a_second_relay_stands_by_and_takes_over(bench: Bench) -> None:
    standing_by = Recorder()
    async with bench.relaying():
        await bench.say(*events(1))
        await bench.until_sent(1)
        second = bench.relaying(standing_by)
        await second.__aenter__()
        await bench.say(*events(50, things=50))
        await bench.until_empty()
        assert standing_by.got == []
    try:
        await bench.say(*events(1))
        await bench.until(lambda: len(standing_by.got) == 1)
    finally:
        await second.__aexit__(None, None, None)


@pytest.mark.slow
async def test_a_relay_that_was_deposed_without_noticing_sends_nothing_after_its_successor_does(
    bench: Bench, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "LEASE_SECONDS", 3)
    deposed = Bench(link.url, bench.connection)
    deposed.broker.slowly = 0.2
    await bench.say(*events(60))
    async with deposed.relaying():
        await deposed.until_sent(1)
        link.freeze()
        assert await bench.connection.fetchval(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND classid::bigint << 32 | objid::bigint = $1",
            LOCK,
        )
        async with bench.relaying():
            await bench.until_empty()
        link.restore()
    assert max(deposed.broker.got_at) < min(bench.broker.got_at)
    assert [number_of(message) for message in bench.broker.got] == list(range(60))


async def test_no_transaction_is_open_while_the_broker_is_spoken_to(bench: Bench) -> None:
    bench.broker.answers.clear()
    await bench.say(*events(1))
    async with bench.relaying():
        await bench.until(lambda: bench.broker.in_hand == 1)
        states = await bench.connection.fetch(
            "SELECT state FROM pg_stat_activity WHERE application_name = 'tiny-relay' AND datname = current_database()"
        )
        assert {row["state"] for row in states} == {"idle"}  # a session of an earlier test may still close
        bench.broker.answers.set()
        await bench.until_empty()


async def test_stopping_finishes_messages_that_are_being_sent(bench: Bench) -> None:
    bench.broker.answers.clear()
    await bench.say(*events(1))
    async with bench.relaying():
        await bench.until(lambda: bench.broker.in_hand == 1)
        # The broker answers in the next iteration of the event loop, after the end of this block has asked for the stop.
        asyncio.get_running_loop().call_soon(bench.broker.answers.set)
    assert len(bench.broker.got) == 1
    assert await bench.waiting() == 0


async def test_stopping_sends_no_further_row_of_a_key(bench: Bench) -> None:
    bench.broker.slowly = 0.02
    await store(bench, *((MADE, "a", number) for number in range(200)))
    async with bench.relaying():
        await bench.until_sent(1)
    assert len(bench.broker.got) < 200
    assert await bench.waiting() == 200 - len(bench.broker.got)


async def test_a_stop_that_a_single_message_holds_up_records_all_confirmed_messages(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SILENCE_SECONDS", 2 * WAIT_SECONDS)
    bench.broker.silent.add(CHANGED)
    bench.broker.slowly = 2 * in_flight.BATCH_SECONDS
    await store(bench, (MADE, "a", 1), (CHANGED, "b", 2))
    stop = asyncio.Event()
    task = asyncio.create_task(Relay(bench.url, bench.broker, bench.telemetry, name="tiny").run(stop))
    await bench.until(lambda: bench.broker.in_hand == 2)
    stop.set()
    async with asyncio.timeout(WAIT_SECONDS):
        while await bench.waiting() > 1:  # noqa: ASYNC110 (what we wait for is in the database)
            await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_events_that_debezium_has_read_are_found_without_the_jobs_that_wait(bench: Bench) -> None:
    async with bench.connection.transaction():
        await bench.connection.execute("SET LOCAL enable_seqscan = off")
        plan = await bench.connection.fetch(f"EXPLAIN {relay_queries._LOGGED}")
    assert "Seq Scan" not in str(plan)


async def test_the_message_continues_the_trace_of_the_row_through_the_relays_own_span(bench: Bench) -> None:
    with bench.telemetry.tracer.start_as_current_span("request") as request:
        await bench.say(*events(1))
    async with bench.relaying():
        await bench.until_empty()
    (send,) = [span for span in bench.spans.get_finished_spans() if span.name == "send tiny.thing-made.v1"]
    assert send.parent.span_id == request.get_span_context().span_id
    (message,) = bench.broker.got
    _, trace_id, span_id, _ = message.headers["traceparent"].split("-")
    assert (int(trace_id, 16), int(span_id, 16)) == (send.context.trace_id, send.context.span_id)


@pytest.mark.parametrize("flags", [0, TraceFlags.RANDOM_TRACE_ID])
async def test_a_trace_that_nobody_records_goes_on_unchanged_from_the_row(bench: Bench, flags: int) -> None:
    unsampled = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(flags))
    with trace.use_span(NonRecordingSpan(unsampled)):
        await bench.say(*events(1))
    async with bench.relaying():
        await bench.until_empty()
    (message,) = bench.broker.got
    assert message.headers["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-{flags:02x}"
    assert message.headers["content-type"] == "application/json"
    assert bench.spans.get_finished_spans() == ()
