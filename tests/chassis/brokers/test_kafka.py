"""The peculiarities of Kafka: positions instead of acknowledgements, partitions that move, topics and their settings."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.record.util import calc_crc32c
from chassis.brokers import BrokerUnavailable, Delivery, Kind, Message, Options, Topology, supervised_client
from chassis.brokers.kafka import subscription as kafka
from chassis.brokers.kafka.broker import KafkaBroker
from chassis.brokers.kafka.subscription import KafkaSubscription
from pydantic import SecretStr

from tests.chassis.each_broker import Run
from tests.support import brokers

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kafka")]

PATIENCE_SECONDS = 90


@pytest.fixture(autouse=True)
def fresh_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logger that does not keep the stdout of an earlier test."""
    monkeypatch.setattr(supervised_client, "log", structlog.get_logger())


@pytest.fixture
def server(run: Run) -> brokers.Broker:
    return run("kafka")


@pytest.fixture
def name() -> str:
    return f"bank-{uuid4().hex[:8]}.paid.v1"


@asynccontextmanager
async def joined(url: str, name: str, also: str | None = None, **options: Any) -> AsyncGenerator[KafkaBroker]:
    """Connect a replica of a service that publishes and consumes that name."""
    names = frozenset([name, also or name])
    usual = {"redelivery_seconds": 2}
    broker = KafkaBroker(Options(url=SecretStr(url), client_name="bank", **(usual | options)))
    try:
        await broker.connect()
        await broker.declare(Topology(name.partition(".")[0], names, awaited_events=names))
        yield broker
    finally:
        await broker.close()


async def publish(broker: KafkaBroker, name: str, *bodies: int, key: str = "a") -> None:
    for body in bodies:
        await broker.publish(Message(Kind.EVENT, name, str(uuid4()), key, str(body).encode()))


async def take(subscription: KafkaSubscription, number: int) -> list[Delivery]:
    taken: list[Delivery] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(taken) < number:
            taken += await subscription.fetch(number - len(taken), wait_seconds=0.5)
    return taken


def bodies(deliveries: list[Delivery]) -> list[int]:
    return [int(delivery.message.body) for delivery in deliveries]


@asynccontextmanager
async def admin_of(server: brokers.Broker) -> AsyncGenerator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=server.url.removeprefix("kafka://"))
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def described(server: brokers.Broker, name: str) -> tuple[int, dict[str, str]]:
    """Return the number of partitions of a topic, and its settings."""
    async with admin_of(server) as admin:
        (topic,) = await admin.describe_topics([name])
        answers: Any = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    return len(topic["partitions"]), {entry[0]: entry[1] for entry in answers[0].resources[0][4]}


async def test_a_message_behind_a_gap_is_delivered_again(server: brokers.Broker, name: str) -> None:
    async with joined(server.url, name) as bank:
        subscription = await bank.subscribe(Kind.EVENT)
        await publish(bank, name, 1, 2, 3, 4, 5)
        taken = await take(subscription, 5)
        await subscription.acknowledge([taken[3], taken[1], taken[0]])
    async with joined(server.url, name) as bank:
        assert bodies(await take(await bank.subscribe(Kind.EVENT), 3)) == [3, 4, 5]


async def test_a_released_message_is_delivered_again_here_and_a_held_message_is_not(
    server: brokers.Broker, name: str
) -> None:
    async with joined(server.url, name) as bank:
        subscription = await bank.subscribe(Kind.EVENT)
        await publish(bank, name, 1, 2, 3, 4)
        taken = await take(subscription, 4)
        await subscription.acknowledge([taken[2]])
        await subscription.release([taken[1], taken[3]])
        await publish(bank, name, 5)
        assert bodies(await take(subscription, 3)) == [2, 4, 5]


async def test_a_second_replica_takes_its_share_and_repeats_no_message_of_the_first(
    server: brokers.Broker, name: str
) -> None:
    async with joined(server.url, name, partitions=4) as first, AsyncExitStack() as later:
        subscription = await first.subscribe(Kind.EVENT)
        for number in range(40):
            await publish(first, name, number, key=str(number))
        held = await take(subscription, 40)
        await subscription.acknowledge(held[:20])

        second = await later.enter_async_context(joined(server.url, name, partitions=4))
        others = await second.subscribe(Kind.EVENT)
        again: list[Delivery] = []
        to_others: list[Delivery] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not to_others or not set(bodies(held[20:])) <= set(bodies(again + to_others)):
                again += await subscription.fetch(40, wait_seconds=0.2)
                to_others += await others.fetch(40, wait_seconds=0.2)

    assert all(delivery.lost for delivery in held[20:])
    assert not any(delivery.lost for delivery in held[:20])
    # Some handled messages have no open message before them in their partition. These were committed before the
    # partition moved, and do not come again.
    assert len(again + to_others) < 40


