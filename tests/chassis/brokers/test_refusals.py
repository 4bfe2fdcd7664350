"""Provoke every refusal at real brokers: each must fall on the message that caused it, with the broker's reason."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiormq
import nats
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.admin import CreateAclsRequest
from chassis.brokers import Broker, BrokerUnavailable, DestinationUnavailable, Kind, Message, MessageRefused
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy

from tests.chassis.brokers.meeting import PATIENCE_SECONDS, Meeting, take
from tests.chassis.each_broker import Run, each_of
from tests.support import brokers

pytestmark = pytest.mark.slow

EVENT, JOB, FORBIDDEN = "bank.paid.v1", "shop.pay.v1", "forbidden.done.v1"
PUBLISH_SECONDS = 2


class Operator(Protocol):
    """The operator of a broker. `name` is always the name of a message."""

    server: brokers.Broker
    url: str
    """The URL of a user who may not publish messages of `forbidden-…`."""
    large: int
    """The size of a body that exceeds the limit."""
    reasons: dict[str, str]
    """The reason that the broker gives, as a pattern, by the kind of refusal."""

    async def limit(self, name: str) -> None:
        """Limit the size of messages that the destination of this name accepts from now on."""
        ...

    async def fill(self, name: str, *, full: bool) -> None: ...

    async def delete(self, name: str) -> None: ...


class Nats:
    large = 3_000
    reasons = {  # noqa: RUF012
        "large": "message size exceeds maximum allowed",
        "full": "maximum messages exceeded",
        "forbidden": "[Pp]ermissions [Vv]iolation",
        "missing": "no stream",
    }

    def __init__(self, server: brokers.Broker) -> None:
        self.server = server
        self.url = server.url.replace("//", "//slipway:a@")

    @asynccontextmanager
    async def _stream(self, name: str) -> AsyncGenerator[tuple[JetStreamContext, str]]:
        client = await nats.connect(self.server.url, user="operator", password="a")
        jetstream = client.jetstream()
        yield jetstream, await jetstream.find_stream_name_by_subject(name)
        await client.close()

    async def change(self, name: str, **settings: Any) -> None:
        async with self._stream(name) as (jetstream, stream):
            await jetstream.update_stream((await jetstream.stream_info(stream)).config, **settings)

    async def limit(self, name: str) -> None:
        await self.change(name, max_msg_size=2_000)

    async def fill(self, name: str, *, full: bool) -> None:
        async with self._stream(name) as (jetstream, stream):
            held = (await jetstream.stream_info(stream)).state.messages
        await self.change(name, max_msgs=held or 1 if full else -1, discard=DiscardPolicy.NEW)

    async def delete(self, name: str) -> None:
        async with self._stream(name) as (jetstream, stream):
            await jetstream.delete_stream(stream)


class Kafka:
    large = 3_000
    reasons = {  # noqa: RUF012
        "large": "MessageSizeTooLarge",
        "forbidden": "TopicAuthorizationFailed",
        "missing": "UnknownTopicOrPartition|NotLeaderForPartition",
    }

    def __init__(self, server: brokers.Broker) -> None:
        self.server = server
        self.url = server.url

    @asynccontextmanager
    async def _admin(self) -> AsyncGenerator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=urlsplit(self.server.url).netloc)
        await admin.start()
        yield admin
        await admin.close()

    async def forbid(self) -> None:
        topic, prefixed, everywhere, everything, write, deny, allow = 2, 4, "*", 2, 4, 2, 3
        async with self._admin() as admin:
            for user, operation, permission in (("*", everything, allow), ("ANONYMOUS", write, deny)):
                rule = (topic, "forbidden-", prefixed, f"User:{user}", everywhere, operation, permission)
                answer: Any = await admin._send_request(CreateAclsRequest(*rule))
                assert answer.creation_responses[0][0] == 0, answer

    async def change(self, name: str, **settings: object) -> None:
        values = {setting.replace("_", "."): str(value) for setting, value in settings.items()}
        async with self._admin() as admin:
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, values)])

    async def limit(self, name: str) -> None:
        await self.change(name, max_message_bytes=2_000)

    async def fill(self, name: str, *, full: bool) -> None:
        raise NotImplementedError("Kafka deletes old records rather than refuse new ones")

    async def delete(self, name: str) -> None:
        async with self._admin() as admin:
            await admin.delete_topics([name])


class RabbitMq:
    large = 4 * 2**20 + 1
    reasons = {  # noqa: RUF012
        "large": "message size .* larger than",
        "full": "did not accept",
        "forbidden": "ACCESS_REFUSED",
        "missing": "NOT_FOUND|nobody has declared",
    }

    def __init__(self, server: brokers.Broker) -> None:
        self.server = server
        self.url = server.url.replace("guest:guest", "slipway:a")

    async def control(self, *arguments: str) -> None:
        environment = {**os.environ, **self.server.environment}
        program = "/usr/lib/rabbitmq/bin/rabbitmqctl"
        node = ("-q", "-n", self.server.environment["RABBITMQ_NODENAME"])
        called = await asyncio.create_subprocess_exec(program, *node, *arguments, env=environment)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await called.wait() == 0

    async def forbid(self) -> None:
        await self.control("add_user", "slipway", "a")
        await self.control("set_permissions", "slipway", ".*", "^(?!forbidden-).*", ".*")

    async def limit(self, name: str) -> None:
        """The tests' server has one limit for all destinations."""

    async def fill(self, name: str, *, full: bool) -> None:
        owner = name.partition(".")[0]
        if full:
            limits = '{"max-length": 1, "overflow": "reject-publish"}'
            await self.control("set_policy", owner, f"^{owner}", limits, "--apply-to", "queues")
        else:
            connection = await aiormq.connect(self.server.url)
            await (await connection.channel()).queue_purge(f"{owner}.events")
            await connection.close()

    async def delete(self, name: str) -> None:
        connection = await aiormq.connect(self.server.url)
        await (await connection.channel()).exchange_delete(name.partition(".")[0])
        await connection.close()


