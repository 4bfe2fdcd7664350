"""Messages are handled once, in order within a key, attempted again, and parked, during all kinds of failures."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import timedelta
from secrets import token_hex
from typing import Any
from uuid import UUID, uuid4

import aiormq
import asyncpg
import pytest
from aiormq import spec
from chassis.brokers import Broker, Delivery, Kind, Message, Options, broker_for
from chassis.brokers.rabbitmq.broker import RabbitBroker
from chassis.database import Database, DatabaseUnavailable, UnitOfWork, leadership
from chassis.messages import Contract, Job, Messages, OnEvent, OnJob
from chassis.messaging import lane, message_log, parking, processing
from chassis.messaging.consumer import LOCK, Consumer
from chassis.messaging.lane import Lane
from chassis.messaging.lanes import SHAPES
from chassis.messaging.outbox import Outbox
from chassis.messaging.retry_policy import RetryPolicy
from chassis.messaging.topology import topology_of
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr, field_validator
from structlog.testing import CapturingLogger

from tests.chassis import tiny_messages
from tests.chassis.each_broker import Run, each_of
from tests.chassis.memory_broker import MemoryBroker, MemorySubscription
from tests.chassis.running import recording, running
from tests.chassis.tiny_messages import MESSAGES, MessageLines, PaidV1, TidyUp, TidyUpV1
from tests.support import brokers
from tests.support.link import Link

QUICK = RetryPolicy(max_attempts=3, first_pause_seconds=0.05, longest_pause_seconds=0.2, handler_timeout_seconds=20)
STUBBORN = RetryPolicy(
    max_attempts=10_000, handler_timeout_seconds=30, first_pause_seconds=0.05, longest_pause_seconds=0.2
)
WAIT_SECONDS = 90

LEADER = f"SELECT pid FROM pg_locks WHERE granted AND locktype = 'advisory' AND classid::bigint << 32 | objid::bigint = {LOCK}"
"""The session that holds the lock of the consumers."""
STANDING_BY = """
    SELECT pid FROM pg_stat_activity AS other WHERE application_name = 'tiny-consumer' AND state = 'idle'
    AND query LIKE '%pg_try_advisory_lock%'
    AND backend_start > (SELECT backend_start FROM pg_stat_activity WHERE pid = $1)
"""
"""The sessions that asked for the lock and were refused."""


def paid(number: int, *, key: str = "a", then: str = "work", id: str | None = None) -> Message:
    body = json.dumps({"number": number, "then": then}).encode()
    return Message(Kind.EVENT, "bank.paid.v1", id or str(uuid4()), key, body)


def other_key(*, same_lane: bool) -> str:
    """Return a key that differs from "a"."""
    lanes = SHAPES[Kind.EVENT].lanes
    return next(key for key in map(str, range(1000)) if (hash(key) % lanes == hash("a") % lanes) is same_lane)


def tell_when_lanes_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let waiting handlers continue once all lanes have been asked to stop, and not before."""
    stop = Lane.stop

    def stop_and_tell(lane: Lane, **options: Any) -> None:
        stop(lane, **options)
        asyncio.get_running_loop().call_soon(tiny_messages.told.set)

    monkeypatch.setattr(Lane, "stop", stop_and_tell)


class Bench:
    """A consumer of the tests' service on a broker in memory."""

    def __init__(self, url: str, connection: asyncpg.Connection) -> None:
        self.url = url
        self.lock_url = url
        self.parking_limits: dict[str, int] = {}
        self.log_messages = False
        self.connection = connection
        options = Options(url=SecretStr(f"memory://{uuid4()}"), client_name="tiny")
        self.broker: Broker = MemoryBroker(options)
        self.messages = MESSAGES
        self.jobs_at_once: int | None = None
        self.bank = "bank"
        """the name of the service in this test that sends our events"""
        self.spans = InMemorySpanExporter()
        self.telemetry = recording(self.spans)

    async def until_begun(self, number: int, *, times: int = 1) -> None:
        """Wait until the handler has been called `times` times with that number."""

        async def begun() -> bool:
            return tiny_messages.begun.count(number) >= times

        await self.until(begun)

    @asynccontextmanager
    async def consuming(self, *, kind: Kind = Kind.EVENT, retry_policy: RetryPolicy = QUICK) -> AsyncGenerator[None]:
        async with self._consumer(kind, retry_policy) as consumer, running("consumer", consumer.run):
            yield

    @asynccontextmanager
    async def dying(self) -> AsyncGenerator[None]:
        """A consumer that crashes at the end: its database connections break, and it does nothing more."""
        async with self._consumer(Kind.EVENT, QUICK) as consumer:
            task = asyncio.create_task(consumer.run(asyncio.Event()))
            yield
            while not task.done():  # after one cancellation, the consumer would still finish its messages
                task.cancel()
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def _consumer(self, kind: Kind, retry_policy: RetryPolicy) -> AsyncGenerator[Consumer]:
        database = Database(
            SecretStr(self.url),
            pool_size=10,
            name="tiny",
            command_timeout_seconds=WAIT_SECONDS,
            outbox=Outbox(self.messages),
            observe=self.telemetry.observe_statement,
        )
        consumer = Consumer(
            kind,
            self.broker,
            database,
            self.messages,
            self.telemetry,
            database_url=self.lock_url,
            retry_policy=retry_policy,
            parking_limits=parking.ParkingLimits(database, **self.parking_limits),
            log_messages=self.log_messages,
            jobs_at_once=self.jobs_at_once,
        )
        async with database:
            yield consumer

    async def publish(self, *messages: Message) -> None:
        for message in messages:
            await self.broker.publish(replace(message, name=message.name.replace("bank.", f"{self.bank}.")))

    async def effects(self) -> list[int]:
        return [row[0] for row in await self.connection.fetch("SELECT number FROM effects ORDER BY seq")]

    async def parked(self) -> list[dict[str, Any]]:
        return [dict(row) for row in await self.connection.fetch("SELECT * FROM chassis.parked ORDER BY parked_at")]

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not await condition():  # noqa: ASYNC110 (the condition is in the database)
                await asyncio.sleep(0.01)

    async def until_effects(self, *numbers: int) -> None:
        async def there() -> bool:
            return len(await self.effects()) >= len(numbers)

        await self.until(there)
        assert await self.effects() == list(numbers)