async def test_acknowledging_a_lost_message_changes_nothing(server: brokers.Broker, name: str) -> None:
    async with joined(server.url, name) as bank:
        subscription = await bank.subscribe(Kind.EVENT)
        await publish(bank, name, 1)
        lost = await take(subscription, 1)
        await subscription.close()
        assert lost[0].lost
        await subscription.acknowledge(lost)
        assert bodies(await take(await bank.subscribe(Kind.EVENT), 1)) == [1]


async def test_topics_are_created_by_the_settings_and_existing_topics_are_left_alone(
    server: brokers.Broker, name: str
) -> None:
    async with joined(server.url, name, partitions=3, retention_seconds=3600):
        partitions, settings = await described(server, name)
        assert partitions == 3
        assert settings["retention.ms"] == "3600000"
        assert settings["min.insync.replicas"] == "1"
    async with joined(server.url, name, partitions=5, retention_seconds=7200):
        partitions, settings = await described(server, name)
        assert (partitions, settings["retention.ms"]) == (3, "3600000")


async def test_more_copies_than_nodes_is_unavailable_and_says_why(server: brokers.Broker, name: str) -> None:
    with pytest.raises(BrokerUnavailable, match=r"topic .* cannot be created: InvalidReplicationFactorError"):
        async with joined(server.url, name, replication=3):
            pass


async def test_an_id_is_made_of_the_place_in_the_log_if_there_is_none(server: brokers.Broker, name: str) -> None:
    async with joined(server.url, name, partitions=1) as bank:
        producer = (await bank.supervised.ready()).producer
        await producer.send_and_wait(name, b"1", headers=[("trace", b"\xff"), ("null", None)])
        (delivery,) = await take(await bank.subscribe(Kind.EVENT), 1)
    headers = {"trace": "\N{REPLACEMENT CHARACTER}", "null": ""}
    assert delivery.message == Message(Kind.EVENT, name, f"{name}:0:0", "", b"1", headers)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_a_topic_that_its_broker_compresses_is_read(server: brokers.Broker, name: str, codec: str) -> None:
    async with joined(server.url, name) as bank, admin_of(server) as admin:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {"compression.type": codec})])
        subscription = await bank.subscribe(Kind.EVENT)
        await publish(bank, name, *range(20))
        assert bodies(await take(subscription, 20)) == list(range(20))


def spoil(server: brokers.Broker, topic: str, body: bytes, how: str) -> None:
    """Change a batch in the log of partition 0, as a failing disk, a newer client or a broken client would."""
    log = server.folder / "data" / f"{topic}-0" / "00000000000000000000.log"
    data = bytearray(log.read_bytes())
    start = 0
    while body not in data[start : (end := start + 12 + int.from_bytes(data[start + 8 : start + 12]))]:
        start = end
    if how == "checksum":
        data[end - 1] ^= 0xFF
    else:
        data[start + 22] |= {"unknown codec": 7, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}[how]
        data[start + 17 : start + 21] = calc_crc32c(bytes(data[start + 21 : end])).to_bytes(4)
    with log.open("r+b") as file:
        file.write(data)


