"""The peculiarities of RabbitMQ: exchanges and queues, acknowledgements by number, messages that no queue takes."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aiormq
import pytest
import structlog
from aiormq import spec
from aiormq.abc import DeliveredMessage
from chassis.brokers import (
    BrokerUnavailable,
    Delivery,
    Kind,
    Message,
    MessageRefused,
    Options,
    Topology,
    supervised_client,
)
from chassis.brokers.rabbitmq import connection, subscription
from chassis.brokers.rabbitmq.broker import RabbitBroker
from chassis.brokers.rabbitmq.connection import queue_arguments
from chassis.brokers.rabbitmq.publisher import Publisher
from chassis.brokers.rabbitmq.subscription import RabbitSubscription, _leave, _message
from pamqp.header import ContentHeader
from pydantic import SecretStr

from tests.chassis.each_broker import Run
from tests.support import brokers
from tests.support.link import Link

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("rabbitmq")]

PATIENCE_SECONDS = 90
TOO_LARGE = b"x" * (4 * 2**20 + 1)


@pytest.fixture(autouse=True)
def fresh_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loggers that do not keep the stdout of an earlier test."""
    for module in (connection, subscription, supervised_client):
        monkeypatch.setattr(module, "log", structlog.get_logger())


@pytest.fixture
def server(run: Run) -> brokers.Broker:
    return run("rabbitmq")


@pytest.fixture
def service() -> str:
    return f"bank-{uuid4().hex[:8]}"


@asynccontextmanager
async def joined(url: str, topology: Topology, **options: Any) -> AsyncGenerator[RabbitBroker]:
    usual: dict[str, Any] = {"client_name": topology.service, "publish_timeout_seconds": 5}
    broker = RabbitBroker(Options(url=SecretStr(url), **(usual | options)))
    try:
        await broker.connect()
        await broker.declare(topology)
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def channel_to(server: brokers.Broker) -> AsyncGenerator[Any]:
    """A channel to RabbitMQ without our module."""
    connection = await aiormq.connect(server.url)
    yield await connection.channel()
    await connection.close()


def speaking_to_itself(service: str) -> Topology:
    events, jobs = frozenset([f"{service}.paid.v1"]), frozenset([f"{service}.pay.v1"])
    return Topology(service, events, jobs, events, jobs)


def event(service: str, body: bytes = b"1") -> Message:
    return Message(Kind.EVENT, f"{service}.paid.v1", str(uuid4()), "a", body)


def job(service: str, body: bytes = b"1") -> Message:
    return Message(Kind.JOB, f"{service}.pay.v1", str(uuid4()), "", body)


async def take(subscription: RabbitSubscription, number: int) -> list[Delivery]:
    taken: list[Delivery] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(taken) < number:
            taken += await subscription.fetch(number - len(taken), wait_seconds=0.5)
    return taken


def bodies(deliveries: list[Delivery]) -> list[int]:
    return [int(delivery.message.body) for delivery in deliveries]


async def test_an_acknowledgement_of_several_messages_leaves_out_open_messages_in_between(
    server: brokers.Broker, service: str
) -> None:
    async with joined(server.url, speaking_to_itself(service)) as bank:
        subscription = await bank.subscribe(Kind.EVENT)
        for number in range(6):
            await bank.publish(event(service, str(number).encode()))
        taken = await take(subscription, 6)
        await subscription.acknowledge([taken[5], taken[1], taken[0]])
        await subscription.acknowledge([taken[3]])
    assert [delivery.lost for delivery in taken] == [False, False, True, False, True, False]
    async with joined(server.url, speaking_to_itself(service)) as bank:
        subscription = await bank.subscribe(Kind.EVENT)
        assert bodies(await take(subscription, 2)) == [2, 4]
        assert await subscription.fetch(1, wait_seconds=1) == []


