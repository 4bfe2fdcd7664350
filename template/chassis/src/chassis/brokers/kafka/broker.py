"""Kafka, by aiokafka: it lives in the event loop, so that a group's rebalances need no thread of ours to answer them.

A topic per name. `<service>` is the group for events and `<service>-jobs` for jobs, so replicas share partitions, and a
key's partition belongs to one of them. Kafka commits positions, not messages: of what was acknowledged the part without
gaps is committed. A job that nobody took within the retention is gone, as an event is.

Whoever declares first makes a topic, the listener too: a broker that makes unknown topics by itself would give it the
wrong settings.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, Awaitable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    KafkaError,
    NotLeaderForPartitionError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from chassis.brokers import BrokerUnavailable, Delivery, DestinationUnavailable, Kind, Message, Options, Topology
from chassis.brokers.kafka.publisher import BATCH_BYTES, Publisher
from chassis.brokers.kafka.reader import Reader, Unreadable
from chassis.brokers.supervised_client import SupervisedClient

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it tells of each try to connect; we say it once

CALL_SECONDS = 10
"""What connecting, declaring and committing may take."""
METADATA_SECONDS = 5
"""How soon new topics and partitions are noticed."""
COMMIT_SECONDS = 1
"""Between commits: what is acknowledged in that time may come again after a crash."""
GIVE_UP_SECONDS = 10
"""After so long without the cluster, start over from the addresses in the URL: all of its nodes may have moved."""

FINISH_STEPS = 50
"""Hundredths of a second that a rebalance waits for what is being done, rather than have it done by two."""

MISSING = (UnknownTopicOrPartitionError, NotLeaderForPartitionError)
"""The errors that aiokafka raises for a missing topic."""

_OURS = ("id", "key", "type")


class KafkaBroker:
    system = "kafka"
    shares_in_order = True

    def __init__(self, options: Options) -> None:
        self._options = options
        self._client = _client_settings(options)
        self._topology: Topology | None = None
        self.subscriptions: set[KafkaSubscription] = set()
        self.supervised = SupervisedClient(self.system, make=self._publisher, holds=_answers, leave=Publisher.abandon)

    @property
    def connected(self) -> bool:
        return self.supervised.client is not None

    async def connect(self) -> None:
        await self.supervised.open()

    async def declare(self, topology: Topology) -> None:
        self._topology = topology
        wanted = {*topology.published_events, *topology.awaited_events, *topology.sent_jobs, *topology.accepted_jobs}
        async with _bounded(CALL_SECONDS):
            admin = AIOKafkaAdminClient(**self._client)
            try:
                await admin.start()
                missing = wanted - set(await admin.list_topics())
                if missing:
                    created: Any = await admin.create_topics([self._topic(name) for name in sorted(missing)])
                    for name, code, reason in created.topic_errors:
                        if code and for_code(code) is not TopicAlreadyExistsError:
                            raise BrokerUnavailable(f"topic {name} cannot be made: {for_code(code).__name__}: {reason}")
            finally:
                await admin.close()

    def _topic(self, name: str) -> NewTopic:
        options = self._options
        settings = {
            "retention.ms": str(int(options.retention_seconds * 1000)),
            # One copy may be out of reach, and what was confirmed is on more than one node all the same.
            "min.insync.replicas": str(max(1, options.replication - 1)),
        }
        return NewTopic(name, options.partitions, options.replication, topic_configs=settings)

    def publish(self, message: Message) -> Awaitable[None]:
        publisher = self.supervised.client
        return self._publish_when_connected(message) if publisher is None else publisher.publish(message)

    async def _publish_when_connected(self, message: Message) -> None:
        publisher = await self.supervised.ready()
        await publisher.publish(message)

    async def _mend(self, publisher: Publisher, error: BrokerUnavailable) -> None:
        """Make the topic that is missing, or replace the publisher that failed."""
        if not isinstance(error, DestinationUnavailable):
            # The producer may hold on to messages that were given up, and after some errors it never sends again
            # (aiokafka#1017).
            self.supervised.drop(publisher)
        elif isinstance(error.__cause__, MISSING) and self._topology is not None:
            await self.supervised.restore(partial(self.declare, self._topology))

    async def subscribe(self, kind: Kind) -> "KafkaSubscription":
        subscription = KafkaSubscription(self, kind)
        await subscription.open()
        self.subscriptions.add(subscription)
        return subscription

    async def close(self) -> None:
        await asyncio.gather(*(subscription.close() for subscription in self.subscriptions))
        await self.supervised.close()

    async def consumer(self, kind: Kind, listener: ConsumerRebalanceListener) -> AIOKafkaConsumer:
        """A new member of the service's group. Raises BrokerUnavailable."""
        topology = self._topology
        assert topology is not None, "declare first"
        session_ms = int(self._options.redelivery_seconds * 1000)
        consumer = AIOKafkaConsumer(
            **self._client,
            group_id=group_name(kind, topology.service),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=session_ms // 4,
            # A full window may keep us from fetching for as long as a message is tried again.
            max_poll_interval_ms=2**31 - 1,
        )
        try:
            async with _bounded(CALL_SECONDS):
                await consumer.start()
        except BrokerUnavailable:
            self.supervised.finish(consumer.stop())
            raise
        topics = topology.awaited_events if kind is Kind.EVENT else topology.accepted_jobs
        consumer.subscribe(sorted(topics), listener=listener)
        return consumer

    async def _publisher(self) -> Publisher:
        # Not idempotent: aiokafka would then repeat a send without end and report no reason, and after one refused
        # batch Kafka would refuse all later batches. The inbox recognises the copies that a missing answer causes.
        producer = AIOKafkaProducer(**self._client, acks="all", max_batch_size=BATCH_BYTES)
        publisher = Publisher(producer, mend=self._mend, timeout_seconds=self._options.publish_timeout_seconds)
        try:
            async with _bounded(CALL_SECONDS):
                await producer.start()
            if self._topology is not None:
                await self.declare(self._topology)  # the cluster may have come back empty
        except BrokerUnavailable:
            self.supervised.finish(publisher.abandon())
            raise
        return publisher


