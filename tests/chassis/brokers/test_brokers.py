"""The promises of every broker, tested on real brokers: the same tests for each."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aiormq
import nats
import pytest
from aiokafka import AIOKafkaProducer
from chassis.brokers import (
    Broker,
    BrokerUnavailable,
    Delivery,
    Kind,
    Message,
    MessageRefused,
    Options,
    Subscription,
    broker_for,
)
from pydantic import SecretStr

from tests.chassis.brokers.meeting import (
    PATIENCE_SECONDS,
    QUIET_SECONDS,
    Meeting,
    bodies,
    nothing_comes,
    take,
)
from tests.chassis.each_broker import Run, each_of
from tests.support import brokers

pytestmark = pytest.mark.slow

BACK_SECONDS = 180
"""How long a broker may take to work again after its restart."""
HELD_UP_SECONDS = 6
"""How long this process may be held up on a busy machine: Kafka's group expects four signs of a member in this time."""


@pytest.fixture(params=each_of("memory", "nats", "kafka", "rabbitmq"))
async def meeting(request: pytest.FixtureRequest, run: Run) -> AsyncGenerator[Meeting]:
    url = f"memory://{uuid4()}" if request.param == "memory" else run(request.param).url
    meeting = Meeting(url)
    yield meeting
    await meeting.end()


async def test_a_message_arrives_unchanged(meeting: Meeting) -> None:
    bank = await meeting.join(
        "bank", publishes=["bank.paid.v1"], awaits=["bank.paid.v1"], sends=["bank.pay.v1"], accepts=["bank.pay.v1"]
    )
    headers = {
        "content-type": "application/json",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "subject": "auth0|Zoë 17",
        "note": "grüße 👋 100 %",
        "empty": "",
    }
    for kind, name in ((Kind.EVENT, "bank.paid.v1"), (Kind.JOB, "bank.pay.v1")):
        sent = Message(
            kind, meeting.name(name), str(uuid4()), "Zürich/你好 1", b'{"amount": "1 \xe2\x82\xac"}\n', headers
        )
        subscription = await bank.subscribe(kind)
        await bank.publish(sent)
        (delivery,) = await take(subscription, 1)
        assert delivery.message == sent
        assert not delivery.lost
        await subscription.acknowledge([delivery])


async def test_declaring_again_and_by_others_takes_nothing_away(meeting: Meeting) -> None:
    bank = await meeting.join("bank", publishes=["bank.paid.v1"], awaits=["bank.paid.v1"])
    subscription = await bank.subscribe(Kind.EVENT)
    await bank.publish(meeting.event())

    await meeting.join("bank", publishes=["bank.paid.v1"], awaits=["bank.paid.v1"])
    shop = await meeting.join("shop", awaits=["bank.refused.v1"])
    newer = await meeting.join("bank", publishes=["bank.refused.v1"])
    await bank.publish(meeting.event())
    await newer.publish(meeting.event("bank.refused.v1"))

    assert bodies(await take(subscription, 2)) == [1, 2]
    assert bodies(await take(await shop.subscribe(Kind.EVENT), 1)) == [3]


async def test_services_that_declare_at_the_same_time_do_not_undo_each_other(meeting: Meeting) -> None:
    names = [f"bank.event-{number}.v1" for number in range(6)]
    listeners = await asyncio.gather(*(meeting.join(f"shop{name[11]}", awaits=[name]) for name in names))
    bank = await meeting.join("bank", publishes=names)

    for name, listener in zip(names, listeners, strict=True):
        message = meeting.event(name)
        await bank.publish(message)
        (delivery,) = await take(await listener.subscribe(Kind.EVENT), 1)
        assert delivery.message == message


async def test_a_service_that_listens_first_misses_no_event(meeting: Meeting) -> None:
    shop = await meeting.join("shop", awaits=["bank.paid.v1"])
    bank = await meeting.join("bank", publishes=["bank.paid.v1"])
    await bank.publish(meeting.event())

    assert bodies(await take(await shop.subscribe(Kind.EVENT), 1)) == [1]