@pytest.fixture
async def bench(
    database_url: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Bench]:
    await connection.execute(tiny_messages.EFFECTS)
    tiny_messages.told.clear()
    tiny_messages.begun.clear()
    tiny_messages.handled.clear()
    monkeypatch.setattr(leadership, "PROOF_SECONDS", 0.2)
    monkeypatch.setattr(
        leadership, "LEASE_SECONDS", WAIT_SECONDS
    )  # no replica loses the lead because the machine is slow
    monkeypatch.setattr(leadership, "HANDOVER_SECONDS", 4.5)
    bench = Bench(database_url, connection)
    await bench.broker.connect()
    await bench.broker.declare(topology_of(MESSAGES))
    yield bench
    await bench.broker.close()
    await connection.execute(
        "DROP TABLE effects; DELETE FROM chassis.inbox; DELETE FROM chassis.attempts; DELETE FROM chassis.parked;"
        "DELETE FROM chassis.leaders"
    )


@pytest.fixture(params=each_of("nats", "kafka", "rabbitmq"))
async def real(request: pytest.FixtureRequest, run: Run, bench: Bench) -> Bench:
    """The same bench on a real broker, with names that no other test uses."""
    suffix = uuid4().hex[:8]
    bench.bank = f"bank-{suffix}"
    heard = OnEvent(f"{bench.bank}.paid.v1", tiny_messages.PaidV1, tiny_messages.on_paid)
    bench.messages = Messages(f"tiny-{suffix}", incoming=(heard,))
    patient = Options(SecretStr(run(request.param).url), "tiny", partitions=1, publish_timeout_seconds=WAIT_SECONDS)
    bench.broker = broker_for(patient)
    await bench.broker.connect()
    await bench.broker.declare(topology_of(bench.messages))
    return bench


async def test_a_message_has_its_effect_and_is_acknowledged(bench: Bench) -> None:
    await bench.publish(paid(1))
    async with bench.consuming():
        await bench.until_effects(1)
    async with bench.consuming():
        await bench.publish(paid(2))
        await bench.until_effects(1, 2)


async def test_copies_of_a_message_have_one_effect(bench: Bench) -> None:
    copies = [paid(1, id="same")] * 3
    async with bench.consuming():
        await bench.publish(*copies, paid(2))
        await bench.until_effects(1, 2)
        await bench.publish(*copies, paid(3))
        await bench.until_effects(1, 2, 3)


async def test_an_id_under_two_names_is_two_messages(bench: Bench) -> None:
    job = Message(Kind.JOB, "tiny.count.v1", "same", "a", b'{"number": 2}')
    await bench.publish(paid(1, id="same"), job)
    async with bench.consuming():
        await bench.until_effects(1)
    async with bench.consuming(kind=Kind.JOB):
        await bench.until_effects(1, 2)
    assert tiny_messages.handled == ["same"]


class ErrandV1(Contract):
    """A job. `then` is the behaviour of its handler."""

    number: int
    then: str = "work"


async def on_errand(job: ErrandV1, uow: UnitOfWork) -> None:
    if job.then == "wait":
        await tiny_messages.told.wait()
    if job.then == "fail":
        raise RuntimeError("the neighbour is down")
    if job.then == "fail, then wait":
        tiny_messages.begun.append(job.number)
        if tiny_messages.begun.count(job.number) == 1:
            raise RuntimeError("the neighbour is down")
        await tiny_messages.told.wait()
    if job.then == "fail slowly":
        await asyncio.sleep(0.1)
        raise RuntimeError("the neighbour is down")
    if job.then == "make the server fail slowly":
        await asyncio.sleep(0.1)
        await uow.connection.execute("DO $$ BEGIN RAISE out_of_memory; END $$")
    if job.then == "cancel":
        shared = asyncio.ensure_future(asyncio.sleep(60))
        shared.cancel()  # as if another task that awaits the same future were cancelled
        await shared
    await uow.connection.execute("INSERT INTO effects (number) VALUES ($1)", job.number)


def errand(number: int, then: str = "work", *, key: str = "") -> Message:
    body = json.dumps({"number": number, "then": then}).encode()
    return Message(Kind.JOB, "tiny.errand.v1", str(uuid4()), key or str(uuid4()), body)


@pytest.fixture
def errands(bench: Bench) -> Bench:
    bench.messages = Messages("tiny", incoming=(OnJob(ErrandV1, on_errand),))
    return bench


async def has_done(bench: Bench, *numbers: int) -> bool:
    return sorted(await bench.effects()) == sorted(numbers)


async def test_a_job_has_the_time_limit_of_its_line(bench: Bench) -> None:
    tiny_messages.told.clear()
    quick = replace(QUICK, max_attempts=1, handler_timeout_seconds=0.05)
    patient = OnJob(ErrandV1, on_errand, timeout=timedelta(minutes=1))
    hasty = OnJob(tiny_messages.CountV1, forever, timeout=timedelta(milliseconds=50))
    bench.messages = Messages("tiny", incoming=(patient, hasty))
    count = Message(Kind.JOB, "tiny.count.v1", str(uuid4()), "a", b'{"number": 2}')
    await bench.publish(errand(1, "wait"), count)
    async with bench.consuming(kind=Kind.JOB, retry_policy=quick):
        await bench.until(bench.parked)
        tiny_messages.told.set()
        await bench.until(lambda: has_done(bench, 1))
    (parked,) = await bench.parked()
    assert parked["reason"] == "TimeoutError: it took longer than the timeout of its line (0.05 seconds)"


async def forever(job: Contract, uow: UnitOfWork) -> None:
    await asyncio.sleep(600)


async def test_a_worker_does_as_many_jobs_at_once_as_the_setting_says(errands: Bench) -> None:
    errands.jobs_at_once = 2
    busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tiny' AND state = 'idle in transaction'"

    async def two_are_busy() -> bool:
        return await errands.connection.fetchval(busy) == 2

    await errands.publish(*(errand(number, "wait") for number in range(6)))
    async with errands.consuming(kind=Kind.JOB):
        await errands.until(two_are_busy)
        await asyncio.sleep(0.1)
        assert await two_are_busy()
        tiny_messages.told.set()
        await errands.until(lambda: has_done(errands, *range(6)))


