"""A service with exactly the permissions of docs/how-to/limit-a-service-at-the-broker.md works, and has no other rights."""

import asyncio
import re
import shlex
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from chassis.brokers import Broker, BrokerUnavailable, Kind, Message, MessageRefused, Options, Topology, broker_for
from pydantic import SecretStr

from tests.chassis.brokers.meeting import PATIENCE_SECONDS, take
from tests.chassis.each_broker import Run, each_of
from tests.support import brokers
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/how-to/limit-a-service-at-the-broker.md").read_text()
PASSWORD = "s3cret"

ISSUED, MOVED, REMIND, SEND = (
    "billing.invoice-issued.v1",
    "customers.customer-moved.v1",
    "billing.remind.v1",
    "mail.send.v1",
)
TOPOLOGIES = {
    "billing": Topology(
        "billing", frozenset({ISSUED}), frozenset({REMIND, SEND}), frozenset({MOVED}), frozenset({REMIND})
    ),
    "customers": Topology("customers", published_events=frozenset({MOVED, "customers.customer-left.v1"})),
    "mail": Topology("mail", accepted_jobs=frozenset({SEND, "mail.erase.v1"})),
    "orders": Topology("orders", frozenset({"orders.order-placed.v1"}), accepted_jobs=frozenset({"orders.ship.v1"})),
}

FOREIGN = [
    (Kind.EVENT, "customers.customer-moved.v1"),
    (Kind.EVENT, "customers.customer-left.v1"),
    (Kind.JOB, "mail.erase.v1"),
    (Kind.EVENT, "orders.order-placed.v1"),
    (Kind.JOB, "orders.ship.v1"),
]


def commands_of(first_line: str) -> str:
    (block,) = re.findall(rf"```text\n# {re.escape(first_line)}\n(.*?)```", PAGE, re.DOTALL)
    return block


# --- brokers with the permissions of the page: the URL of an administrator, and the URL of billing --------------------


@contextmanager
def nats_of_the_page(folder: Path) -> Generator[tuple[str, str]]:
    config = folder / "nats-server.conf"
    users = commands_of("nats-server.conf").replace("…", PASSWORD)
    config.write_text(users.replace("users = [", f"users = [\n    {{user: admin, password: {PASSWORD}}}", 1))
    with brokers.nats(None, None, "--config", str(config)) as server:
        yield (
            server.url.replace("//", f"//admin:{PASSWORD}@"),
            server.url.replace("//", f"//billing:{PASSWORD}@"),
        )


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[str, str]]:
    with nats_of_the_page(tmp_path_factory.mktemp("nats")) as urls:
        yield urls


@pytest.fixture(scope="module")
def kafka() -> Generator[tuple[str, str]]:
    with brokers.kafka(by_acl=True) as server, pytest.MonkeyPatch.context() as patch:
        for line in commands_of("kafka-acls.sh").replace("User:billing", f"User:{brokers.KAFKA_USER}").splitlines():
            brokers.kafka_acls(server, *shlex.split(line))
        patch.setenv("SSL_CERT_FILE", str(server.certificate))
        assert server.secure_url
        yield server.url, server.secure_url


@pytest.fixture(scope="module")
def rabbitmq(run: Run) -> tuple[str, str]:
    """The server of the other tests, with one more user: no other test has exchanges of these names."""
    server = run("rabbitmq")
    brokers.rabbitmqctl(server, "await_startup")  # the server listens before all of its applications run
    brokers.rabbitmqctl(server, "add_user", "billing", PASSWORD)
    for line in commands_of("rabbitmqctl").splitlines():
        brokers.rabbitmqctl(server, *line.split())
    return server.url, server.url.replace("guest:guest", f"billing:{quote(PASSWORD)}")


OF_THEIR_OWN = [pytest.param(name, marks=pytest.mark.xdist_group("permissions")) for name in ("nats", "kafka")]


@pytest.fixture(params=[*OF_THEIR_OWN, *each_of("rabbitmq")])
def urls(request: pytest.FixtureRequest) -> tuple[str, str]:
    try:
        return request.getfixturevalue(request.param)
    except brokers.Missing as missing:
        pytest.skip(str(missing))


