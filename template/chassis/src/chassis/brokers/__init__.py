"""The protocol between the chassis and a message broker. NATS, Kafka and RabbitMQ each have a folder of their own.

The scheme of the URL selects the broker. A broker stores and delivers messages. Everything else (attempts, parking, order
while a message waits for another attempt, one effect for all copies) is written once, in chassis.messaging, and is the same
for all brokers.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
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
}
"""The broker for each URL scheme. The schemes `tls`, `kafkas` and `amqps` are encrypted."""


REPUBLISHED = "republished"
"""The header of an event that `republish` has published again. Its value is the id of the run."""

SUBJECT = "subject"
"""The header with the subject that caused a message, as the sender of the message claims."""

SAGA = "saga"
"""The header with the ids of the sagas that a message belongs to, the innermost first: an answer to it has the same header."""

LONGEST_IN_INDEX = 200
"""The most characters of an id or a name. Both share one entry of a Postgres index, which holds 2704 bytes."""


class BrokerUnavailable(Exception):
    """The broker cannot be reached, does not answer, or is not ready. The same call may succeed later."""


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
    """Something happened: every service that listens gets the event, in order within its key."""
    JOB = "job"
    """A service should do something: one of its competing workers gets the job, in no promised order."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message between services.

    `name` is `<service>.<event-or-job-name>.v<N>`. The service in the name owns the message: it publishes the event, or
    processes the job. `id` is the same in every copy. Order is kept within a `key`. `headers` are text
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
        return owner_of(self.name)

    @property
    def identity(self) -> tuple[str, str]:
        """Return id and name, by which the inbox recognises copies, in a form that Postgres can store and index."""
        return _indexable(self.id), _indexable(self.name)


def _indexable(text: str) -> str:
    """Return a short ASCII text unchanged; shorten any other text to its readable beginning and a digest.

    Postgres cannot index a long text, and cannot store a NUL or a lone surrogate.
    """
    if len(text) <= LONGEST_IN_INDEX and text.isascii() and "\0" not in text:
        return text
    digest = sha256(text.encode(errors="surrogatepass")).hexdigest()
    return f"{''.join(filter(str.isprintable, text[:50]))} sha256:{digest}"


@dataclass(slots=True, eq=False)
class Delivery:
    """One copy of a message, held by this process until it is acknowledged or released.

    A message from a program without the chassis may lack an id. The broker's package then makes an id from the message's
    position, the same in every copy. Only the broker's package uses `receipt`. `lost` means that the broker redelivers the
    message to another replica: do not process it. `unreadable` is the reason why the message could not be decoded; then
    its body is empty.
    """

    message: Message
    receipt: Any
    lost: bool = False
    unreadable: str | None = None


@dataclass(frozen=True)
class Topology:
    """The names of all messages that a service publishes, sends and consumes."""

    service: str
    published_events: frozenset[str] = frozenset()
    sent_jobs: frozenset[str] = frozenset()
    awaited_events: frozenset[str] = frozenset()
    accepted_jobs: frozenset[str] = frozenset()

    @property
    def owners(self) -> frozenset[str]:
        """The first parts of the names that belong to this service: its own name, and one for each further queue."""
        return frozenset({self.service, *map(owner_of, self.accepted_jobs)})

    def taken(self, kind: Kind, owner: str) -> frozenset[str]:
        """Return the names of the messages that one subscription receives."""
        if kind is Kind.EVENT:
            return self.awaited_events
        return frozenset(name for name in self.accepted_jobs if owner_of(name) == owner)


def owner_of(name: str) -> str:
    """Return the first part of the name of a message: the service that owns it, or one of the service's queues."""
    return name.partition(".")[0]


@dataclass(frozen=True)
class Options:
    """The settings of a broker. Times are in seconds."""

    url: SecretStr
    client_name: str
    replication: int = 1
    """Copies that the broker keeps of each message."""
    retention_seconds: float = 7 * 24 * 3600
    """How long an event stays available on a broker that keeps delivered messages (NATS, Kafka)."""
    partitions: int = 12
    """Partitions of each topic on Kafka: at most this many replicas share the work."""
    publish_timeout_seconds: float = 5
    redelivery_seconds: float = 10
    """How long after a crash the broker redelivers unacknowledged messages (NATS, Kafka)."""
    jobs_at_once: int = 4
    """How many jobs of a queue this process works on at the same time."""
    max_in_flight: int = 1100
    """How many deliveries this process holds at most."""


class Subscription(Protocol):
    """Deliveries of one kind for this service."""

    async def fetch(self, limit: int, *, wait_seconds: float) -> list[Delivery]:
        """Wait for a delivery, and return up to `limit`; none after `wait_seconds`. Raises BrokerUnavailable."""
        ...

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Confirm to the broker that the messages are processed. The deliveries may have any order.

        If a confirmation does not reach the broker, the broker delivers the message again.
        """
        ...

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give back deliveries that are not in process, so that another replica gets them at once. Then call `close`."""
        ...

    async def touch(self, deliveries: Sequence[Delivery]) -> None:
        """Keep the deliveries: this replica is still processing them."""
        ...

    async def close(self) -> None:
        """Send the remaining acknowledgements, and leave."""
        ...


class Broker(Protocol):
    """A connection that repairs itself."""

    system: str
    """The name in OpenTelemetry: nats, kafka or rabbitmq."""
    shares_in_order: bool
    """Whether each key stays in order while several replicas subscribe to events. Otherwise the consumer lets one replica
    subscribe at a time."""

    @property
    def connected(self) -> bool: ...

    async def connect(self) -> None:
        """Connect once; later losses repair themselves. Raises BrokerUnavailable."""
        ...

    async def declare(self, topology: Topology) -> None:
        """Create missing streams, topics, queues and bindings; remove nothing. Raises BrokerUnavailable."""
        ...

    def publish(self, message: Message) -> Awaitable[None]:
        """Send the message at once. The returned awaitable completes when the broker has confirmed the message.

        It raises BrokerUnavailable, DestinationUnavailable or MessageRefused, with the broker's reason.
        """
        ...

    async def subscribe(self, kind: Kind, owner: str = "") -> Subscription:
        """Subscribe to the events of the declared topology, or to the jobs of one owner: by default of the service itself.

        Raises BrokerUnavailable.
        """
        ...

    async def close(self) -> None: ...


def broker_for(options: Options) -> Broker:
    """Return the broker that the URL names."""
    return broker_class(options.url)(options)


def broker_class(url: SecretStr) -> Callable[[Options], Broker]:
    """Import the broker that the URL names, with its client library. Raises ModuleNotFoundError if this service lacks either."""
    match SCHEMES[urlsplit(url.get_secret_value()).scheme]:
        case "nats":
            from chassis.brokers.nats.broker import NatsBroker

            return NatsBroker
        case "kafka":
            from chassis.brokers.kafka.broker import KafkaBroker

            return KafkaBroker
        case _:
            from chassis.brokers.rabbitmq.broker import RabbitBroker

            return RabbitBroker