@pytest.mark.parametrize("key", ["", "the same"])
async def test_a_job_that_takes_long_holds_up_no_other(errands: Bench, key: str) -> None:
    await errands.publish(errand(0, "wait", key=key), *(errand(number, key=key) for number in range(1, 31)))
    async with errands.consuming(kind=Kind.JOB):
        await errands.until(lambda: has_done(errands, *range(1, 31)))
        tiny_messages.told.set()
        await errands.until(lambda: has_done(errands, *range(31)))


async def test_jobs_that_will_be_tried_again_hold_up_no_other(errands: Bench) -> None:
    retry_policy = RetryPolicy(
        max_attempts=3, handler_timeout_seconds=30, first_pause_seconds=60, longest_pause_seconds=60
    )
    await errands.publish(*(errand(number, "fail") for number in range(20)), *map(errand, range(20, 30)))
    async with errands.consuming(kind=Kind.JOB, retry_policy=retry_policy):
        await errands.until(lambda: has_done(errands, *range(20, 30)))


@pytest.mark.slow
@pytest.mark.parametrize("then", ["fail slowly", "make the server fail slowly"])
async def test_jobs_whose_every_attempt_takes_longer_than_the_pause_before_the_next_hold_up_no_other(
    errands: Bench, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    monkeypatch.setattr(lane, "DATABASE_PAUSE_SECONDS", 0.01)
    bad = range(5 * SHAPES[Kind.JOB].lanes)
    good = range(100, 120)
    await errands.publish(*(errand(number, then) for number in bad), *map(errand, good))
    async with errands.consuming(kind=Kind.JOB, retry_policy=STUBBORN):
        await errands.until(lambda: has_done(errands, *good))


@pytest.mark.slow
async def test_a_message_gets_its_next_attempt_however_many_slow_attempts_are_due(
    errands: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "DATABASE_PAUSE_SECONDS", 0.01)
    monkeypatch.setitem(SHAPES, Kind.JOB, replace(SHAPES[Kind.JOB], lanes=1))
    tiny_messages.told.set()
    bad = (errand(number, "make the server fail slowly") for number in range(10))
    await errands.publish(*bad, errand(100, "fail, then wait"))
    async with errands.consuming(kind=Kind.JOB, retry_policy=STUBBORN):
        await errands.until(lambda: has_done(errands, 100))


async def test_a_job_is_put_behind_no_attempt_while_a_lane_is_free(errands: Bench) -> None:
    good = range(1, 31)
    async with errands.consuming(kind=Kind.JOB):
        await errands.publish(errand(0, "fail, then wait"))
        await errands.until_begun(0, times=2)
        await errands.publish(*map(errand, good))
        await errands.until(lambda: has_done(errands, *good))
        tiny_messages.told.set()
        await errands.until(lambda: has_done(errands, 0, *good))


async def test_a_handler_that_lets_out_the_cancellation_of_another_has_failed(errands: Bench) -> None:
    await errands.publish(*(errand(number, "cancel") for number in range(SHAPES[Kind.JOB].lanes)), errand(9))
    async with errands.consuming(kind=Kind.JOB):

        async def parked() -> bool:
            return len(await errands.parked()) == SHAPES[Kind.JOB].lanes

        await errands.until(parked)
        await errands.publish(errand(10))
        await errands.until(lambda: has_done(errands, 9, 10))
    assert "what the handler waited for was cancelled" in (await errands.parked())[0]["reason"]


async def test_messages_of_a_key_keep_their_order_in_every_batch(bench: Bench) -> None:
    keys = [str(number % 7) for number in range(500)]
    await bench.publish(*(paid(number, key=key) for number, key in enumerate(keys)))
    async with bench.consuming():

        async def all_there() -> bool:
            return len(await bench.effects()) >= len(keys)

        await bench.until(all_there)
    found = await bench.effects()
    assert sorted(found) == list(range(500))
    for key in set(keys):
        of_key = [number for number in found if keys[number] == key]
        assert of_key == sorted(of_key)


async def test_a_failed_try_leaves_nothing_and_holds_back_its_own_key_alone(bench: Bench) -> None:
    await bench.publish(paid(1, then="fail until told"), paid(2), paid(3, key="b"), paid(4))
    async with bench.consuming(retry_policy=STUBBORN):
        await bench.until_effects(3)
        await bench.until_begun(1, times=3)
        assert await bench.effects() == [3]
        tiny_messages.told.set()
        await bench.until_effects(3, 1, 2, 4)
    assert await bench.parked() == []


async def test_a_message_that_keeps_failing_is_parked_with_its_reason_and_its_key_goes_on(bench: Bench) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    poison = paid(1, then="fail", id="poison")
    poison = Message(poison.kind, poison.name, poison.id, poison.key, poison.body, {"traceparent": trace})
    await bench.publish(poison, paid(2))
    async with bench.consuming():
        await bench.until_effects(2)
    (parked,) = await bench.parked()
    assert (parked["message_id"], parked["name"], parked["key"]) == ("poison", "bank.paid.v1", "a")
    assert parked["reason"] == "RuntimeError: the handler failed"
    assert parked["attempts"] == QUICK.max_attempts
    assert parked["body"] == poison.body
    assert json.loads(parked["headers"])["traceparent"] == trace


@pytest.mark.slow
async def test_a_message_that_kills_the_process_is_parked_and_others_go_on(real: Bench) -> None:
    await real.publish(
        paid(1, then="wait until told"), paid(2, key=other_key(same_lane=True)), paid(3, key=other_key(same_lane=False))
    )
    for deaths in range(QUICK.max_attempts):
        async with real.dying():
            await real.until_begun(1, times=deaths + 1)
    async with real.consuming():
        await real.until(real.parked)
        await real.publish(paid(4))

        async def others_there() -> bool:
            return sorted(await real.effects()) == [2, 3, 4]

        await real.until(others_there)
    (parked,) = await real.parked()
    assert json.loads(parked["body"])["number"] == 1
    assert parked["reason"] == "Deadly: 3 workers crashed while they processed the message"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"number": -1}', "it breaks the contract PaidV1\n  number: Input should be greater than or equal to 0"),
        (b"{}", "it breaks the contract PaidV1\n  number: Field required"),
        (b"not json", "it breaks the contract PaidV1\n  body: Invalid JSON: expected ident at line 1 column 2"),
        (b"\xff\x00", "it breaks the contract PaidV1\n  body: Invalid JSON"),
    ],
)
async def test_a_malformed_message_is_parked_at_once_with_the_reason(bench: Bench, body: bytes, reason: str) -> None:
    await bench.publish(Message(Kind.EVENT, "bank.paid.v1", "bad", "a", body), paid(2))
    async with bench.consuming():
        await bench.until_effects(2)
    (parked,) = await bench.parked()
    assert parked["reason"].startswith(reason)
    assert (parked["attempts"], parked["body"]) == (1, body)