@asynccontextmanager
async def joined(url: str, name: str, topology: Topology | None = None) -> AsyncGenerator[Broker]:
    options = Options(SecretStr(url), name, partitions=2, redelivery_seconds=2, publish_timeout_seconds=3)
    broker = broker_for(options)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await broker.connect()
            await broker.declare(topology or TOPOLOGIES[name])
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def others(url: str) -> AsyncGenerator[dict[str, Broker]]:
    """Connect the other services with all rights. A test connects them before billing."""
    async with joined(url, "customers") as customers, joined(url, "mail") as mail, joined(url, "orders") as orders:
        yield {"customers": customers, "mail": mail, "orders": orders}


def message(kind: Kind, name: str, number: int = 1) -> Message:
    return Message(kind, name, f"{name}-{number}", "key", str(number).encode())


async def test_a_service_works_with_the_permissions_of_the_page(urls: tuple[str, str]) -> None:
    everything, limited = urls
    async with others(everything) as neighbours, joined(limited, "billing") as billing:
        for kind, name in ((Kind.EVENT, ISSUED), (Kind.JOB, REMIND), (Kind.JOB, SEND)):
            await billing.publish(message(kind, name))
        await neighbours["customers"].publish(message(Kind.EVENT, MOVED))
        for kind, name in ((Kind.EVENT, MOVED), (Kind.JOB, REMIND)):
            subscription = await billing.subscribe(kind)
            (delivery,) = await take(subscription, 1)
            assert delivery.message.name == name
            # The broker redelivers messages that were given back. On NATS this needs the right to reset the consumer.
            await subscription.release([delivery])
            await subscription.close()
            again = await billing.subscribe(kind)
            (delivery,) = await take(again, 1)
            await again.touch([delivery])
            await again.acknowledge([delivery])
            await again.close()
        mail = await neighbours["mail"].subscribe(Kind.JOB)
        (delivery,) = await take(mail, 1)
        assert delivery.message.name == SEND
        await mail.acknowledge([delivery])


@pytest.mark.parametrize(("kind", "name"), FOREIGN)
async def test_a_limited_service_publishes_nothing_in_the_name_of_others(
    urls: tuple[str, str], kind: Kind, name: str
) -> None:
    everything, limited = urls
    async with others(everything), joined(limited, "billing") as billing:
        with pytest.raises((BrokerUnavailable, MessageRefused), match=r"(?i)permission|authoriz|refused"):
            await billing.publish(message(kind, name))
        await billing.publish(message(Kind.EVENT, ISSUED, 2))  # billing still publishes its own events


@pytest.mark.parametrize(
    "topology",
    [
        Topology("billing", awaited_events=frozenset({"orders.order-placed.v1"})),
        Topology("billing", awaited_events=frozenset({"customers.customer-left.v1"})),
        Topology("mail", accepted_jobs=frozenset({SEND})),
    ],
    ids=["events of a stranger", "another event of a neighbour", "jobs of a neighbour"],
)
async def test_a_limited_service_receives_no_message_of_another_service(
    urls: tuple[str, str], topology: Topology
) -> None:
    everything, limited = urls
    kind = Kind.EVENT if topology.awaited_events else Kind.JOB
    (name,) = topology.awaited_events | topology.accepted_jobs
    async with others(everything) as neighbours:
        await neighbours["orders" if name.startswith("orders") else "customers"].publish(message(kind, name))
        received, reason = [], ""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), joined(limited, "billing", topology) as billing:
                received = await (await billing.subscribe(kind)).fetch(1, wait_seconds=2)
        except BrokerUnavailable as error:
            reason = str(error)
        # NATS limits a listener to a stream, not to names in the stream, as the page explains.
        if everything.startswith("nats:") and name == "customers.customer-left.v1":
            assert received
        else:
            assert received == []
            assert re.search(r"(?i)permission|authoriz|refused", reason)


async def test_on_nats_a_limited_service_waits_for_the_streams_of_its_neighbours_and_says_so(tmp_path: Path) -> None:
    with nats_of_the_page(tmp_path) as (everything, limited):
        with pytest.raises(BrokerUnavailable, match=r"(?i)permissions violation.*STREAM.CREATE.customers-events"):
            async with joined(limited, "billing"):
                pass
        async with others(everything), joined(limited, "billing") as billing:
            await billing.publish(message(Kind.EVENT, ISSUED))