async def test_lanes_that_acknowledge_one_after_the_other_cost_a_few_frames(
    server: brokers.Broker, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames: list[int] = []
    tell = aiormq.Channel.basic_ack

    async def counted(channel: aiormq.Channel, tag: int, **options: Any) -> None:
        frames.append(tag)
        await tell(channel, tag, **options)

    monkeypatch.setattr(aiormq.Channel, "basic_ack", counted)
    async with joined(server.url, speaking_to_itself(service)) as bank:
        subscription = await bank.subscribe(Kind.EVENT)
        await asyncio.gather(*(bank.publish(event(service)) for _ in range(200)))
        taken = await take(subscription, 200)
        for lane in range(4):
            await subscription.acknowledge(taken[lane::4])
        assert len(frames) <= 4
    async with joined(server.url, speaking_to_itself(service)) as bank:
        assert await (await bank.subscribe(Kind.EVENT)).fetch(1, wait_seconds=1) == []


async def test_a_message_with_many_attempts_does_not_use_up_the_room_of_later_messages(
    server: brokers.Broker, service: str
) -> None:
    async with joined(server.url, speaking_to_itself(service)) as bank:
        bank.connections.options = replace(bank.connections.options, max_in_flight=20)
        subscription = await bank.subscribe(Kind.EVENT)
        await asyncio.gather(*(bank.publish(event(service)) for _ in range(100)))
        (first,) = await take(subscription, 1)
        for _ in range(99):
            await subscription.acknowledge(await take(subscription, 1))
        assert not first.lost


async def test_lanes_that_acknowledge_at_the_same_time_leave_the_channel_open(
    server: brokers.Broker, service: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tell = aiormq.Channel.basic_ack

    async def on_a_busy_connection(*arguments: Any, **options: Any) -> None:
        await asyncio.sleep(0.001)
        await tell(*arguments, **options)

    monkeypatch.setattr(aiormq.Channel, "basic_ack", on_a_busy_connection)
    async with joined(server.url, speaking_to_itself(service)) as bank:
        subscription = await bank.subscribe(Kind.EVENT)
        for number in range(13):
            await bank.publish(event(service, str(number).encode()))
        *done, doing = await take(subscription, 13)
        await asyncio.gather(*(subscription.acknowledge(done[lane::4]) for lane in range(4)))
        assert await subscription.fetch(1, wait_seconds=1) == []
        assert not doing.lost
    assert "broker_channel_closed" not in capsys.readouterr().out


async def test_a_channel_that_the_broker_closes_is_told_of(
    server: brokers.Broker, service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with joined(server.url, speaking_to_itself(service)) as bank:
        subscription = await bank.subscribe(Kind.EVENT)
        await bank.publish(event(service))
        (delivery,) = await take(subscription, 1)
        assert subscription._channel is not None
        await subscription._channel.basic_ack(delivery.receipt + 1, wait=False)
        (again,) = await take(subscription, 1)
        assert delivery.lost
        assert again.message == delivery.message
    assert "unknown delivery tag" in capsys.readouterr().out


async def test_a_message_that_was_acknowledged_just_before_the_end_is_not_delivered_again(
    server: brokers.Broker, service: str
) -> None:
    async with joined(server.url, speaking_to_itself(service)) as bank:
        subscription = await bank.subscribe(Kind.EVENT)
        for number in range(5):
            await bank.publish(event(service, str(number).encode()))
        await subscription.acknowledge(await take(subscription, 5))
        assert subscription._channel is not None
        # Leave at once: an iteration of the event loop in between would give the client more time.
        await _leave(subscription._channel)
    async with joined(server.url, speaking_to_itself(service)) as bank:
        assert await (await bank.subscribe(Kind.EVENT)).fetch(1, wait_seconds=1) == []


async def test_a_job_waits_for_a_worker_that_has_never_run(server: brokers.Broker, service: str) -> None:
    name = f"{service}.pay.v1"
    async with joined(server.url, Topology(f"{service}-shop", sent_jobs=frozenset([name]))) as shop:
        await shop.publish(job(service))
    async with joined(server.url, Topology(service, accepted_jobs=frozenset([name]))) as bank:
        assert bodies(await take(await bank.subscribe(Kind.JOB), 1)) == [1]


async def test_a_job_without_a_queue_is_reported_and_finds_a_queue_later(server: brokers.Broker, service: str) -> None:
    async with joined(server.url, speaking_to_itself(service)) as bank, channel_to(server) as channel:
        await channel.queue_delete(f"{service}.jobs")
        with pytest.raises(BrokerUnavailable, match="nobody has declared a queue"):
            await bank.publish(job(service, b"1"))
        await bank.publish(job(service, b"2"))
        assert bodies(await take(await bank.subscribe(Kind.JOB), 1)) == [2]


async def test_a_queue_that_was_deleted_is_made_again(server: brokers.Broker, service: str) -> None:
    async with joined(server.url, speaking_to_itself(service)) as bank, channel_to(server) as channel:
        subscription = await bank.subscribe(Kind.EVENT)
        await bank.publish(event(service, b"1"))
        held = await take(subscription, 1)
        await channel.queue_delete(f"{service}.events")
        await subscription.fetch(1, wait_seconds=PATIENCE_SECONDS)  # the loss wakes this fetch
        assert held[0].lost
        assert await subscription.fetch(1, wait_seconds=0.5) == []
        await bank.publish(event(service, b"2"))
        assert bodies(await take(subscription, 1)) == [2]


async def test_an_existing_queue_is_used_unchanged_and_its_difference_is_reported(
    server: brokers.Broker, service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with channel_to(server) as channel:
        await channel.queue_declare(f"{service}.jobs", durable=True, arguments={"x-queue-type": "quorum"})
    async with joined(server.url, speaking_to_itself(service)) as bank:
        assert "broker_topology_differs" in capsys.readouterr().out
        await bank.publish(job(service))
        assert bodies(await take(await bank.subscribe(Kind.JOB), 1)) == [1]


async def test_only_the_message_that_is_too_large_is_refused(server: brokers.Broker, service: str) -> None:
    async with joined(server.url, speaking_to_itself(service)) as bank:
        others = [event(service) for _ in range(20)]
        messages = [*others[:10], event(service, TOO_LARGE), *others[10:]]
        answers = await asyncio.gather(*map(bank.publish, messages), return_exceptions=True)
        assert isinstance(answers.pop(10), MessageRefused)
        assert {type(answer) for answer in answers} <= {type(None), BrokerUnavailable}
        for answer, message in zip(answers, others, strict=True):
            if answer is not None:
                await bank.publish(message)


async def test_a_connection_for_one_message_that_gets_no_answer_leaves_the_connection_of_all_others_open(
    server: brokers.Broker, service: str
) -> None:
    with Link(server.url) as link:
        async with joined(server.url, speaking_to_itself(service)) as bank:
            await bank.publish(event(service))
            publisher = bank.supervised.client
            bank._lone = await Publisher.open(await aiormq.connect(link.url), timeout_seconds=1)
            bank._unavailable[event(service).name] = 0, "the queue was full"
            link.freeze()
            with pytest.raises(BrokerUnavailable):
                await bank.publish(event(service))
            assert bank.supervised.client is publisher
            await bank.publish(job(service))
            link.restore()


@pytest.mark.parametrize(("version", "limit"), [("3.10.8", None), ("4.3.1", -1)])
def test_no_server_discards_a_message_that_is_redelivered_often(version: str, limit: int | None) -> None:
    class Connection:
        server_properties = {"version": version}  # noqa: RUF012

    arguments = queue_arguments(Connection(), replication=1, alone=True)  # ty: ignore[invalid-argument-type]
    assert arguments.get("x-delivery-limit") == limit


async def test_a_queue_apart_is_declared_for_long_jobs_and_leaves_waiting_jobs_to_other_replicas(
    server: brokers.Broker, service: str
) -> None:
    owner = f"{service}--slow"
    names = frozenset({f"{owner}.report.v1"})
    topology = Topology(service, sent_jobs=names, accepted_jobs=names)
    (name,) = names
    async with (
        joined(server.url, topology, jobs_at_once=1) as bank,
        joined(server.url, topology, jobs_at_once=1) as other,
    ):
        first = await bank.subscribe(Kind.JOB, owner)
        for number in range(3):
            await bank.publish(Message(Kind.JOB, name, str(uuid4()), "a", str(number).encode()))
        (long,) = await first.fetch(1, wait_seconds=PATIENCE_SECONDS)
        second = await other.subscribe(Kind.JOB, owner)
        for body in (b"1", b"2"):
            (delivery,) = await second.fetch(1, wait_seconds=PATIENCE_SECONDS)
            assert delivery.message.body == body
            await second.acknowledge([delivery])
        await first.acknowledge([long])
        connection = await aiormq.connect(server.url)
        channel = await connection.channel()
        # RabbitMQ refuses the declaration of a queue with other arguments.
        apart = queue_arguments(connection, replication=1, alone=False, apart=True)
        assert apart["x-consumer-timeout"] == 24 * 3600 * 1000
        await channel.queue_declare(f"{owner}.jobs", durable=True, arguments=apart)
        await connection.close()


def delivered(body: bytes, *, again: bool = False, **properties: Any) -> DeliveredMessage:
    headers: Any = {"tenant": "a"} | ({"x-delivery-count": 1} if again else {})
    return DeliveredMessage(
        spec.Basic.Deliver("tag", 2 if again else 1, again, "bank", "bank.paid.v1"),
        ContentHeader(properties=spec.Basic.Properties(headers=headers, **properties)),
        body,
        None,  # ty: ignore[invalid-argument-type]
    )


async def test_a_connection_that_the_server_ends_at_once_is_an_outage(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def end(*_: object, **__: object) -> None:
        raise StopAsyncIteration  # as aiormq.connection.FrameReceiver does

    monkeypatch.setattr(aiormq, "connect", end)
    broker = RabbitBroker(Options(url=SecretStr("amqp://127.0.0.1"), client_name=service))
    with pytest.raises(BrokerUnavailable, match="the server closed the connection"):
        await broker.connect()
    await broker.close()


async def test_rabbitmq_speaks_tls(server: brokers.Broker, service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server.secure_url
    monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
    async with joined(server.secure_url, speaking_to_itself(service)) as bank:
        subscription = await bank.subscribe(Kind.EVENT)
        await bank.publish(event(service))
        assert bodies(await take(subscription, 1)) == [1]


async def test_a_certificate_that_nobody_vouches_for_is_not_trusted(server: brokers.Broker, service: str) -> None:
    assert server.secure_url
    with pytest.raises(BrokerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        async with joined(server.secure_url, speaking_to_itself(service)):
            pass


class Odd(spec.Basic.Properties):
    """Properties of a client that checks nothing."""

    written: tuple[bytes, bytes]

    def marshal(self) -> bytes:
        return super().marshal().replace(*self.written)


TIME = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("properties", "written", "readable"),
    [
        ({"message_id": "????"}, (b"????", b"\xff\xfe\xfd\xfc"), True),
        ({"timestamp": TIME}, (int(TIME.timestamp()).to_bytes(8), (2**62).to_bytes(8)), True),
        ({"headers": {"at": TIME}}, (int(TIME.timestamp()).to_bytes(8), (2**62).to_bytes(8)), True),
        ({"headers": {"tenant": "????"}}, (b"????", b"\xff\xfe\xfd\xfc"), True),
        ({"headers": {"????": "a"}}, (b"????", b"\xff\xfe\xfd\xfc"), False),
    ],
)
async def test_a_message_whose_properties_cannot_be_decoded_holds_up_no_other(
    server: brokers.Broker, service: str, properties: dict[str, Any], written: tuple[bytes, bytes], readable: bool
) -> None:
    async with joined(server.url, speaking_to_itself(service)) as bank, channel_to(server) as channel:
        subscription = await bank.subscribe(Kind.EVENT)
        odd = Odd(**properties)
        odd.written = written
        await channel.basic_publish(b"1", exchange=service, routing_key=f"{service}.paid.v1", properties=odd)
        await bank.publish(event(service, b"2"))

        first, second = await take(subscription, 2)

        assert bodies([first, second]) == [1, 2]
        assert (first.unreadable is None, second.unreadable) == (readable, None)
        await subscription.acknowledge([first, second])


def test_an_id_is_made_of_the_content_if_there_is_none() -> None:
    first = _message(delivered(b"1"), Kind.EVENT)
    assert first == _message(delivered(b"1", again=True), Kind.EVENT)
    assert first.id != _message(delivered(b"2"), Kind.EVENT).id
    assert first.id != _message(delivered(b"1", correlation_id="x"), Kind.EVENT).id
    assert _message(delivered(b"1", message_id="theirs"), Kind.EVENT).id == "theirs"


async def test_a_loss_and_a_return_of_the_broker_are_logged_once_each(
    server: brokers.Broker, service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, problem: problems.append(problem))
    async with joined(server.url, speaking_to_itself(service)) as bank:
        subscription = await bank.subscribe(Kind.EVENT)
        await bank.publish(event(service))
        held = await take(subscription, 1)
        sending = [asyncio.create_task(bank.publish(event(service))) for _ in range(50)]
        server.kill()
        await asyncio.wait(sending, timeout=PATIENCE_SECONDS)
        assert {type(each.exception()) for each in sending} <= {type(None), BrokerUnavailable}
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "broker_connection_lost" not in (shown := capsys.readouterr().out):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert shown.count("\n") == 1
        assert held[0].lost
        assert not bank.connected
        server.start()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not bank.connected:  # noqa: ASYNC110 - by itself: nobody sends
                await asyncio.sleep(0.1)
        assert capsys.readouterr().out.count("\n") == 1
        assert (await take(subscription, 1))[0].message == held[0].message
    asyncio.get_running_loop().set_exception_handler(None)
    assert problems == []