async def test_every_service_gets_an_event(meeting: Meeting) -> None:
    bank = await meeting.join("bank", publishes=["bank.paid.v1"])
    shops = [await meeting.join(name, awaits=["bank.paid.v1"]) for name in ("shop", "store")]
    subscriptions = [await shop.subscribe(Kind.EVENT) for shop in shops]
    await bank.publish(meeting.event())

    for subscription in subscriptions:
        (delivery,) = await take(subscription, 1)
        await subscription.acknowledge([delivery])
        assert await nothing_comes(subscription)


async def test_a_service_receives_only_the_messages_that_the_service_awaits(meeting: Meeting) -> None:
    bank = await meeting.join("bank", publishes=["bank.paid.v1", "bank.refused.v1"])
    shop = await meeting.join("shop", awaits=["bank.paid.v1"])
    subscription = await shop.subscribe(Kind.EVENT)
    await bank.publish(meeting.event("bank.refused.v1"))
    await bank.publish(meeting.event("bank.paid.v1"))

    assert bodies(await take(subscription, 1)) == [2]
    assert await nothing_comes(subscription)


async def test_events_of_a_key_arrive_in_the_order_of_their_publication(meeting: Meeting) -> None:
    bank = await meeting.join(
        "bank", publishes=["bank.paid.v1"], awaits=["bank.paid.v1"], redelivery_seconds=HELD_UP_SECONDS
    )
    subscription = await bank.subscribe(Kind.EVENT)

    async def publish(key: str) -> None:
        for number in range(20):
            await bank.publish(meeting.event(key=key, body=str(number).encode()))

    await asyncio.gather(*(publish(f"key {number}") for number in range(20)))

    by_key: dict[str, list[int]] = {}
    for delivery in await take(subscription, 400):
        by_key.setdefault(delivery.message.key, []).append(int(delivery.message.body))
    assert by_key == {f"key {number}": list(range(20)) for number in range(20)}


async def test_a_fetch_takes_no_more_than_its_limit(meeting: Meeting) -> None:
    bank = await meeting.join("bank", publishes=["bank.paid.v1"], awaits=["bank.paid.v1"])
    subscription = await bank.subscribe(Kind.EVENT)
    for _ in range(5):
        await bank.publish(meeting.event())
    assert bodies(await take(subscription, 1)) == [1]
    assert len(await subscription.fetch(2, wait_seconds=PATIENCE_SECONDS)) <= 2


async def test_a_fetch_with_nothing_to_take_ends_in_time(meeting: Meeting) -> None:
    bank = await meeting.join("bank", awaits=["bank.paid.v1"])
    subscription = await bank.subscribe(Kind.EVENT)
    await subscription.fetch(10, wait_seconds=1)  # Kafka's group forms during this fetch

    took = []
    for _ in range(5):
        started = time.monotonic()
        assert await subscription.fetch(10, wait_seconds=0.3) == []
        took.append(time.monotonic() - started)
    assert 0.2 < min(took) < 1  # the best of several attempts, because this machine may be busy


async def test_a_silent_owner_does_not_delay_the_events_of_another(meeting: Meeting) -> None:
    bank = await meeting.join("bank", publishes=["bank.paid.v1"])
    shop = await meeting.join("shop", awaits=["bank.paid.v1", "post.sent.v1"])
    subscription = await shop.subscribe(Kind.EVENT)
    await bank.publish(meeting.event())
    await take(subscription, 1)

    async def soon() -> float:
        await asyncio.sleep(0.1)
        started = time.monotonic()
        await bank.publish(meeting.event())
        return started

    took = []
    for number in range(2, 14):
        published = asyncio.create_task(soon())
        (delivery,) = await subscription.fetch(10, wait_seconds=PATIENCE_SECONDS)
        took.append(time.monotonic() - await published)
        assert bodies([delivery]) == [number]
        await subscription.acknowledge([delivery])
    assert sorted(took)[2] < 0.4  # a busy machine delays some messages, but a silent owner would delay each message