async def test_a_malformed_message_is_parked_with_one_attempt_also_after_an_outage(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    outages, park = 3, parking.park

    async def park_after_the_outage(*arguments: Any, **options: Any) -> None:
        nonlocal outages
        outages -= 1
        if outages >= 0:
            raise DatabaseUnavailable("the server refuses")
        await park(*arguments, **options)

    monkeypatch.setattr(parking, "park", park_after_the_outage)
    monkeypatch.setattr(lane, "DATABASE_PAUSE_SECONDS", 0.02)
    await bench.publish(replace(paid(1), body=b"{}"))
    async with bench.consuming():
        await bench.until(bench.parked)
    (parked,) = await bench.parked()
    assert parked["reason"].startswith("it breaks the contract PaidV1")
    assert parked["attempts"] == 1


async def test_a_message_that_the_client_library_cannot_decode_is_parked_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = MemorySubscription.fetch

    async def fetch_and_spoil(*arguments: Any, **options: Any) -> list[Delivery]:
        fetched = await fetch(*arguments, **options)
        for delivery in fetched:
            if delivery.message.id == "bad":
                delivery.unreadable = "offset 7 of partition 0 cannot be decoded"
        return fetched

    monkeypatch.setattr(MemorySubscription, "fetch", fetch_and_spoil)
    await bench.publish(Message(Kind.EVENT, "bank.paid.v1", "bad", "a", b""), paid(2))
    async with bench.consuming():
        await bench.until_effects(2)
    (parked,) = await bench.parked()
    assert parked["reason"] == "Unreadable: offset 7 of partition 0 cannot be decoded"
    assert (parked["attempts"], parked["message_id"]) == (1, "bad")


async def test_a_message_that_nobody_takes_is_parked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench.consuming():
        monkeypatch.delitem(MESSAGES.receivers, "bank.paid.v1")
        await bench.publish(paid(1))

        await bench.until(bench.parked)
    (row,) = await bench.parked()
    assert row["reason"] == "Unknown: bank.paid.v1 has no line in INCOMING of messaging/: add one"


async def test_a_handler_that_hangs_is_a_failed_try(bench: Bench) -> None:
    impatient = RetryPolicy(max_attempts=1, handler_timeout_seconds=0.5)
    await bench.publish(paid(1, then="wait until told"))
    async with bench.consuming(retry_policy=impatient):
        await bench.until(bench.parked)
    (parked,) = await bench.parked()
    assert await bench.effects() == []
    assert parked["reason"] == "TimeoutError: it took longer than MESSAGE_TIMEOUT_SECONDS (0.5)"


@pytest.mark.slow
@pytest.mark.parametrize(("body", "parked"), [(None, 0), (b"{}", 1)])
async def test_an_id_that_postgres_cannot_keep_holds_up_nothing(real: Bench, body: bytes | None, parked: int) -> None:
    odd = paid(1, id="\0")
    await real.publish(odd if body is None else replace(odd, body=body), paid(2))
    async with real.consuming():
        await real.until_effects(*[2] if parked else [1, 2])
    assert len(await real.parked()) == parked


LONG = token_hex(3000)
"""Random, because Postgres compresses a value before it compares it with the limit of an index."""


async def publish_foreign(bench: Bench, message: Message) -> None:
    """Publish like a foreign sender, whose identity does not fit into RabbitMQ's own property."""
    if not isinstance(bench.broker, RabbitBroker):
        await bench.publish(message)
        return
    connection = await aiormq.connect(bench.broker.connections.options.url.get_secret_value())
    channel = await connection.channel()
    headers = {"id": message.id, "key": message.key, **message.headers}
    await channel.basic_publish(
        message.body,
        exchange=bench.bank,
        routing_key=f"{bench.bank}.paid.v1",
        properties=spec.Basic.Properties(headers=headers),
    )
    await connection.close()


@pytest.mark.slow
async def test_an_identity_too_long_for_an_index_has_one_effect_for_all_copies(real: Bench) -> None:
    first, second = paid(1, id=f"{LONG}1"), paid(2, id=f"{LONG}2")
    for message in (first, first, second):
        await publish_foreign(real, message)
    await real.publish(paid(3))
    async with real.consuming():
        await real.until_effects(1, 2, 3)
    assert await real.parked() == []


@pytest.mark.slow
async def test_a_malformed_message_of_an_identity_too_long_for_an_index_is_parked_and_holds_up_nothing(
    real: Bench,
) -> None:
    await publish_foreign(real, replace(paid(1, id=LONG), body=b"{}", headers={"note": LONG}))
    await real.publish(paid(2))
    async with real.consuming():
        await real.until_effects(2)
    (parked,) = await real.parked()
    assert (parked["message_id"], json.loads(parked["headers"])) == (LONG, {"note": LONG})


@pytest.mark.parametrize("pair", [("\0", "\ufffd"), ("\ud800", "\ud801"), (f"{LONG}a", f"{LONG}b")])
def test_messages_of_different_ids_have_different_identities(pair: tuple[str, str]) -> None:
    first, second = (paid(1, id=id) for id in pair)
    assert first.identity != second.identity


class OddV1(Contract):
    number: int

    @field_validator("number")
    @classmethod
    def look_up(cls, number: int) -> int:
        return {2: 2}[number]


async def test_a_message_whose_contract_fails_in_a_way_of_its_own_is_parked_and_holds_up_nothing(bench: Bench) -> None:
    async def on_odd(event: OddV1, uow: UnitOfWork) -> None:
        await uow.connection.execute("INSERT INTO effects (number) VALUES ($1)", event.number)

    bench.messages = Messages("tiny", incoming=(OnEvent("bank.paid.v1", OddV1, on_odd),))
    await bench.publish(paid(1), paid(2))
    async with bench.consuming():
        await bench.until_effects(2)
    (parked,) = await bench.parked()
    assert (parked["reason"], parked["attempts"]) == ("KeyError: 1", 1)


async def test_a_long_reason_is_shortened(bench: Bench) -> None:
    await parking.park(bench.connection, paid(1), direction="incoming", reason="no " * 100_000, attempts=1)
    (parked,) = await bench.parked()
    assert len(parked["reason"]) <= parking.LONGEST_REASON
    assert parked["reason"].startswith("no no")


NEVER = 10 * WAIT_SECONDS
RELUCTANT = RetryPolicy(
    max_attempts=5, handler_timeout_seconds=30, first_pause_seconds=NEVER, longest_pause_seconds=NEVER
)
"""A policy with pauses that are longer than a test: the end of a pause is never the cause of a second attempt."""


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> int:
    """Lower the number of messages that a consumer may hold, and return that number."""
    monkeypatch.setattr(processing, "log", CapturingLogger())  # the real logger formats each stack, which is slow
    monkeypatch.setitem(SHAPES, Kind.EVENT, replace(SHAPES[Kind.EVENT], batch=10, window=40, held=40, spare=10))
    return 40


async def until_parked_and_dropped(bench: Bench, count: int) -> None:
    """Drop parked messages, which makes room for others, until that many have been parked."""
    left = count

    async def all_seen() -> bool:
        nonlocal left
        gone = await bench.connection.fetch("DELETE FROM chassis.parked RETURNING id")
        left -= len(gone)
        return left == 0

    await bench.until(all_seen)


@pytest.mark.slow
@pytest.mark.parametrize("keys", ["different", "same"])
async def test_many_failing_messages_hold_up_no_other_key(bench: Bench, narrow: int, keys: str) -> None:
    fails = [paid(number, key=f"bad-{number}", then="fail") for number in range(4 * narrow)]
    if keys == "same":
        fails = [paid(0, key="bad", then="fail"), *(paid(number, key="bad") for number in range(1, 4 * narrow))]
    await bench.publish(*fails, paid(1000, key="good"))

    async def good_there() -> bool:
        return 1000 in await bench.effects()

    async with bench.consuming(retry_policy=RELUCTANT):
        await bench.until(good_there)
    assert all(parked["attempts"] >= 2 for parked in await bench.parked())


async def test_a_few_failing_messages_keep_all_their_attempts(bench: Bench, narrow: int) -> None:
    await bench.publish(*(paid(number, key=str(number), then="fail") for number in range(narrow // 2)))
    async with bench.consuming():

        async def all_parked() -> bool:
            return len(await bench.parked()) == narrow // 2

        await bench.until(all_parked)
    assert {parked["attempts"] for parked in await bench.parked()} == {QUICK.max_attempts}


@pytest.mark.parametrize("limits", [{"max_messages": 3}, {"max_bytes": 3000}])
async def test_parking_ends_at_its_limit_until_somebody_makes_room(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int]
) -> None:
    monkeypatch.setattr(parking, "LOOK_SECONDS", 0.1)
    bench.parking_limits = limits
    count = 30
    malformed = b"{}".ljust(1000)
    await bench.publish(*(replace(paid(number, key=str(number)), body=malformed) for number in range(count)))
    await bench.publish(paid(100, key="good"))

    async def parking_is_full() -> bool:
        return len(await bench.parked()) >= 3

    async with bench.consuming(retry_policy=replace(QUICK, max_attempts=2)):
        await bench.until_effects(100)
        await bench.until(parking_is_full)
        await bench.publish(paid(101, key="good"))
        await bench.until_effects(100, 101)
        assert len(await bench.parked()) <= 3 + SHAPES[Kind.EVENT].lanes
        await until_parked_and_dropped(bench, count)


async def test_messages_that_the_broker_refused_take_no_room_from_messages_that_failed(bench: Bench) -> None:
    bench.parking_limits = {"max_messages": 1}
    await parking.park(bench.connection, paid(1), direction="outgoing", reason="too large", attempts=1)
    await bench.publish(replace(paid(2), body=b"{}"))
    async with bench.consuming():

        async def both_parked() -> bool:
            return len(await bench.parked()) == 2

        await bench.until(both_parked)


@pytest.mark.slow
async def test_any_number_of_messages_that_found_no_room_are_parked_once_there_is_room(
    bench: Bench, narrow: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "LOOK_SECONDS", 0.1)
    bench.parking_limits = {"max_messages": 1}
    count = narrow * 3 // 4
    await bench.publish(*(paid(number, key=str(number), then="fail") for number in range(count)))

    async def all_have_failed() -> bool:
        return len(set(tiny_messages.begun)) == count

    async with bench.consuming():
        await bench.until(all_have_failed)
        await until_parked_and_dropped(bench, count)


@pytest.mark.parametrize("body", [b"{}", None])
async def test_a_message_that_cannot_be_parked_holds_up_its_own_key_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, body: bytes | None
) -> None:
    parked: list[str] = []

    async def park(_: Any, message: Message, **__: Any) -> None:
        parked.append(message.id)
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(parking, "park", park)
    bad = paid(1, then="fail", id="bad")
    await bench.publish(bad if body is None else replace(bad, body=body))
    await bench.publish(paid(2), paid(3, key=other_key(same_lane=True)), paid(4, key=other_key(same_lane=True)))
    async with bench.consuming():
        await bench.until_effects(3, 4)
        await bench.until(lambda: _true(parked))
        await bench.publish(paid(5, key=other_key(same_lane=True)))
        await bench.until_effects(3, 4, 5)


async def _true(found: Sequence[object]) -> bool:
    return bool(found)


@pytest.mark.parametrize("log_messages", [True, False])
async def test_a_handled_message_is_logged_once_in_its_trace_if_log_messages_is_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, log_messages: bool
) -> None:
    monkeypatch.setattr(message_log, "log", lines := MessageLines())
    bench.log_messages = log_messages
    traces = [token_hex(16) for _ in range(3)]
    messages = [
        replace(paid(number, then=then), headers={"traceparent": f"00-{trace}-{'1' * 16}-01"})
        for trace, (number, then) in zip(traces, [(1, "work"), (2, "work"), (3, "fail")], strict=True)
    ]
    await bench.publish(*messages, messages[0])
    async with bench.consuming():
        await bench.until(bench.parked)
        await bench.publish(paid(4))
        await bench.until_effects(1, 2, 4)
    logged = [
        ("message_handled", one.name, one.id, one.key, trace) for one, trace in zip(messages, traces, strict=True)
    ]
    assert [line for line in lines.logged if line[-1] in traces] == (logged[:2] if log_messages else [])
    assert bool(lines.logged) is log_messages


async def test_a_handler_learns_which_events_are_published_again(bench: Bench) -> None:
    runs: list[str | None] = []

    async def on_paid(_: PaidV1, uow: UnitOfWork) -> None:
        runs.append(uow.republished)

    bench.messages = Messages("tiny", incoming=(OnEvent("bank.paid.v1", PaidV1, on_paid),))
    await bench.publish(
        paid(1), replace(paid(2), headers={"republished": "run-1"}), replace(paid(3), headers={"republished": ""})
    )
    async with bench.consuming():
        await bench.until(lambda: _true(runs[2:]))
    assert runs == [None, "run-1", None]


async def test_a_handler_sees_the_subject_of_a_message_and_enqueued_jobs_carry_the_subject(bench: Bench) -> None:
    refused = ("", "x" * 256, "a\nb", " a", "\u202ea", "\0")
    claimed = dict(enumerate(("user-17", "auth0|Zoë 17", "x" * 255, *refused), 1))
    seen: dict[int, str | None] = {}

    async def on_paid(event: PaidV1, uow: UnitOfWork) -> None:
        seen[event.number] = uow.subject
        await uow.enqueue(TidyUp(UUID(int=event.number)), after=timedelta(days=1))

    bench.messages = Messages(
        "tiny", outgoing=(Job(TidyUp, TidyUpV1),), incoming=(OnEvent("bank.paid.v1", PaidV1, on_paid),)
    )
    await bench.publish(paid(0), *(replace(paid(n), headers={"subject": text}) for n, text in claimed.items()))
    async with bench.consuming():
        await bench.until(lambda: _true(list(seen)[9:]))
    believed = {number: claimed.get(number) if number in (1, 2, 3) else None for number in range(10)}
    assert seen == believed
    rows = await bench.connection.fetch("DELETE FROM chassis.outbox RETURNING payload, subject")
    assert {UUID(json.loads(row["payload"])["thing_id"]).int: row["subject"] for row in rows} == believed


@pytest.mark.slow
async def test_stopping_finishes_the_messages_in_hand_and_none_is_redelivered(
    real: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing, "log", logged := CapturingLogger())
    tell_when_lanes_stop(monkeypatch)
    async with real.consuming():
        await real.publish(paid(1, then="wait until told"))
        await real.until_begun(1)
        await real.publish(paid(2), paid(3, key=other_key(same_lane=False)))
        await real.until_effects(3)
    assert await real.effects() == [1, 3, 2]
    async with real.consuming():
        await real.publish(paid(4))
        await real.until_effects(1, 3, 2, 4)
    assert "message_known" not in str(logged.calls)
    # no crash has left an attempt behind
    assert await real.connection.fetchval("SELECT count(*) FROM chassis.attempts") == 0


async def test_stopping_gives_back_messages_that_cannot_start_in_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SHAPES, Kind.EVENT, replace(SHAPES[Kind.EVENT], last_seconds=0))
    tell_when_lanes_stop(monkeypatch)
    async with bench.consuming():
        await bench.publish(paid(1, then="wait until told"))
        await bench.until_begun(1)
        await bench.publish(paid(2), paid(3))
    assert await bench.effects() == [1]
    async with bench.consuming():
        await bench.until_effects(1, 2, 3)
    assert await bench.parked() == []


