"""The peculiarities of NATS: order after every kind of loss, shared streams, and a server that loses its state."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from chassis.brokers import Broker, BrokerUnavailable, Kind, MessageRefused, Subscription
from chassis.brokers.nats.broker import NatsBroker
from nats.aio.client import Client, ServerVersion
from nats.js import JetStreamContext

from tests.chassis.brokers.meeting import PATIENCE_SECONDS, Meeting, bodies, nothing_comes, take
from tests.support import brokers
from tests.support.link import Link

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("nats")]

BOTH: dict[str, Any] = {"publishes": ["bank.paid.v1"], "awaits": ["bank.paid.v1"]}


@pytest.fixture(scope="module")
def server() -> Generator[brokers.Broker]:
    with brokers.nats() as server:
        yield server


@pytest.fixture
async def meeting(server: brokers.Broker) -> AsyncGenerator[Meeting]:
    meeting = Meeting(server.url)
    yield meeting
    await meeting.end()


@pytest.fixture
def link(server: brokers.Broker) -> Generator[Link]:
    with Link(server.url) as link:
        yield link


@pytest.fixture(params=["2.10.0", "2.15.0"])
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Pretend that the server has this version. Older versions cannot reset a consumer, so the broker replaces it."""
    monkeypatch.setattr(Client, "connected_server_version", ServerVersion(request.param))
    return request.param


@asynccontextmanager
async def bare(url: str) -> AsyncGenerator[JetStreamContext]:
    client = await nats.connect(url)
    yield client.jetstream()
    await client.close()


async def publish(meeting: Meeting, broker: Broker, number: int) -> None:
    for _ in range(number):
        await broker.publish(meeting.event())


async def take_all(subscription: Subscription, last: int) -> list[int]:
    """Consume the numbers in their order, up to the last. Leave copies out, as the inbox does."""
    came: dict[int, None] = {}
    async with asyncio.timeout(PATIENCE_SECONDS):
        while last not in came:
            try:
                came |= dict.fromkeys(bodies(await subscription.fetch(100, wait_seconds=0.5)))
            except BrokerUnavailable:
                await asyncio.sleep(0.1)
    return list(came)


async def test_a_successor_of_a_consumer_that_died_takes_its_events_first(
    meeting: Meeting, link: Link, version: str
) -> None:
    # The server redelivers later than the test waits: a broker that only waits for the redelivery fails this test.
    dying = await meeting.join("bank", **BOTH, url=link.url, redelivery_seconds=2 * PATIENCE_SECONDS)
    subscription = await dying.subscribe(Kind.EVENT)
    await publish(meeting, dying, 10)
    taken = await take(subscription, 10)
    await subscription.acknowledge([taken[0], taken[4], taken[7]])
    async with bare(meeting.url) as jetstream, asyncio.timeout(PATIENCE_SECONDS):
        bank = meeting.name("bank").removesuffix(".")
        while (await jetstream.consumer_info(f"{bank}-events", bank)).num_ack_pending > 7:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    link.cut()

    bank = await meeting.join("bank", **BOTH, redelivery_seconds=2 * PATIENCE_SECONDS)
    await publish(meeting, bank, 5)
    came = await take_all(await bank.subscribe(Kind.EVENT), 15)

    new = [number for number in came if number not in (5, 8)]
    assert new == [2, 3, 4, 6, 7, 9, 10, 11, 12, 13, 14, 15]
    assert came == sorted(came)


@pytest.mark.parametrize("acknowledged", [False, True])
async def test_a_predecessor_that_is_lost_but_not_gone_takes_nothing_away(
    meeting: Meeting, link: Link, version: str, acknowledged: bool
) -> None:
    lost = await meeting.join("bank", **BOTH, url=link.url)
    subscription = await lost.subscribe(Kind.EVENT)
    await publish(meeting, lost, 10)
    taken = await take(subscription, 10)
    if acknowledged:
        await subscription.acknowledge(taken)
    assert await subscription.fetch(3, wait_seconds=0.1) == []  # the request of this fetch still waits at the server
    link.freeze()

    bank = await meeting.join("bank", **BOTH)
    successor = await bank.subscribe(Kind.EVENT)
    came = bodies(await successor.fetch(1, wait_seconds=0.1))
    await publish(meeting, bank, 5)

    came += [number for number in await take_all(successor, 15) if number not in came]
    assert came == list(range(11 if acknowledged else 1, 16))
    link.cut()


