"""A broker in this process, for tests. Services with the same URL share one broker."""

import asyncio
from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from operator import attrgetter

from chassis.brokers import (
    BrokerUnavailable,
    Delivery,
    DestinationUnavailable,
    Kind,
    Message,
    MessageRefused,
    Options,
    Topology,
)

MAX_BYTES = 1_048_576


@dataclass(eq=False)
class _Server:
    available: bool = True
    unavailable_names: set[str] = field(default_factory=set)
    listeners: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The services that await each event."""
    queues: dict[tuple[Kind, str], list[Delivery]] = field(default_factory=lambda: defaultdict(list))
    """The messages that wait for each service, in the order of publication, which is the receipt."""
    subscriptions: set["MemorySubscription"] = field(default_factory=set)
    published: count = field(default_factory=count)

    def check(self) -> None:
        if not self.available:
            raise BrokerUnavailable("the broker in memory was switched off")

    def wake(self) -> None:
        for subscription in self.subscriptions:
            subscription.wake.set()


_servers: dict[str, _Server] = defaultdict(_Server)


class MemoryBroker:
    system = "memory"
    shares_in_order = False

    def __init__(self, options: Options) -> None:
        self._server = _servers[options.url.get_secret_value()]
        self._topology: Topology | None = None
        self._has_connected = False
        self._subscriptions: list[MemorySubscription] = []

    @property
    def available(self) -> bool:
        """Set it to False, and every use of this URL raises BrokerUnavailable; nothing is lost."""
        return self._server.available

    @available.setter
    def available(self, value: bool) -> None:
        self._server.available = value
        self._server.wake()

    @property
    def unavailable_names(self) -> set[str]:
        """Add a message's name, and publishing a message of that name raises DestinationUnavailable."""
        return self._server.unavailable_names

    @property
    def connected(self) -> bool:
        return self._has_connected and self.available

    async def connect(self) -> None:
        self._server.check()
        self._has_connected = True

    async def declare(self, topology: Topology) -> None:
        self._server.check()
        self._topology = topology
        for name in topology.awaited_events:
            self._server.listeners[name].add(topology.service)

    async def publish(self, message: Message) -> None:
        await asyncio.sleep(0)  # as real brokers do, let other tasks run
        self._server.check()
        if len(message.body) > MAX_BYTES:
            raise MessageRefused(f"{len(message.body)} bytes: at most {MAX_BYTES} are taken")
        if message.name in self._server.unavailable_names:
            raise DestinationUnavailable(f"{message.name} was made unavailable")
        takers = self._server.listeners[message.name] if message.kind is Kind.EVENT else {message.owner}
        position = next(self._server.published)
        for service in takers:
            self._server.queues[message.kind, service].append(Delivery(message, position))
        self._server.wake()

    async def subscribe(self, kind: Kind, owner: str = "") -> "MemorySubscription":
        assert self._topology is not None, "declare first"
        self._server.check()
        subscription = MemorySubscription(self._server, kind, owner or self._topology.service)
        self._subscriptions.append(subscription)
        return subscription

    async def close(self) -> None:
        for subscription in self._subscriptions:
            await subscription.close()


class MemorySubscription:
    def __init__(self, server: _Server, kind: Kind, service: str) -> None:
        self.wake = asyncio.Event()
        self._server = server
        self._waiting = server.queues[kind, service]
        self._held: set[Delivery] = set()
        server.subscriptions.add(self)

    async def fetch(self, limit: int, *, wait_seconds: float) -> list[Delivery]:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_seconds):
                while self._server.available and not self._waiting:
                    self.wake.clear()
                    await self.wake.wait()
        self._server.check()
        taken = self._waiting[:limit]
        del self._waiting[:limit]
        self._held.update(taken)
        return taken

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        if self._server.available:
            self._held.difference_update(deliveries)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        self._give_back(deliveries)

    async def touch(self, deliveries: Sequence[Delivery]) -> None:
        pass

    async def close(self) -> None:
        self._give_back(self._held)
        self._server.subscriptions.discard(self)

    def _give_back(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in self._held.intersection(deliveries):
            self._held.discard(delivery)
            insort(self._waiting, Delivery(delivery.message, delivery.receipt), key=attrgetter("receipt"))
        self._server.wake()