async def test_a_lost_database_is_nobodys_failed_try(bench: Bench, link: Link) -> None:
    bench.url = link.url
    async with bench.consuming(retry_policy=RetryPolicy(max_attempts=1, handler_timeout_seconds=30)):
        await bench.publish(paid(1))
        await bench.until_effects(1)
        link.cut()
        await bench.publish(paid(2), paid(3))
        await asyncio.sleep(1)
        link.restore()
        await bench.until_effects(1, 2, 3)
    assert await bench.parked() == []


@pytest.mark.slow
async def test_a_database_that_does_not_answer_costs_no_message_an_attempt(bench: Bench, link: Link) -> None:
    bench.url = link.url
    async with bench.consuming(retry_policy=RetryPolicy(max_attempts=1, handler_timeout_seconds=2)):
        await bench.publish(paid(1, then="wait until told"))
        await bench.until_begun(1)
        link.freeze()
        tiny_messages.told.set()  # neither the handler's next statement nor the rollback gets an answer
        await asyncio.to_thread(link.holding.wait, WAIT_SECONDS)
        await bench.publish(paid(2, key="b"), paid(3, key="c"))
        await asyncio.sleep(6)  # longer than a statement may take
        link.restore()

        async def all_there() -> bool:
            return sorted(await bench.effects()) == [1, 2, 3]

        await bench.until(all_there)
    assert await bench.parked() == []