async def two_replicas(meeting: Meeting, **options: Any) -> tuple[Broker, list[Subscription]]:
    """Two replicas that both get jobs. Kafka first assigns the partitions, and redelivers some jobs meanwhile."""
    names: dict[str, Any] = {"sends": ["bank.pay.v1"], "accepts": ["bank.pay.v1"]}
    replicas = [await meeting.join("bank", **names, **options) for _ in range(2)]
    subscriptions = [await replica.subscribe(Kind.JOB) for replica in replicas]
    without = set(subscriptions)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while without:
        assert time.monotonic() < deadline, "one replica got nothing"
        for _ in subscriptions:
            await replicas[0].publish(meeting.job())
        for subscription in subscriptions:
            if fetched := await subscription.fetch(1, wait_seconds=0.1):
                await subscription.acknowledge(fetched)
                without.discard(subscription)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while left := [
            (each, fetched) for each in subscriptions if (fetched := await each.fetch(100, wait_seconds=0.5))
        ]:
            for subscription, fetched in left:
                await subscription.acknowledge(fetched)
    return replicas[0], subscriptions


async def test_replicas_share_jobs_and_none_is_done_twice(meeting: Meeting) -> None:
    bank, subscriptions = await two_replicas(meeting, redelivery_seconds=HELD_UP_SECONDS)
    jobs = [meeting.job() for _ in range(40)]
    done: list[str] = []

    async def work(subscription: Subscription) -> int:
        mine = 0
        while True:
            fetched = await subscription.fetch(2, wait_seconds=QUIET_SECONDS)
            if not fetched and len(done) >= len(jobs):
                return mine
            await asyncio.sleep(0.01)
            done.extend(delivery.message.id for delivery in fetched)
            mine += len(fetched)
            await subscription.acknowledge(fetched)

    for job in jobs:
        await bank.publish(job)
    async with asyncio.timeout(PATIENCE_SECONDS):
        shares = await asyncio.gather(*map(work, subscriptions))

    assert sorted(done) == sorted(job.id for job in jobs)
    assert min(shares) > 0


async def test_jobs_that_wait_for_another_attempt_do_not_delay_others(meeting: Meeting) -> None:
    bank = await meeting.join("bank", sends=["bank.pay.v1"], accepts=["bank.pay.v1"], max_in_flight=20)
    subscription = await bank.subscribe(Kind.JOB)
    jobs = [meeting.job() for _ in range(60)]
    for job in jobs:
        await bank.publish(job)

    held = await take(subscription, 60)

    assert {delivery.message.id for delivery in held} == {job.id for job in jobs}
    await subscription.acknowledge(held[::2])
    await subscription.acknowledge(held[1::2])
    await bank.publish(job := meeting.job())
    assert [delivery.message for delivery in await take(subscription, 1)] == [job]


async def test_an_acknowledged_message_is_not_delivered_again(meeting: Meeting) -> None:
    names: dict[str, Any] = {"sends": ["bank.pay.v1"], "accepts": ["bank.pay.v1"]}
    bank = await meeting.join("bank", publishes=["bank.paid.v1"], awaits=["bank.paid.v1"], **names)
    for kind, make in ((Kind.EVENT, meeting.event), (Kind.JOB, meeting.job)):
        subscription = await bank.subscribe(kind)
        for _ in range(5):
            await bank.publish(make())
        await subscription.acknowledge(await take(subscription, 5))
        await subscription.close()
    await meeting.leave(bank)

    again = await meeting.join("bank", publishes=["bank.paid.v1"], awaits=["bank.paid.v1"], **names)
    for kind in Kind:
        assert await nothing_comes(await again.subscribe(kind))


async def test_unacknowledged_events_are_redelivered_before_newer_events(meeting: Meeting) -> None:
    bank = await meeting.join("bank", publishes=["bank.paid.v1"], awaits=["bank.paid.v1"])
    subscription = await bank.subscribe(Kind.EVENT)
    for _ in range(10):
        await bank.publish(meeting.event())
    first = await take(subscription, 10)
    await subscription.acknowledge(first[:3])
    await meeting.leave(bank, subscription)

    bank = await meeting.join("bank", publishes=["bank.paid.v1"], awaits=["bank.paid.v1"])
    for _ in range(5):
        await bank.publish(meeting.event())
    subscription = await bank.subscribe(Kind.EVENT)
    assert bodies(await take(subscription, 12)) == list(range(4, 16))


async def test_jobs_that_were_not_acknowledged_come_again(meeting: Meeting) -> None:
    bank = await meeting.join("bank", sends=["bank.pay.v1"], accepts=["bank.pay.v1"])
    subscription = await bank.subscribe(Kind.JOB)
    for _ in range(3):
        await bank.publish(meeting.job())
    await take(subscription, 3)
    await meeting.leave(bank, subscription)

    bank = await meeting.join("bank", sends=["bank.pay.v1"], accepts=["bank.pay.v1"])
    assert sorted(bodies(await take(await bank.subscribe(Kind.JOB), 3))) == [1, 2, 3]