@pytest.mark.parametrize("how", ["checksum", "unknown codec", "gzip", "snappy", "lz4", "zstd"])
async def test_a_batch_that_cannot_be_decoded_is_delivered_as_unreadable_and_all_others_go_on(
    server: brokers.Broker, name: str, how: str
) -> None:
    other = name.replace("paid", "refused")
    async with (
        joined(server.url, name, partitions=1, also=other) as bank,
        joined(server.url, name, partitions=1, also=other) as successor,
    ):
        await publish(bank, name, 1)
        await asyncio.gather(publish(bank, name, 222222), publish(bank, name, 333333))  # both records are in one batch
        await publish(bank, name, 4)
        await publish(bank, other, 5, 6, 7)
        spoil(server, name, b"222222", how)

        subscription = await bank.subscribe(Kind.EVENT)
        taken = await take(subscription, 7)
        await publish(bank, name, 8)
        await publish(bank, other, 9)
        taken += await take(subscription, 2)

        unreadable = [delivery for delivery in taken if delivery.unreadable is not None]
        assert [delivery.message.id for delivery in unreadable] == [f"{name}:0:1", f"{name}:0:2"]
        assert unreadable[0].unreadable is not None
        assert unreadable[0].unreadable.startswith("offset 1 of partition 0 cannot be decoded: ")
        assert [delivery.message.name for delivery in unreadable] == [name] * 2
        assert sorted(bodies([delivery for delivery in taken if delivery not in unreadable])) == [1, 4, 5, 6, 7, 8, 9]
        await subscription.acknowledge(taken)
        await subscription.close()
        assert await (await successor.subscribe(Kind.EVENT)).fetch(1, wait_seconds=1) == []


async def test_partitions_take_turns_after_a_record_that_cannot_be_decoded(server: brokers.Broker, name: str) -> None:
    # On a busy machine one topic may be read to its end before the broker has answered for the other one.
    shares = [await least_share(server, name.replace("bank", f"bank{attempt}"), number=12) for attempt in range(3)]

    assert max(shares) >= 6


async def least_share(server: brokers.Broker, name: str, *, number: int) -> int:
    """Return how many of the first messages of two topics come from the topic that came less often."""
    names = [name, name.replace("paid", "refused")]
    async with joined(server.url, name, partitions=1, also=names[1]) as bank:
        for topic in names:
            await publish(bank, topic, 222222, *range(2 * number))
            spoil(server, topic, b"222222", "checksum")
        subscription = await bank.subscribe(Kind.EVENT)
        found = [(await take(subscription, 1))[0].message.name for _ in range(2 * number)]
    return min(found.count(topic) for topic in names)


async def test_a_producer_that_can_never_send_again_is_replaced(server: brokers.Broker, name: str) -> None:
    async with joined(server.url, name, publish_timeout_seconds=4) as bank:
        publisher = await bank.supervised.ready()
        publisher.producer._sender.sender_task.cancel()  # an error that aiokafka does not survive ends this task, too
        with pytest.raises(BrokerUnavailable):
            await publish(bank, name, 1)
        assert await bank.supervised.ready() is not publisher
        await publish(bank, name, 2)


async def test_kafka_speaks_tls_with_a_password(
    server: brokers.Broker, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.secure_url
    monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
    async with joined(server.secure_url, name) as bank:
        subscription = await bank.subscribe(Kind.EVENT)
        await publish(bank, name, 1)
        assert bodies(await take(subscription, 1)) == [1]
    with pytest.raises(BrokerUnavailable):
        async with joined(server.secure_url.replace("slipway", "somebody"), name):
            pass


async def test_a_certificate_that_nobody_vouches_for_is_not_trusted(server: brokers.Broker, name: str) -> None:
    assert server.secure_url
    with pytest.raises(BrokerUnavailable):
        async with joined(server.secure_url, name):
            pass


async def test_a_loss_and_a_return_of_the_broker_are_logged_once_each(
    server: brokers.Broker, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, problem: problems.append(problem))
    monkeypatch.setattr(kafka, "GIVE_UP_SECONDS", 2 * PATIENCE_SECONDS)  # a busy machine takes long to start a broker
    async with joined(server.url, name, redelivery_seconds=PATIENCE_SECONDS) as bank:
        subscription = await bank.subscribe(Kind.EVENT)
        await publish(bank, name, 1)
        held = await take(subscription, 1)
        server.kill()
        sending = asyncio.create_task(publish(bank, name, 2))
        with pytest.raises(BrokerUnavailable):
            await sending
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "broker_connection_lost" not in (shown := capsys.readouterr().out):
                await subscription.fetch(1, wait_seconds=0.5)
        assert shown.count("\n") == 1
        assert not bank.connected
        server.start()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not bank.connected:  # the connection comes back although nothing is sent
                await subscription.fetch(1, wait_seconds=0.5)
        assert capsys.readouterr().out.count("broker_connection_restored") == 1
        # A short absence takes no partition away from us.
        assert not held[0].lost
        await subscription.acknowledge(held)
        await publish(bank, name, 3)
        assert bodies(await take(subscription, 1)) == [3]
    asyncio.get_running_loop().set_exception_handler(None)
    assert problems == []