@pytest.mark.slow
async def test_a_server_that_refuses_costs_no_message_an_attempt(
    bench: Bench, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE disk_full; END $$"
    await connection.execute(full)
    await connection.execute("CREATE TRIGGER full_disk BEFORE INSERT ON effects EXECUTE FUNCTION full_disk()")
    try:
        async with bench.consuming(retry_policy=RetryPolicy(max_attempts=1, handler_timeout_seconds=30)):
            await bench.publish(paid(1), paid(2))
            await asyncio.sleep(3)
            await connection.execute("DROP TRIGGER full_disk ON effects")
            await bench.until_effects(1, 2)
    finally:
        await connection.execute("DROP FUNCTION full_disk CASCADE")
    assert await bench.parked() == []


POISON = "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {}; RETURN NEW; END $$"


@asynccontextmanager
async def poisoned(connection: asyncpg.Connection, what: str, *, when: str = "true") -> AsyncGenerator[None]:
    """Let the server run `what`, in PL/pgSQL, before each insert of an effect for which the condition holds."""
    await connection.execute(POISON.format(what))
    await connection.execute(
        f"CREATE TRIGGER poison BEFORE INSERT ON effects FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION poison()"
    )
    try:
        yield
    finally:
        await connection.execute("DROP FUNCTION poison CASCADE")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "bad", "reason"),
    [
        ("RAISE out_of_memory", ["a", "b", "c"], "OutOfMemoryError (53200)"),
        ("PERFORM pg_sleep(0.4); RAISE out_of_memory", ["a", "b", "c"], "OutOfMemoryError (53200)"),
        ("PERFORM pg_sleep(60)", ["a"], "transaction timeout"),
    ],
)
async def test_a_message_that_alone_makes_the_server_fail_holds_up_its_own_key_alone_and_is_parked(
    bench: Bench,
    connection: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    bad: list[str],
    reason: str,
) -> None:
    monkeypatch.setattr(processing, "log", CapturingLogger())
    monkeypatch.setattr(lane, "DATABASE_PAUSE_SECONDS", 0.1)
    monkeypatch.setitem(SHAPES, Kind.EVENT, replace(SHAPES[Kind.EVENT], lanes=1))
    bench.url += "?options=-c%20transaction_timeout%3D1s"  # a limit that the role of the service may have
    good = itertools.count(10)
    await bench.publish(*(paid(number, key=key) for number, key in enumerate(bad)))
    await bench.publish(*(paid(next(good), key="good") for _ in range(5)), paid(9, key="a"))
    async with poisoned(connection, what, when=f"NEW.number < {len(bad)}"), bench.consuming():
        await bench.until(lambda: _has_effects(bench, *range(10, 15)))

        async def all_parked() -> bool:
            await bench.publish(paid(next(good), key="good"))
            await asyncio.sleep(0.1)
            return len(await bench.parked()) == len(bad)

        await bench.until(all_parked)
        await bench.until(lambda: _has_effects(bench, 9))
    for row in await bench.parked():
        assert row["reason"].startswith("DatabaseUnavailable: ")
        assert reason in row["reason"]
        assert row["attempts"] == QUICK.max_attempts