NATS_SETTINGS = """
accounts {
  LARGE: { jetstream: enabled, users: [
    {user: operator, password: a}
    {user: slipway, password: a, permissions: {publish: {deny: ["*.done.v1"]}}}
  ]}
  SMALL: { jetstream: {max_file: 20000}, users: [{user: small, password: a}] }
  DEAF: { jetstream: enabled, users: [{user: deaf, password: a, permissions: {subscribe: {deny: [">"]}}}] }
}
"""


@pytest.fixture(scope="module")
def nats_operator(tmp_path_factory: pytest.TempPathFactory) -> Generator[Nats]:
    settings = tmp_path_factory.mktemp("nats") / "nats.conf"
    settings.write_text(NATS_SETTINGS)
    settings.chmod(0o644)
    with brokers.nats(None, None, "-c", str(settings)) as server:
        yield Nats(server)


@pytest.fixture(scope="session")  # once for the session, because the server keeps its users
def kafka_operator(run: Run) -> Kafka:
    operator = Kafka(run("kafka"))
    asyncio.run(operator.forbid())
    return operator


@pytest.fixture(scope="session")  # once for the session, because the server keeps its users
def rabbitmq_operator(run: Run) -> RabbitMq:
    operator = RabbitMq(run("rabbitmq"))
    asyncio.run(operator.forbid())
    return operator


@pytest.fixture(params=each_of("nats", "kafka", "rabbitmq"))
def operator(request: pytest.FixtureRequest) -> Operator:
    return request.getfixturevalue(f"{request.param}_operator")


@pytest.fixture
async def meeting(operator: Operator) -> AsyncGenerator[Meeting]:
    async with met(operator.url) as meeting:
        yield meeting


@asynccontextmanager
async def met(url: str) -> AsyncGenerator[Meeting]:
    meeting = Meeting(url)
    yield meeting
    await meeting.end()


async def joined(meeting: Meeting, **options: Any) -> Broker:
    """A publisher of all names, with a consumer of its messages."""
    names: dict[str, Any] = {"publishes": [EVENT, FORBIDDEN], "awaits": [EVENT], "sends": [JOB]}
    names["publish_timeout_seconds"] = PUBLISH_SECONDS
    broker = await meeting.join("bank", **(names | options))
    await meeting.join("shop", accepts=[JOB])
    return broker


async def answers(broker: Broker, messages: Sequence[Message]) -> list[Any]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await asyncio.gather(*map(broker.publish, messages), return_exceptions=True)


