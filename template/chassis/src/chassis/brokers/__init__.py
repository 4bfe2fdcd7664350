"""What the chassis asks of a message broker. NATS, Kafka and RabbitMQ each have a folder; the URL's scheme picks one.

A broker keeps and delivers; everything else (retries, parking, order while a message is tried again, doing things once)
is written once, in chassis.messaging.relay and chassis.messaging.consumer, and is the same on all of them.
"""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any, Protocol
from urllib.parse import urlsplit

from pydantic import SecretStr

SCHEMES = {
    "nats": "nats",
    "tls": "nats",
    "kafka": "kafka",
    "kafkas": "kafka",
    "amqp": "rabbitmq",
    "amqps": "rabbitmq",
    "memory": "memory",
}
"""Which module speaks which URL scheme. `tls`, `kafkas` and `amqps` are the encrypted ones; `memory` is for tests."""


LONGEST_IN_INDEX = 200
"""Characters. An id and a name share an entry of a Postgres index, which holds 2704 bytes."""


class BrokerUnavailable(Exception):
    """Not reachable, not answering, or not ready. The same call may succeed later."""


class DestinationUnavailable(BrokerUnavailable):
    """The broker takes no message of this name now: the destination is full, missing, or closed to our user.

    The broker itself works: messages of other names are not affected. The same call may succeed later.
    """


class MessageRefused(Exception):
    """The broker refuses this message, for example because it is too large. Sending it again does not help."""


class Unreadable(Exception):
    """The client library cannot decode a message. Its name and its position are known, its content is not."""


class Kind(StrEnum):
    EVENT = "event"
    """Something happened: every service that listens gets it, in order within its key."""
    JOB = "job"
    """Something is to be done: one of the competing workers gets it, in no promised order."""


@dataclass(frozen=True, slots=True)
class Message:
    """What travels.

    `name` is `<service>.<event-or-job-name>.v<N>`; its first part owns it: for an event the service that publishes it,
    for a job the service that does it. `id` is the same in every copy. Order is kept within a `key`. `headers` are text
    and hold neither the id nor the key.
    """

    kind: Kind
    name: str
    id: str
    key: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        return self.name.partition(".")[0]

    @property
    def identity(self) -> tuple[str, str]:
        """How the inbox recognises copies of the message: id and name, as Postgres can store and index them."""
        return _indexable(self.id), _indexable(self.name)


def _indexable(text: str) -> str:
    """Return a short ASCII text unchanged; shorten any other text to its readable beginning and a digest.

    Postgres cannot index a long text, and cannot store a NUL or half a surrogate pair.
    """
    if len(text) <= LONGEST_IN_INDEX and text.isascii() and "\0" not in text:
        return text
    digest = sha256(text.encode(errors="surrogatepass")).hexdigest()
    return f"{''.join(filter(str.isprintable, text[:50]))} sha256:{digest}"


@dataclass(slots=True, eq=False)
class Delivery:
    """One copy of a message, in our hands until it is acknowledged or released.

    A message that others made may lack an id: then the broker's module makes one of its position, the same in every
    copy. `receipt` is for the broker's module alone. `lost` says that the broker has taken it back to give it to
    somebody else: do not start on it. `unreadable` says why the message could not be decoded; then its body is empty.
    """

    message: Message
    receipt: Any
    lost: bool = False
    unreadable: str | None = None


@dataclass(frozen=True)
class Topology:
    """All that a service publishes, sends and takes, as message names."""

    service: str
    published_events: frozenset[str] = frozenset()
    sent_jobs: frozenset[str] = frozenset()
    awaited_events: frozenset[str] = frozenset()
    accepted_jobs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Options:
    """What the modules need to know, from the settings. Times are in seconds."""

    url: SecretStr
    client_name: str
    replication: int = 1
    """Copies that the broker keeps of each message."""
    retention_seconds: float = 7 * 24 * 3600
    """How long an event stays available on a broker that keeps what was delivered (NATS, Kafka)."""
    partitions: int = 12
    """Per topic, on Kafka: the most replicas that can share its work."""
    publish_timeout_seconds: float = 5
    redelivery_seconds: float = 10
    """NATS: how long after the death of a consumer its unacknowledged messages come again."""
    max_in_flight: int = 1100
    """Deliveries in our hands at a time, at most."""


class Subscription(Protocol):
    """Deliveries of one kind for this service."""

    async def fetch(self, limit: int, *, wait_seconds: float) -> list[Delivery]:
        """Up to `limit` deliveries; waits for the first. Empty after `wait_seconds`. Raises BrokerUnavailable."""
        ...

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """They are done, in any order. If the broker does not learn of it they come again; that is not an error."""
        ...

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give back what was not started, for another replica to have at once. Close next."""
        ...

    async def touch(self, deliveries: Sequence[Delivery]) -> None:
        """They are still being worked on: do not give them to anybody else."""
        ...

    async def close(self) -> None:
        """Send what is left of the acknowledgements, and leave."""
        ...


class Broker(Protocol):
    """A connection that repairs itself."""

    system: str
    """As OpenTelemetry names it: nats, kafka, rabbitmq."""
    shares_in_order: bool
    """Whether several replicas may subscribe to events and each key still stays in order. Where not, the consumer lets
    one replica subscribe at a time."""

    @property
    def connected(self) -> bool: ...

    async def connect(self) -> None:
        """Connect once; later losses repair themselves. Raises BrokerUnavailable."""
        ...

    async def declare(self, topology: Topology) -> None:
        """Make what is missing (streams, topics, queues, bindings), take nothing away. Raises BrokerUnavailable."""
        ...

    def publish(self, message: Message) -> Awaitable[None]:
        """Send the message. Await the result: it ends when the broker has confirmed the message.

        It raises BrokerUnavailable, DestinationUnavailable or MessageRefused, with the broker's reason.
        """
        ...

    async def subscribe(self, kind: Kind) -> Subscription:
        """Take deliveries of what the declared topology awaits or accepts. Raises BrokerUnavailable."""
        ...

    async def close(self) -> None: ...


def broker_for(options: Options) -> Broker:
    """The broker that the URL names. Its client library is imported only now."""
    match SCHEMES[urlsplit(options.url.get_secret_value()).scheme]:
        case "nats":
            from chassis.brokers.nats.broker import NatsBroker

            return NatsBroker(options)
        case "kafka":
            from chassis.brokers.kafka.broker import KafkaBroker

            return KafkaBroker(options)
        case "rabbitmq":
            from chassis.brokers.rabbitmq.broker import RabbitBroker

            return RabbitBroker(options)
        case _:
            from chassis.brokers.memory import MemoryBroker

            return MemoryBroker(options)
