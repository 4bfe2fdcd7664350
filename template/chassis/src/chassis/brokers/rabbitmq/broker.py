"""RabbitMQ, by aiormq: the protocol itself, without the objects that aio-pika puts around each message."""

import asyncio
from functools import partial
from weakref import WeakSet

from chassis.brokers import BrokerUnavailable, DestinationUnavailable, Kind, Message, MessageRefused, Options, Topology
from chassis.brokers.rabbitmq import decoding
from chassis.brokers.rabbitmq.connection import SYSTEM, Connections, close
from chassis.brokers.rabbitmq.publisher import DestinationMissing, Publisher, Refused, verdict
from chassis.brokers.rabbitmq.subscription import RabbitSubscription
from chassis.brokers.supervised_client import SupervisedClient

UNAVAILABLE_SECONDS = 1
"""How long no message is sent to a destination that has closed a channel."""

decoding.install()


class RabbitBroker:
    system = SYSTEM
    shares_in_order = True

    def __init__(self, options: Options) -> None:
        self.supervised = SupervisedClient(self.system, make=self._publisher, holds=_is_open, leave=_leave)
        self.connections = Connections(options, finish=self.supervised.finish)
        self.subscriptions: WeakSet[RabbitSubscription] = WeakSet()
        self._timeout_seconds = options.publish_timeout_seconds
        self._alone = asyncio.Lock()
        self._lone: Publisher | None = None
        self._unavailable: dict[str, tuple[float, str]] = {}
        """For the name of a message whose destination accepts no messages: the time until the next attempt, and the reason."""

    @property
    def connected(self) -> bool:
        publisher = self.supervised.client
        return publisher is not None and not publisher.is_closed and not publisher.blocked

    async def connect(self) -> None:
        await self.supervised.open()

    async def declare(self, topology: Topology) -> None:
        self.connections.topology = topology
        publisher = self.supervised.client or await self.supervised.ready()
        try:
            await self.connections.declare(topology, publisher.connection)
        except BrokerUnavailable:
            self.supervised.drop(publisher)
            raise

    async def publish(self, message: Message) -> None:
        publisher = self.supervised.client or await self.supervised.ready()
        alone = message.name in self._unavailable
        try:
            if alone:
                await self._publish_alone(message)
            else:
                await publisher.publish(message)
        except Refused:
            self.supervised.drop(publisher)
            await self._publish_alone(message)
        except DestinationMissing:
            if (topology := self.connections.topology) is not None:
                await self.supervised.restore(partial(self.connections.declare, topology, publisher.connection))
            raise
        except DestinationUnavailable:
            raise
        except BrokerUnavailable:
            if not alone and not publisher.blocked:  # the connection may hang: begin with a new connection
                self.supervised.drop(publisher)
            raise

    async def _publish_alone(self, message: Message) -> None:
        """Send a message whose channel was closed, or whose destination was unavailable at the last attempt."""
        async with self._alone:
            until, reason = self._unavailable.get(message.name, (0.0, ""))
            now = asyncio.get_running_loop().time()
            if now < until:
                raise DestinationUnavailable(reason)
            self._unavailable.pop(message.name, None)
            if self._lone is None:
                connection = await self.connections.reach()
                self._lone = await Publisher.open(connection, timeout_seconds=self._timeout_seconds)
            try:
                await self._lone.publish(message)
            except Refused as error:
                self._close_lone()
                found = verdict(error)
                if isinstance(found, DestinationUnavailable):
                    self._unavailable[message.name] = now + UNAVAILABLE_SECONDS, str(found)
                raise found from error
            except (MessageRefused, DestinationUnavailable):
                raise
            except BrokerUnavailable:
                self._close_lone()
                raise

    def _close_lone(self) -> None:
        if self._lone is not None:
            self.supervised.finish(close(self._lone.connection))
            self._lone = None

    async def subscribe(self, kind: Kind, owner: str = "") -> RabbitSubscription:
        topology = self.connections.topology
        assert topology is not None, "declare first"
        subscription = RabbitSubscription(kind, topology, self.connections, owner or topology.service)
        await subscription.open()
        self.subscriptions.add(subscription)
        return subscription

    async def close(self) -> None:
        await asyncio.gather(*(subscription.close() for subscription in self.subscriptions))
        self._close_lone()
        await self.supervised.close()

    async def _publisher(self) -> Publisher:
        connection = await self.connections.open()
        try:
            return await Publisher.open(connection, timeout_seconds=self._timeout_seconds)
        except BrokerUnavailable:
            self.supervised.finish(close(connection))
            raise


async def _is_open(publisher: Publisher) -> bool:
    return not publisher.is_closed


async def _leave(publisher: Publisher) -> None:
    await close(publisher.connection)
