"""Read the state of the streams, topics or queues of one service, without changing anything. Each broker has such a module."""

from dataclasses import dataclass
from importlib import import_module
from urllib.parse import urlsplit

from chassis.brokers import SCHEMES, Options, Topology


@dataclass(frozen=True)
class StreamState:
    """A stream of NATS, a topic of Kafka or a queue of RabbitMQ. None stands for a number that this broker does not know."""

    name: str
    exists: bool = True
    messages: int | None = None
    """How many messages the broker keeps there. On Kafka some of them may be transaction markers."""
    waiting: int | None = None
    """How many of them this service has not received; None if it consumes nothing there."""
    unacknowledged: int | None = None
    """How many of them this service has received and not finished."""


async def inspect(options: Options, topology: Topology) -> list[StreamState]:
    """Return the state of everything that this topology publishes to or consumes from. Raises BrokerUnavailable."""
    broker = SCHEMES[urlsplit(options.url.get_secret_value()).scheme]
    return await import_module(f"chassis.brokers.{broker}.inspection").inspect(options, topology)