@pytest.mark.slow
@pytest.mark.parametrize("keys", ["different", "same"])
async def test_messages_that_alone_make_the_server_fail_leave_room_for_others_however_many_are_held(
    bench: Bench, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, narrow: int, keys: str
) -> None:
    monkeypatch.setattr(lane, "DATABASE_PAUSE_SECONDS", 0.02)
    held = narrow + SHAPES[Kind.EVENT].spare // 2
    bad = range(held if keys == "different" else 1)
    good = range(1000, 1000 + 2 * narrow)
    await bench.publish(*(paid(number, key="bad" if keys == "same" else f"bad-{number}") for number in range(held)))
    await bench.publish(*(paid(number, key=f"good-{number}") for number in good))
    others = itertools.count(good.stop)
    async with poisoned(connection, "RAISE out_of_memory", when=f"NEW.number < {len(bad)}"), bench.consuming():
        await bench.until(lambda: _has_effects(bench, *good))

        async def all_parked() -> bool:
            await bench.publish(paid(next(others), key="other"))
            return len(await bench.parked()) == len(bad)

        await bench.until(all_parked)
        await bench.until(lambda: _has_effects(bench, *range(len(bad), held)))


def test_a_broker_delivers_as_many_messages_as_a_consumer_takes() -> None:
    shape = SHAPES[Kind.EVENT]
    assert Options(url=SecretStr(""), client_name="").max_in_flight == shape.held + shape.spare


async def _has_effects(bench: Bench, *numbers: int) -> bool:
    return set(numbers) <= set(await bench.effects())


@pytest.mark.slow
async def test_an_outage_for_any_number_of_messages_parks_none(
    bench: Bench, connection: asyncpg.Connection, narrow: int
) -> None:
    keys = [*map(str, range(narrow)), *["the same"] * narrow]
    await bench.publish(*(paid(number, key=key) for number, key in enumerate(keys)))
    async with bench.consuming(retry_policy=RetryPolicy(max_attempts=1, handler_timeout_seconds=30)):
        async with poisoned(connection, "RAISE disk_full"):
            await asyncio.sleep(4)
        await bench.until(lambda: _has_effects(bench, *range(2 * narrow)))
    effects = await bench.effects()
    assert sorted(effects) == list(range(2 * narrow))
    assert [number for number in effects if number >= narrow] == list(range(narrow, 2 * narrow))
    assert await bench.parked() == []


async def test_only_one_replica_takes_events_where_the_broker_does_not_keep_the_order_of_keys(bench: Bench) -> None:
    assert not bench.broker.shares_in_order
    async with bench.consuming():
        await bench.publish(paid(1))
        await bench.until_effects(1)
        leader = await bench.connection.fetchval(LEADER)
        async with bench.consuming():
            await bench.until(lambda: bench.connection.fetchval(STANDING_BY, leader))
            await bench.publish(paid(2))
            await bench.until_effects(1, 2)
            assert await bench.connection.fetchval(LEADER) == leader


