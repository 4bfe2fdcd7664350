"""Services in this process that exchange messages over one broker."""

import asyncio
import time
from collections.abc import Iterable
from itertools import count
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from chassis.brokers import Broker, Delivery, Kind, Message, Options, Subscription, Topology, broker_for
from pydantic import SecretStr

from tests.chassis.memory_broker import MemoryBroker

PATIENCE_SECONDS = 90
QUIET_SECONDS = 1
"""How long a test waits before it concludes that no further message arrives."""
REDELIVERY_SECONDS = 2


class Meeting:
    """Services on one broker, with names that no other test uses."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.suffix = uuid4().hex[:8]
        self.joined: list[Broker] = []
        self._numbers = count(1)

    @property
    def kind_of_broker(self) -> str:
        return urlsplit(self.url).scheme

    def name(self, name: str) -> str:
        """Rename `bank.paid.v1` for this test's own bank."""
        owner, _, rest = name.partition(".")
        return f"{owner}-{self.suffix}.{rest}"

    async def join(
        self,
        service: str,
        *,
        publishes: Iterable[str] = (),
        awaits: Iterable[str] = (),
        sends: Iterable[str] = (),
        accepts: Iterable[str] = (),
        url: str | None = None,
        literal: bool = False,
        **options: Any,
    ) -> Broker:
        """Connect a replica of the service, with its own connection, and declare all of these names, `literal` as they are."""
        usual = {"retention_seconds": 3600, "partitions": 2, "redelivery_seconds": REDELIVERY_SECONDS}
        chosen = Options(url=SecretStr(url or self.url), client_name=service, **(usual | options))
        in_memory = chosen.url.get_secret_value().startswith("memory:")
        broker = MemoryBroker(chosen) if in_memory else broker_for(chosen)
        self.joined.append(broker)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await broker.connect()
            await broker.declare(
                Topology(
                    f"{service}-{self.suffix}",
                    *(
                        frozenset(names if literal else map(self.name, names))
                        for names in (publishes, sends, awaits, accepts)
                    ),
                )
            )
        return broker

    async def leave(self, broker: Broker, *subscriptions: Subscription) -> None:
        """Disconnect. Fetched messages without an acknowledgement are neither acknowledged nor given back."""
        for subscription in subscriptions:
            await subscription.close()
        self.joined.remove(broker)
        await broker.close()

    async def end(self) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            for broker in self.joined:
                await broker.close()

    def event(self, name: str = "bank.paid.v1", *, key: str = "a", body: bytes | None = None) -> Message:
        return self._message(Kind.EVENT, name, key, body)

    def job(self, name: str = "bank.pay.v1", *, key: str | None = None, body: bytes | None = None) -> Message:
        return self._message(Kind.JOB, name, key or str(uuid4()), body)

    def _message(self, kind: Kind, name: str, key: str, body: bytes | None) -> Message:
        return Message(kind, self.name(name), str(uuid4()), key, body or str(next(self._numbers)).encode())


async def take(subscription: Subscription, number: int) -> list[Delivery]:
    """Fetch until this number of deliveries has arrived."""
    taken: list[Delivery] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(taken) < number:
        assert time.monotonic() < deadline, f"{len(taken)} of {number} came"
        taken += await subscription.fetch(number - len(taken), wait_seconds=0.5)
    return taken


async def nothing_comes(subscription: Subscription) -> bool:
    return await subscription.fetch(10, wait_seconds=QUIET_SECONDS) == []


def bodies(deliveries: Iterable[Delivery]) -> list[int]:
    return [int(delivery.message.body) for delivery in deliveries]