@pytest.mark.parametrize("kind", Kind)
async def test_a_released_message_is_delivered_again_at_once(meeting: Meeting, kind: Kind) -> None:
    make = meeting.event if kind is Kind.EVENT else meeting.job
    names: dict[str, Any] = {"publishes": ["bank.paid.v1"], "sends": ["bank.pay.v1"]}
    first = await meeting.join("bank", **names, awaits=["bank.paid.v1"], accepts=["bank.pay.v1"])
    subscription = await first.subscribe(kind)
    for _ in range(4):
        await first.publish(make())
    taken = await take(subscription, 4)
    await subscription.acknowledge(taken[:1])
    await subscription.release(taken[1:])
    await subscription.close()

    second = await meeting.join("bank", **names, awaits=["bank.paid.v1"], accepts=["bank.pay.v1"])
    subscription = await second.subscribe(kind)
    assert sorted(bodies(await take(subscription, 3))) == sorted(bodies(taken[1:]))


async def test_jobs_of_a_queue_go_to_the_subscribers_of_that_queue_alone(meeting: Meeting) -> None:
    queue = f"bank-{meeting.suffix}--slow"
    names = [meeting.name("bank.pay.v1"), f"{queue}.report.v1"]
    shop = await meeting.join("shop", sends=names, literal=True)
    bank = await meeting.join("bank", sends=names, accepts=names, literal=True)
    usual, slow = await bank.subscribe(Kind.JOB), await bank.subscribe(Kind.JOB, queue)
    for sender in (shop, bank):
        for body, name in enumerate(names, 1):
            await sender.publish(Message(Kind.JOB, name, str(uuid4()), str(uuid4()), str(body).encode()))
    for subscription, body in ((usual, 1), (slow, 2)):
        taken = await take(subscription, 2)
        assert bodies(taken) == [body, body]
        await subscription.acknowledge(taken)
        assert await nothing_comes(subscription)


async def test_a_touched_message_is_not_delivered_again(meeting: Meeting) -> None:
    bank, subscriptions = await two_replicas(meeting, redelivery_seconds=HELD_UP_SECONDS)
    await bank.publish(meeting.job())

    held: list[tuple[Subscription, Delivery]] = []
    until = time.monotonic() + 1.3 * HELD_UP_SECONDS
    while time.monotonic() < until:
        for subscription in subscriptions:
            held += [(subscription, each) for each in await subscription.fetch(1, wait_seconds=0.2)]
        for subscription, delivery in held:
            await subscription.touch([delivery])

    assert len(held) == 1


SIZES_BYTES = {"memory": 2**21, "nats": 2**21, "kafka": 2**21, "amqp": 2**23}


async def test_a_message_that_is_too_large_is_refused_and_others_go_on(meeting: Meeting) -> None:
    bank = await meeting.join("bank", publishes=["bank.paid.v1"], awaits=["bank.paid.v1"])
    large = b"x" * SIZES_BYTES[meeting.kind_of_broker]
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(MessageRefused):
            await bank.publish(meeting.event(body=large))

        await bank.publish(meeting.event(body=b"7"))

    assert bodies(await take(await bank.subscribe(Kind.EVENT), 1)) == [7]


async def _to_nats(url: str, name: str, body: bytes) -> None:
    client = await nats.connect(url)
    await client.publish(name, body)
    await client.close()


async def _to_kafka(url: str, name: str, body: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=url.removeprefix("kafka://"))
    await producer.start()
    await producer.send_and_wait(name, body)
    await producer.stop()


async def _to_rabbitmq(url: str, name: str, body: bytes) -> None:
    connection = await aiormq.connect(url)
    channel = await connection.channel()
    await channel.basic_publish(body, exchange=name.partition(".")[0], routing_key=name)
    await connection.close()


FOREIGN: dict[str, Callable[[str, str, bytes], Awaitable[None]]] = {
    "nats": _to_nats,
    "kafka": _to_kafka,
    "amqp": _to_rabbitmq,
}