@pytest.mark.slow
@pytest.mark.parametrize("real", each_of("nats"), indirect=True)
async def test_a_consumer_that_was_deposed_without_noticing_leaves_every_event_to_its_successor(
    real: Bench, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "LEASE_SECONDS", 3)
    handled: list[tuple[str, int]] = []

    def replica(name: str) -> Bench:
        async def on_paid(event: tiny_messages.PaidV1, uow: UnitOfWork) -> None:
            await uow.connection.execute("INSERT INTO effects (number) VALUES ($1)", event.number)
            handled.append((name, event.number))

        bench = Bench(real.url, real.connection)
        bench.broker, bench.bank = real.broker, real.bank
        bench.messages = Messages(
            real.messages.service, incoming=(OnEvent(f"{real.bank}.paid.v1", tiny_messages.PaidV1, on_paid),)
        )
        return bench

    deposed, successor = replica("deposed"), replica("successor")
    deposed.lock_url = link.url
    async with deposed.consuming():
        await real.publish(paid(0))
        await real.until_effects(0)
        link.freeze()
        assert await real.connection.fetchval(
            f"SELECT pg_terminate_backend(leader.pid, 10000) FROM ({LEADER} AND database IN"
            " (SELECT oid FROM pg_database WHERE datname = current_database())) AS leader"
        )
        async with successor.consuming():
            for number in range(1, 200):
                await real.publish(paid(number))
                await asyncio.sleep(0.05)
            await real.until_effects(*range(200))
        link.restore()
    replicas = [name for name, _ in handled]
    assert [number for _, number in handled] == list(range(200))
    assert replicas == sorted(replicas), "the deposed replica handled an event after its successor did"
    assert replicas[-1] == "successor"


WAITING_FOR_A_CLAIM = """
    SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INTO chassis.inbox%'
    AND datname = current_database())
"""


@contextmanager
def two_ways(system: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> Generator[tuple[Link, str, str]]:
    """A link to a broker, the broker's URL through that link, and its direct URL."""
    if system == "rabbitmq":
        url = run(system).url
        with Link(url) as link:
            yield link, f"{link.url}/?heartbeat=1", url
        return
    port = brokers.free_port()
    with Link(f"kafka://127.0.0.1:{port}") as link:
        try:
            with brokers.kafka(port=port, advertised_port=link.port) as server:
                monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
                yield link, link.url, server.secure_url or ""
        except brokers.Missing as missing:
            pytest.skip(str(missing))


@pytest.mark.slow
@pytest.mark.parametrize("system", each_of("kafka", "rabbitmq"))
async def test_each_message_has_one_effect_and_in_order_while_two_replicas_own_its_key(
    bench: Bench, run: Run, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SHAPES, Kind.EVENT, replace(SHAPES[Kind.EVENT], batch=10))
    monkeypatch.setattr(processing, "log", CapturingLogger())
    retry_policy = replace(STUBBORN, handler_timeout_seconds=WAIT_SECONDS)
    suffix, number = uuid4().hex[:8], 200

    def replica(url: str) -> Bench:
        async def on_paid(event: tiny_messages.PaidV1, uow: UnitOfWork) -> None:
            await uow.connection.execute("INSERT INTO effects (number) VALUES ($1)", event.number)
            if event.number == number // 4:
                tiny_messages.begun.append(event.number)
                while not tiny_messages.told.is_set():
                    await uow.connection.execute("SELECT 1")  # otherwise the server would end the idle transaction
                    await asyncio.sleep(0.1)
            await asyncio.sleep(0.005)

        replica = Bench(bench.url, bench.connection)
        replica.bank = f"bank-{suffix}"
        patient = {"publish_timeout_seconds": WAIT_SECONDS, "redelivery_seconds": 2}
        options = Options(url=SecretStr(url), client_name="tiny", partitions=1, **patient)
        replica.broker = broker_for(options)
        heard = OnEvent(f"{replica.bank}.paid.v1", tiny_messages.PaidV1, on_paid)
        replica.messages = Messages(f"tiny-{suffix}", incoming=(heard,))
        return replica

    with two_ways(system, run, monkeypatch) as (link, by_link, directly):
        former, successor = replica(by_link), replica(directly)
        for each in (former, successor):
            await each.broker.connect()
            await each.broker.declare(topology_of(each.messages))
        try:
            async with former.consuming(retry_policy=retry_policy):
                await successor.publish(*(paid(one) for one in range(number)))
                await bench.until_begun(number // 4)
                link.freeze()
                async with successor.consuming(retry_policy=retry_policy):
                    await bench.until(lambda: bench.connection.fetchval(WAITING_FOR_A_CLAIM))
                    tiny_messages.told.set()
                    await bench.until(lambda: _has_effects(bench, *range(number)))
                    link.restore()
        finally:
            link.restore()
            await asyncio.gather(former.broker.close(), successor.broker.close())
    assert await bench.effects() == list(range(number))
    assert await bench.parked() == []


async def test_a_message_of_a_trace_that_is_not_sampled_makes_no_span(bench: Bench) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    await bench.publish(replace(paid(1), headers={"traceparent": trace}))
    async with bench.consuming():
        await bench.until_effects(1)
    assert [span.name for span in bench.spans.get_finished_spans() if span.name.startswith("process")] == []


async def test_every_message_and_its_sql_belong_to_the_trace_of_the_sender(bench: Bench) -> None:
    def from_trace(number: int) -> Message:
        message = paid(number, key=str(number))
        header = f"00-{number:032x}-{number:016x}-01"
        return Message(message.kind, message.name, message.id, message.key, message.body, {"traceparent": header})

    await bench.publish(from_trace(1), from_trace(2), from_trace(3), from_trace(4))
    async with bench.consuming():

        async def all_there() -> bool:
            return len(await bench.effects()) == 4

        await bench.until(all_there)
    spans = bench.spans.get_finished_spans()
    for number in range(1, 5):
        of_trace = [span for span in spans if span.context.trace_id == number]
        (process,) = [span for span in of_trace if span.name == "process bank.paid.v1"]
        assert process.parent.span_id == number
        (insert,) = [span for span in of_trace if span.name == "INSERT effects"]
        assert insert.parent.span_id == process.context.span_id
    for batch in [span for span in spans if span.name == "process batch tiny"]:
        assert len(batch.links) == batch.attributes["messaging.batch.message_count"]