async def refused_soon(broker: Broker, make: Callable[[], Message]) -> None:
    """Wait for a refusal: brokers apply a change of their operator a little later."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await answers(broker, [make()]) == [None]:
            pass


async def accepted_soon(broker: Broker, message: Message) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                return await broker.publish(message)
            except BrokerUnavailable:
                await asyncio.sleep(0.1)


def reasons(answers: Sequence[Any]) -> str:
    return "\n".join(map(str, answers))


async def test_only_the_message_that_is_too_large_is_refused(meeting: Meeting, operator: Operator) -> None:
    bank = await joined(meeting)
    subscription = await bank.subscribe(Kind.EVENT)
    await operator.limit(meeting.name(EVENT))
    fitting = [meeting.event(key=str(number)) for number in range(20)]

    def large() -> Message:
        return meeting.event(key="large", body=b"x" * operator.large)

    await refused_soon(bank, large)
    found = await answers(bank, [*fitting[:10], large(), *fitting[10:]])

    with pytest.raises(MessageRefused, match=operator.reasons["large"]):
        raise found.pop(10)
    assert found == [None] * 20, reasons(found)
    missing = {message.id for message in fitting}
    while missing:
        missing -= {delivery.message.id for delivery in await take(subscription, 1)}


@pytest.mark.parametrize("operator", each_of("nats", "rabbitmq"), indirect=True)
async def test_a_full_destination_is_unavailable_and_the_others_go_on(meeting: Meeting, operator: Operator) -> None:
    bank = await joined(meeting)
    await bank.publish(meeting.event())
    await operator.fill(meeting.name(EVENT), full=True)
    await refused_soon(bank, meeting.event)

    messages = [meeting.event(key=str(number)) for number in range(3)] + [meeting.job(JOB) for _ in range(3)]
    found = await answers(bank, messages)

    assert all(isinstance(each, DestinationUnavailable) for each in found[:3]), reasons(found)
    with pytest.raises(DestinationUnavailable, match=operator.reasons["full"]):
        raise found[0]
    assert found[3:] == [None] * 3, reasons(found)
    await operator.fill(meeting.name(EVENT), full=False)
    await accepted_soon(bank, meeting.event())


async def test_a_forbidden_destination_is_unavailable_and_the_others_go_on(
    meeting: Meeting, operator: Operator
) -> None:
    bank = await joined(meeting)
    forbidden = [meeting.event(FORBIDDEN, key=str(number)) for number in range(3)]
    allowed = [meeting.event(key=str(number)) for number in range(3)] + [meeting.job(JOB) for _ in range(3)]

    found = await answers(bank, [*forbidden, *allowed])

    assert all(isinstance(each, DestinationUnavailable) for each in found[:3]), reasons(found)
    with pytest.raises(DestinationUnavailable, match=operator.reasons["forbidden"]):
        raise found[0]
    assert found[3:] == [None] * 6, reasons(found)


async def test_a_deleted_destination_is_made_again_and_the_others_go_on(meeting: Meeting, operator: Operator) -> None:
    bank = await joined(meeting)
    await bank.publish(meeting.event())
    await operator.delete(meeting.name(EVENT))

    messages = [meeting.event(key=str(number)) for number in range(3)] + [meeting.job(JOB) for _ in range(3)]
    found = await answers(bank, messages)

    assert all(each is None or isinstance(each, DestinationUnavailable) for each in found[:3]), reasons(found)
    assert found[3:] == [None] * 3, reasons(found)
    await accepted_soon(bank, meeting.event())


@pytest.mark.xdist_group("nats")
@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("Nats-Expected-Last-Sequence", "wrong last sequence"),
        ("Nats-Expected-Last-Msg-Id", "wrong last msg ID"),
        ("Nats-Expected-Stream", "expected stream does not match"),
        ("Nats-TTL", "message TTL"),
        ("Nats-Rollup", "rollup"),
        ("large", "header size exceeds maximum allowed"),
    ],
)
async def test_a_nats_message_with_a_header_that_the_stream_refuses_is_refused(
    nats_operator: Nats, header: str, reason: str
) -> None:
    async with met(nats_operator.url) as meeting:
        bank = await joined(meeting)
        value = "x" * 70_000 if header == "large" else "7"
        message = Message(Kind.EVENT, meeting.name(EVENT), "1", "a", b"1", {header: value})
        with pytest.raises(MessageRefused, match=reason):
            await bank.publish(message)


@pytest.mark.xdist_group("nats")
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_bytes": 1}, "maximum bytes exceeded"),
        ({"max_msgs_per_subject": 1, "discard_new_per_subject": True}, "maximum messages per subject exceeded"),
        ({"sealed": True}, "sealed"),
    ],
)
async def test_a_nats_stream_that_takes_no_more_is_unavailable(
    nats_operator: Nats, settings: dict[str, Any], reason: str
) -> None:
    async with met(nats_operator.url) as meeting:
        bank = await joined(meeting)
        await bank.publish(meeting.event())
        await nats_operator.change(meeting.name(EVENT), discard=DiscardPolicy.NEW, **settings)
        found = await answers(bank, [meeting.event(), meeting.job(JOB)])
        with pytest.raises(DestinationUnavailable, match=reason):
            raise found[0]
        assert found[1] is None


@pytest.mark.xdist_group("nats")
async def test_a_nats_account_without_storage_left_is_unavailable(nats_operator: Nats) -> None:
    async with met(nats_operator.server.url.replace("//", "//small:a@")) as meeting:
        bank = await joined(meeting)
        found = [await answers(bank, [meeting.event(body=b"x" * 5_000)]) for _ in range(20)]
        with pytest.raises(DestinationUnavailable, match="resource limits exceeded"):
            raise found[-1][0]


@pytest.mark.xdist_group("nats")
async def test_a_nats_user_without_permission_for_answers_gets_that_reason(nats_operator: Nats) -> None:
    async with met(nats_operator.server.url.replace("//", "//deaf:a@")) as meeting:
        with pytest.raises(BrokerUnavailable, match=r"[Pp]ermissions [Vv]iolation for [Ss]ubscription"):
            await joined(meeting)


@pytest.mark.xdist_group("kafka")
async def test_only_the_kafka_record_that_the_topic_refuses_is_refused(kafka_operator: Kafka) -> None:
    async with met(kafka_operator.url) as meeting:
        bank = await joined(meeting, partitions=1)
        await kafka_operator.change(meeting.name(EVENT), cleanup_policy="compact")  # a compacted topic demands a key
        keyless = Message(Kind.EVENT, meeting.name(EVENT), "1", "", b"1")
        await refused_soon(bank, lambda: keyless)
        messages = [meeting.event(key=str(number)) for number in range(10)]
        messages[5] = keyless
        found = await answers(bank, messages)
        with pytest.raises(MessageRefused, match="InvalidRecord"):
            raise found.pop(5)
        assert found == [None] * 9, reasons(found)


@pytest.mark.xdist_group("kafka")
async def test_a_kafka_topic_that_refuses_the_time_of_our_clock_is_unavailable(kafka_operator: Kafka) -> None:
    async with met(kafka_operator.url) as meeting:
        bank = await joined(meeting, partitions=1)
        # With 0 a record is too old after a millisecond, or at once if our clock is slow.
        await kafka_operator.change(meeting.name(EVENT), message_timestamp_before_max_ms=0)
        found: list[Any] = [None]
        async with asyncio.timeout(PATIENCE_SECONDS):
            while found == [None]:
                found = await answers(bank, [meeting.event()])
        with pytest.raises(DestinationUnavailable, match="InvalidTimestamp"):
            raise found[0]


@pytest.mark.xdist_group("kafka")
async def test_a_kafka_topic_with_too_few_replicas_is_unavailable_and_the_others_go_on(kafka_operator: Kafka) -> None:
    async with met(kafka_operator.url) as meeting:
        await meeting.join("shop", accepts=[JOB])  # this queue is on the node that keeps running
        with brokers.second_kafka_node(kafka_operator.server):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (bank := await replicated(meeting)) is None:  # noqa: ASYNC110 - until the controller knows the second node
                    await asyncio.sleep(0.1)
            await kafka_operator.change(meeting.name(EVENT), min_insync_replicas=2)
            await accepted_soon(bank, meeting.event())
        await refused_soon(bank, meeting.event)

        found = await answers(bank, [meeting.event(), meeting.job(JOB), meeting.job(JOB)])

        with pytest.raises(DestinationUnavailable, match="NotEnoughReplicas"):
            raise found[0]
        assert found[1:] == [None] * 2, reasons(found)


POLICY = """
import java.util.Map;
import org.apache.kafka.common.errors.PolicyViolationException;
import org.apache.kafka.server.policy.CreateTopicPolicy;