@pytest.mark.parametrize("meeting", each_of("nats", "kafka", "rabbitmq"), indirect=True)
async def test_a_message_of_others_without_our_headers_has_the_same_id_in_every_copy(meeting: Meeting) -> None:
    publish = FOREIGN[meeting.kind_of_broker]
    seen = []
    for _ in range(2):
        bank = await meeting.join("bank", publishes=["bank.paid.v1"], awaits=["bank.paid.v1"])
        if not seen:
            await publish(meeting.url, meeting.name("bank.paid.v1"), b"1")
            await publish(meeting.url, meeting.name("bank.paid.v1"), b"2")
        subscription = await bank.subscribe(Kind.EVENT)
        taken = await take(subscription, 2)
        seen.append({each.message.body: each.message.id for each in taken})
        await meeting.leave(bank, subscription)

    assert seen[0] == seen[1]
    assert seen[0].keys() == {b"1", b"2"}
    assert all(seen[0].values())
    assert len(set(seen[0].values())) == 2
    assert {each.message.name for each in taken} == {meeting.name("bank.paid.v1")}


async def test_many_publish_at_the_same_time(meeting: Meeting) -> None:
    bank = await meeting.join(
        "bank", publishes=["bank.paid.v1"], awaits=["bank.paid.v1"], redelivery_seconds=HELD_UP_SECONDS
    )
    subscription = await bank.subscribe(Kind.EVENT)
    messages = [meeting.event(key=str(number)) for number in range(500)]
    await asyncio.gather(*map(bank.publish, messages))

    taken = {delivery.message.id for delivery in await take(subscription, 500)}
    assert taken == {message.id for message in messages}


@pytest.mark.parametrize("meeting", each_of("nats", "kafka", "rabbitmq"), indirect=True)
async def test_an_unreachable_broker_is_unavailable_in_bounded_time(meeting: Meeting) -> None:
    port = brokers.free_port()
    nobody = urlsplit(meeting.url)._replace(netloc=f"127.0.0.1:{port}").geturl()
    broker = broker_for(Options(url=SecretStr(nobody), client_name="bank"))
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(BrokerUnavailable):
            await broker.connect()
        assert not broker.connected
        await broker.close()


async def forever(what: Callable[[], Awaitable[object]]) -> None:
    while True:
        await what()


@pytest.mark.parametrize("meeting", each_of("nats", "kafka", "rabbitmq"), indirect=True)
async def test_a_killed_broker_is_unavailable_until_its_restart(meeting: Meeting, run: Run) -> None:
    server = run(meeting.kind_of_broker.replace("amqp", "rabbitmq"))
    bank = await meeting.join("bank", publishes=["bank.paid.v1"], awaits=["bank.paid.v1"])
    subscription = await bank.subscribe(Kind.EVENT)
    for _ in range(3):
        await bank.publish(meeting.event())
    taken = await take(subscription, 3)
    await subscription.acknowledge(taken[:1])
    await asyncio.sleep(1.5)  # Kafka and NATS store the acknowledgement a little later

    server.kill()
    try:
        lost = [meeting.event() for _ in range(100)]
        async with asyncio.timeout(PATIENCE_SECONDS):
            failures = await asyncio.gather(*map(bank.publish, lost), return_exceptions=True)
            with pytest.raises(BrokerUnavailable):
                await forever(lambda: subscription.fetch(1, wait_seconds=1))
        assert {type(failure) for failure in failures} == {BrokerUnavailable}
        assert not bank.connected
    finally:
        server.start()

    async def again(what: Callable[[], Awaitable[object]]) -> object:
        async with asyncio.timeout(BACK_SECONDS):
            while True:
                try:
                    return await what()
                except BrokerUnavailable:
                    await asyncio.sleep(0.2)

    after = meeting.event(body=b"999")
    await again(lambda: bank.publish(after))
    assert bank.connected
    came: list[int] = []
    async with asyncio.timeout(BACK_SECONDS):
        while 999 not in came:
            fetched = await again(lambda: subscription.fetch(100, wait_seconds=0.5))
            assert isinstance(fetched, list)
            await subscription.acknowledge(fetched)
            came += bodies(fetched)
    # The broker may redeliver 2 and 3, which this process still holds. They then come before newer messages.
    assert came == sorted(came)