class KafkaSubscription(ConsumerRebalanceListener):
    def __init__(self, broker: KafkaBroker, kind: Kind) -> None:
        self._broker = broker
        self._kind = kind
        self._consumer: AIOKafkaConsumer | None = None
        self._reader: Reader | None = None
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._commit_at = 0.0
        self._sharing_out = False

    async def open(self) -> AIOKafkaConsumer:
        """Raises BrokerUnavailable."""
        if self._consumer is None:
            self._consumer = await self._broker.consumer(self._kind, self)
            self._reader = Reader(self._consumer)
        return self._consumer

    async def fetch(self, limit: int, *, wait_seconds: float) -> list[Delivery]:
        await self._commit_now_and_then()
        lost_at = self._broker.supervised.lost_at
        if lost_at is not None and asyncio.get_running_loop().time() - lost_at > GIVE_UP_SECONDS:
            await self._leave()
            raise BrokerUnavailable("no node of the cluster can be reached")
        await self.open()
        assert self._reader is not None
        positions = {place: partition.unread for place, partition in self._partitions.items()}
        try:
            found, unreadable = await self._reader.read(limit, wait_seconds=wait_seconds, positions=positions)
        except KafkaError as error:
            await self._leave()
            raise BrokerUnavailable(_reason(error)) from error
        if self._sharing_out:
            return []  # whoever gets their partition gets them again
        deliveries = []
        for place, records in found.items():
            partition = self._partitions.setdefault(place, _Partition(records[0].offset))
            for record in records:
                if partition.take(record.offset):
                    delivery = Delivery(_message(record, self._kind), receipt=(partition, record.offset))
                    partition.held[record.offset] = delivery
                    deliveries.append(delivery)
        return deliveries + [delivery for one in unreadable if (delivery := self._unreadable(one)) is not None]

    def _unreadable(self, one: Unreadable) -> Delivery | None:
        topic, number = one.place
        identity = f"{topic}:{number}:{one.offset}"
        reason = f"offset {one.offset} of partition {number} cannot be decoded: {one.reason}"
        partition = self._partitions.setdefault(one.place, _Partition(one.offset))
        if not partition.take(one.offset):
            return None
        message = Message(self._kind, topic, identity, identity, b"")
        delivery = Delivery(message, receipt=(partition, one.offset), unreadable=reason)
        partition.held[one.offset] = delivery
        return delivery

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            partition, offset = delivery.receipt
            partition.held.pop(offset, None)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            partition, offset = delivery.receipt
            if partition.held.pop(offset, None) is not None:
                partition.released.add(offset)
        for place, partition in self._partitions.items():
            if partition.released and self._consumer is not None:
                with suppress(KafkaError):  # no longer ours: it comes again to whoever has it now
                    self._consumer.seek(place, min(partition.released))

    async def touch(self, deliveries: Sequence[Delivery]) -> None:
        """Kafka takes nothing back from a member that is alive. A good time to commit, for who fetches nothing more."""
        await self._commit_now_and_then()

    async def close(self) -> None:
        self._broker.subscriptions.discard(self)
        await self._commit(self._partitions)
        await self._leave()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """All are given up when any replica comes or goes; what is being done may still be finished before."""
        self._sharing_out = True
        partitions = {place: self._partitions[place] for place in revoked if place in self._partitions}
        for partition in partitions.values():
            partition.lose()
        for _ in range(FINISH_STEPS):
            if any(partition.held for partition in partitions.values()):
                await asyncio.sleep(0.01)
        await self._commit(partitions)
        for place in partitions:
            self._partitions.pop(place, None)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._sharing_out = False

    async def _leave(self) -> None:
        for partition in self._partitions.values():
            partition.lose()
        self._partitions.clear()
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await asyncio.wait([self._broker.supervised.finish(consumer.stop())], timeout=CALL_SECONDS)

    async def _commit_now_and_then(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._commit_at:
            self._commit_at = now + COMMIT_SECONDS
            await self._commit(self._partitions)

    async def _commit(self, places: Iterable[TopicPartition]) -> None:
        partitions = {place: self._partitions[place] for place in places if place in self._partitions}
        offsets = {place: one.done_up_to for place, one in partitions.items() if one.done_up_to > one.committed}
        if not offsets or self._consumer is None or not self._broker.connected:
            return
        with suppress(BrokerUnavailable):  # then with the next commit; or they come again
            async with _bounded(CALL_SECONDS):
                await self._consumer.commit(offsets)
            for place, offset in offsets.items():
                partitions[place].committed = offset


class _Partition:
    """What we have of one partition, for as long as it is ours."""

    def __init__(self, first: int) -> None:
        self.committed = self.next = first
        self.held: dict[int, Delivery] = {}
        self.released: set[int] = set()

    def take(self, offset: int) -> bool:
        """Whether this record is to be delivered: after a release, what follows it is read again."""
        if offset < self.next:
            again = offset in self.released
            self.released.discard(offset)
            return again
        self.next = offset + 1
        return True

    def lose(self) -> None:
        for delivery in self.held.values():
            delivery.lost = True

    @property
    def unread(self) -> int:
        return min([self.next, *self.released])

    @property
    def done_up_to(self) -> int:
        return min([self.next, *self.held, *self.released])


def group_name(kind: Kind, service: str) -> str:
    return service if kind is Kind.EVENT else f"{service}-{kind}s"


def _client_settings(options: Options) -> dict[str, Any]:
    url = urlsplit(options.url.get_secret_value())
    hosts = [host if ":" in host else f"{host}:9092" for host in url.netloc.rpartition("@")[2].split(",")]
    encrypted = url.scheme == "kafkas"
    settings: dict[str, Any] = {
        "bootstrap_servers": hosts,
        "client_id": options.client_name,
        "request_timeout_ms": int(options.publish_timeout_seconds * 1000),
        "metadata_max_age_ms": METADATA_SECONDS * 1000,
        "security_protocol": "SSL" if encrypted else "PLAINTEXT",
        "ssl_context": ssl.create_default_context() if encrypted else None,
    }
    if url.username:
        settings |= {
            "security_protocol": f"SASL_{settings['security_protocol']}",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": unquote(url.username),
            "sasl_plain_password": unquote(url.password or ""),
        }
    return settings


def _message(record: ConsumerRecord, kind: Kind) -> Message:
    headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
    return Message(
        kind=kind,
        name=record.topic,
        id=headers.get("id") or f"{record.topic}:{record.partition}:{record.offset}",
        key=(record.key or b"").decode(errors="replace"),
        body=record.value or b"",
        headers={name: value for name, value in headers.items() if name not in _OURS},
    )


@asynccontextmanager
async def _bounded(seconds: float) -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except (KafkaError, OSError) as error:  # TimeoutError is an OSError
        raise BrokerUnavailable(_reason(error)) from error


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


async def _answers(publisher: Publisher) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(CALL_SECONDS):
            return await publisher.producer.client.force_metadata_update()
    return False