public class Policy implements CreateTopicPolicy {
    public void configure(Map<String, ?> settings) {}
    public void close() {}
    public void validate(RequestMetadata request) {
        if (request.topic().startsWith("forbidden-"))
            throw new PolicyViolationException("topics of forbidden are made by the platform");
    }
}
"""


@pytest.fixture(scope="module")
def strict_kafka(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[brokers.Broker, Path | None]]:
    """A server with a policy for new topics, and a small second disk, if this machine allows mounts."""
    folder, disk = tmp_path_factory.mktemp("policy"), tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)]
    mounted = (
        sys.platform == "linux" and os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    )
    small = disk if mounted else None
    try:
        with brokers.kafka(policy=brokers.kafka_jar(folder, "Policy", POLICY), disk=small) as server:
            yield server, small
    except brokers.Missing as missing:
        pytest.skip(str(missing))
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", disk], check=True)


Strict = tuple[brokers.Broker, Path | None]


@pytest.mark.xdist_group("kafka")
async def test_a_kafka_topic_that_a_policy_refuses_is_reported_with_the_reason_of_the_policy(
    strict_kafka: Strict,
) -> None:
    async with met(strict_kafka[0].url) as meeting:
        with pytest.raises(
            BrokerUnavailable, match=rf"{meeting.name(FORBIDDEN)} cannot be created: .* by the platform"
        ):
            await joined(meeting)
        shop = await meeting.join("shop", sends=[JOB])
        assert await answers(shop, [meeting.job(JOB)]) == [None]


@pytest.mark.xdist_group("kafka")
async def test_kafka_topics_on_a_full_disk_are_unavailable_and_the_others_go_on(strict_kafka: Strict) -> None:
    server, disk = strict_kafka
    if disk is None:
        pytest.skip("a full disk needs a file system of its own, and this machine mounts none")
    names = [f"bank.paid-{number}.v1" for number in range(4)]
    async with met(server.url) as meeting:
        bank = await meeting.join("bank", publishes=names, partitions=1, publish_timeout_seconds=PUBLISH_SECONDS)
        assert await answers(bank, [meeting.event(name) for name in names]) == [None] * len(names)
        full = {name for name in names if (disk / f"{meeting.name(name)}-0").exists()}
        assert 0 < len(full) < len(names)
        with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))

        for _ in range(3):
            # more bytes than the full disk leaves in Kafka's files
            messages = [meeting.event(name, body=b"x" * 20_000) for name in names]
            found = dict(zip(names, await answers(bank, messages), strict=True))
            assert {name for name in names if isinstance(found[name], DestinationUnavailable)} == full, found
            assert {name for name in names if found[name] is None} == {*names} - full, found


async def replicated(meeting: Meeting) -> Broker | None:
    try:
        return await joined(meeting, partitions=1, replication=2, publish_timeout_seconds=3)
    except BrokerUnavailable:
        return None


@pytest.mark.xdist_group("rabbitmq")
async def test_rabbitmq_with_an_alarm_is_unavailable_and_says_why(rabbitmq_operator: RabbitMq) -> None:
    async with met(rabbitmq_operator.url) as meeting:
        bank = await joined(meeting)
        await bank.publish(meeting.event())
        await rabbitmq_operator.control("set_vm_memory_high_watermark", "0.000001")
        try:
            await refused_soon(bank, meeting.event)
            (found,) = await answers(bank, [meeting.event()])
            with pytest.raises(BrokerUnavailable, match="low on memory"):
                raise found
        finally:
            await rabbitmq_operator.control("set_vm_memory_high_watermark", "0.6")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await answers(bank, [meeting.event()])) != [None]:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


@pytest.mark.xdist_group("rabbitmq")
async def test_only_the_rabbitmq_message_whose_headers_fit_no_frame_is_refused(rabbitmq_operator: RabbitMq) -> None:
    async with met(rabbitmq_operator.url) as meeting:
        bank = await joined(meeting)
        messages = [meeting.event(key=str(number)) for number in range(10)]
        messages[5] = meeting.event(key="x" * 200_000)
        found = await answers(bank, messages)
        with pytest.raises(MessageRefused, match="headers"):
            raise found.pop(5)
        assert found == [None] * 9, reasons(found)


@pytest.mark.parametrize("name", ["id", "key", "header", "name"])
async def test_only_the_message_that_cannot_be_written_is_refused(meeting: Meeting, name: str) -> None:
    bank = await joined(meeting)
    odd = {"id": "1", "key": "a", "header": "b", "name": meeting.name(EVENT)}
    odd[name] += "\ud800" if name != "name" else "x" * 300
    message = Message(Kind.EVENT, odd["name"], odd["id"], odd["key"], b"1", {"tenant": odd["header"]})
    found = await answers(bank, [meeting.event(), message, meeting.event(key="b")])
    assert found[::2] == [None, None], reasons(found)
    assert isinstance(found[1], MessageRefused | DestinationUnavailable), repr(found[1])