async def test_events_stay_in_order_when_the_connection_breaks(meeting: Meeting, link: Link, version: str) -> None:
    bank = await meeting.join("bank", **BOTH)
    listening = await meeting.join("bank", **BOTH, url=link.url)
    subscription = await listening.subscribe(Kind.EVENT)
    await publish(meeting, bank, 5)
    came = bodies(await take(subscription, 3))
    link.cut()
    await publish(meeting, bank, 5)
    link.restore()

    came += [number for number in await take_all(subscription, 10) if number not in came]
    assert came == list(range(1, 11))


async def test_an_event_that_is_lost_on_the_way_is_not_overtaken(
    meeting: Meeting, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = await meeting.join("bank", **BOTH)
    subscription = await bank.subscribe(Kind.EVENT)
    await publish(meeting, bank, 2)
    came = bodies(await take(subscription, 2))
    receive, dropped = Client._process_msg, []

    async def lossy(self: Client, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if bytes(data) == b"4" and not dropped:
            dropped.append(data)
        else:
            await receive(self, sid, subject, reply, data, headers)

    monkeypatch.setattr(Client, "_process_msg", lossy)
    await publish(meeting, bank, 6)

    came += [number for number in await take_all(subscription, 8) if number not in came]
    assert dropped
    assert came == list(range(1, 9))


async def test_a_server_that_lost_everything_is_told_again(tmp_path: Path) -> None:
    with brokers.nats(tmp_path) as server:
        meeting = Meeting(server.url)
        bank = await meeting.join("bank", **BOTH)
        subscription = await bank.subscribe(Kind.EVENT)
        await publish(meeting, bank, 3)
        await subscription.acknowledge(await take(subscription, 3))

        server.kill()
        shutil.rmtree(tmp_path / "data")
        server.start()

        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    await bank.publish(meeting.event(body=b"99"))
                    break
                except BrokerUnavailable:
                    await asyncio.sleep(0.1)
        assert await take_all(subscription, 99) == [99]
        await meeting.end()


async def test_a_stream_that_was_deleted_is_made_again(meeting: Meeting) -> None:
    bank = await meeting.join("bank", **BOTH)
    async with bare(meeting.url) as jetstream:
        await jetstream.delete_stream(meeting.name("bank").removesuffix(".") + "-events")

    with pytest.raises(BrokerUnavailable):
        await bank.publish(meeting.event())
    await bank.publish(meeting.event())

    assert bodies(await take(await bank.subscribe(Kind.EVENT), 1)) == [2]


async def test_a_client_that_the_server_threw_out_comes_back(meeting: Meeting) -> None:
    bank = await meeting.join("bank", **BOTH)
    assert isinstance(bank, NatsBroker)
    subscription = await bank.subscribe(Kind.EVENT)
    await publish(meeting, bank, 1)
    await take(subscription, 1)

    await bank.connection.client._send_command(b"NONSENSE\r\n")
    await bank.connection.client._flush_pending()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not bank.connection.client.is_closed:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    await publish(meeting, bank, 1)
    assert await take_all(subscription, 2) == [1, 2]


async def test_a_server_that_hangs_is_unavailable_for_all_at_the_same_time(meeting: Meeting, link: Link) -> None:
    bank = await meeting.join("bank", **BOTH, url=link.url, publish_timeout_seconds=1)
    link.freeze()
    async with asyncio.timeout(120):  # calls that follow each other would take 500 s
        sent = await asyncio.gather(*(bank.publish(meeting.event()) for _ in range(500)), return_exceptions=True)
    assert {type(outcome) for outcome in sent} == {BrokerUnavailable}
    link.restore()


async def test_the_settings_of_the_owner_count(meeting: Meeting) -> None:
    await meeting.join("shop", awaits=["bank.paid.v1"], retention_seconds=60)
    stream = meeting.name("bank").removesuffix(".") + "-events"
    async with bare(meeting.url) as jetstream:
        assert (await jetstream.stream_info(stream)).config.max_age == 60
        await meeting.join("bank", publishes=["bank.paid.v1"], retention_seconds=7200)
        await meeting.join("shop", awaits=["bank.paid.v1"], retention_seconds=60)
        config = (await jetstream.stream_info(stream)).config

    assert (config.max_age, config.duplicate_window) == (7200, 120)
    assert config.subjects == [meeting.name("bank.paid.v1")]


async def test_more_copies_than_servers_are_unavailable_and_say_so(meeting: Meeting) -> None:
    with pytest.raises(BrokerUnavailable, match="replicas > 1"):
        await meeting.join("bank", **BOTH, replication=3)


async def test_an_older_version_of_a_service_does_not_make_a_newer_one_miss_events(meeting: Meeting) -> None:
    names = ["bank.paid.v1", "bank.refused.v1"]
    bank = await meeting.join("bank", publishes=names)
    newer = await meeting.join("shop", awaits=names)
    await (await newer.subscribe(Kind.EVENT)).fetch(1, wait_seconds=0.1)
    await meeting.leave(newer)

    older = await meeting.join("shop", awaits=names[:1])
    subscription = await older.subscribe(Kind.EVENT)
    await bank.publish(meeting.event("bank.refused.v1"))
    assert bodies(await take(subscription, 1)) == [1]


async def test_a_copy_within_two_minutes_is_not_kept(meeting: Meeting) -> None:
    bank = await meeting.join("bank", **BOTH)
    event = meeting.event()
    await bank.publish(event)
    await bank.publish(event)
    subscription = await bank.subscribe(Kind.EVENT)
    assert len(await take(subscription, 1)) == 1
    assert await nothing_comes(subscription)


async def test_a_message_with_too_large_headers_is_refused_and_the_connection_stays(meeting: Meeting) -> None:
    bank = await meeting.join("bank", **BOTH)
    assert isinstance(bank, NatsBroker)
    with pytest.raises(MessageRefused, match="the server takes 1048576"):
        await bank.publish(meeting.event(body=b"x" * (2**20 - 10)))
    assert bank.connected
    assert bank.connection.breaks == 0


@pytest.mark.parametrize("key", [" a", "a\nb", "a\r\nid: other"])
async def test_a_header_that_nats_would_change_is_refused(meeting: Meeting, key: str) -> None:
    bank = await meeting.join("bank", **BOTH)
    with pytest.raises(MessageRefused, match="key"):
        await bank.publish(meeting.event(key=key))


async def test_a_url_that_promises_encryption_is_not_spoken_to_without(server: brokers.Broker) -> None:
    meeting = Meeting(server.url.replace("nats://", "tls://user:secret@"))
    with pytest.raises(BrokerUnavailable, match="secure connection not available"):
        await meeting.join("bank", **BOTH, publish_timeout_seconds=3)
    await meeting.end()


async def test_nats_speaks_tls_to_a_server_that_an_authority_vouches_for(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        certificate, key = map(str, brokers.self_signed())
    except brokers.Missing as missing:
        pytest.skip(str(missing))
    with brokers.nats(None, None, "--tls", "--tlscert", certificate, "--tlskey", key) as secure:
        url = secure.url.replace("nats://", "tls://")
        stranger = Meeting(url)
        with pytest.raises(BrokerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await stranger.join("bank", **BOTH, publish_timeout_seconds=3)
        await stranger.end()

        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        meeting = Meeting(url)
        bank = await meeting.join("bank", **BOTH)
        await publish(meeting, bank, 1)
        await meeting.end()


async def test_special_characters_of_a_password_are_percent_encoded_in_the_url() -> None:
    with brokers.nats(None, None, "--user", "bank@home", "--pass", "a/b:c%") as guarded:
        meeting = Meeting(guarded.url.replace("nats://", "nats://bank%40home:a%2Fb%3Ac%25@"))
        bank = await meeting.join("bank", **BOTH)
        await publish(meeting, bank, 1)
        await meeting.end()
        stranger = Meeting(guarded.url.replace("nats://", "nats://bank%40home:wrong@"))
        with pytest.raises(BrokerUnavailable, match=r"(?i)authorization"):
            await stranger.join("bank", **BOTH, publish_timeout_seconds=3)
        await stranger.end()


async def test_several_servers_may_be_named(server: brokers.Broker) -> None:
    meeting = Meeting(f"nats://127.0.0.1:{brokers.free_port()},{server.url}")
    bank = await meeting.join("bank", **BOTH)
    await publish(meeting, bank, 1)
    await meeting.end()


async def test_a_connection_survives_a_ping_for_which_nobody_waits_any_longer(meeting: Meeting) -> None:
    bank = await meeting.join("bank", **BOTH)
    assert isinstance(bank, NatsBroker)
    client = bank.connection.client
    waiting = asyncio.create_task(client.flush())
    while not client._pongs:  # noqa: ASYNC110 (until the ping is sent, and its answer is on the way)
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    await client.flush(int(PATIENCE_SECONDS))
    await bank.publish(meeting.event())
    assert bank.connection.breaks == 0
