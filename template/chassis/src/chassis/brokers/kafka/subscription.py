"""Consume from Kafka as a member of the service's group.

`<service>` is the group for events and `<service>-jobs` for jobs, so replicas share partitions, and the partition of a key
belongs to one replica. Kafka commits positions, not messages: a subscription commits the position before which every record
is acknowledged.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from chassis.brokers import BrokerUnavailable, Delivery, Kind, Message
from chassis.brokers.bounded_call import bounded_call
from chassis.brokers.kafka.reader import Reader, Unreadable
from chassis.brokers.supervised_client import SupervisedClient

CALL_SECONDS = 10
"""How long connecting, declaring and committing may take."""
COMMIT_SECONDS = 1
"""The pause between commits. After a crash, Kafka delivers again what was acknowledged in that time."""
GIVE_UP_SECONDS = 10
"""After this long without the cluster, start over from the addresses in the URL: all of its nodes may have moved."""

FINISH_STEPS = 50
"""How many steps of 10 ms a rebalance waits for messages in process, so that no second replica repeats them."""

_OURS = ("id", "key", "type")


class KafkaSubscription(ConsumerRebalanceListener):
    def __init__(
        self,
        kind: Kind,
        group: str,
        topics: frozenset[str],
        client_settings: dict[str, Any],
        supervised: SupervisedClient[Any],
        *,
        session_seconds: float,
    ) -> None:
        """`supervised` knows whether the cluster can be reached. After `session_seconds` a silent member loses its place."""
        self._kind = kind
        self._group = group
        self._topics = topics
        self._client_settings = client_settings
        self._supervised = supervised
        self._session_seconds = session_seconds
        self._consumer: AIOKafkaConsumer | None = None
        self._reader: Reader | None = None
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._commit_at = 0.0
        self._rebalancing = False

    async def open(self) -> AIOKafkaConsumer:
        """Raises BrokerUnavailable."""
        if self._consumer is None:
            self._consumer = await self._member()
            self._reader = Reader(self._consumer)
        return self._consumer

    async def _member(self) -> AIOKafkaConsumer:
        """Join the group of the service. Raises BrokerUnavailable."""
        session_ms = int(self._session_seconds * 1000)
        consumer = AIOKafkaConsumer(
            **self._client_settings,
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=session_ms // 4,
            # While a full consumer waits for further attempts of its messages, it fetches nothing, however long that takes.
            max_poll_interval_ms=2**31 - 1,
        )
        try:
            async with bounded_call(CALL_SECONDS, KafkaError):
                await consumer.start()
        except BrokerUnavailable:
            self._supervised.finish(consumer.stop())
            raise
        consumer.subscribe(sorted(self._topics), listener=self)
        return consumer

    async def fetch(self, limit: int, *, wait_seconds: float) -> list[Delivery]:
        await self._commit_now_and_then()
        lost_at = self._supervised.lost_at
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
            raise BrokerUnavailable(str(error) or type(error).__name__) from error
        if self._rebalancing:
            return []  # the next owner of the partitions reads these records again
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
                with suppress(KafkaError):  # another replica may own the partition now, and read these records again
                    self._consumer.seek(place, min(partition.released))

    async def touch(self, deliveries: Sequence[Delivery]) -> None:
        """Commit finished messages. The deliveries themselves need nothing: Kafka takes no partition from a live replica."""
        await self._commit_now_and_then()

    async def close(self) -> None:
        await self._commit(self._partitions)
        await self._leave()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Give up all partitions, because a replica comes or goes. Wait a moment for the messages that are being processed."""
        self._rebalancing = True
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
        self._rebalancing = False

    async def _leave(self) -> None:
        for partition in self._partitions.values():
            partition.lose()
        self._partitions.clear()
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await asyncio.wait([self._supervised.finish(consumer.stop())], timeout=CALL_SECONDS)

    async def _commit_now_and_then(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._commit_at:
            self._commit_at = now + COMMIT_SECONDS
            await self._commit(self._partitions)

    async def _commit(self, places: Iterable[TopicPartition]) -> None:
        partitions = {place: self._partitions[place] for place in places if place in self._partitions}
        offsets = {
            place: one.acknowledged_to for place, one in partitions.items() if one.acknowledged_to > one.committed
        }
        if not offsets or self._consumer is None or self._supervised.client is None:
            return
        # After a failed commit, the next commit includes these records, or the next owner reads them again.
        with suppress(BrokerUnavailable):
            async with bounded_call(CALL_SECONDS, KafkaError):
                await self._consumer.commit(offsets)
            for place, offset in offsets.items():
                partitions[place].committed = offset


class _Partition:
    """The records that this member holds of one partition."""

    def __init__(self, first: int) -> None:
        self.committed = self.next = first
        self.held: dict[int, Delivery] = {}
        self.released: set[int] = set()

    def take(self, offset: int) -> bool:
        """Return whether to deliver this record.

        After a release, the records behind the released record are read again.
        """
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
    def acknowledged_to(self) -> int:
        return min([self.next, *self.held, *self.released])


def group_name(kind: Kind, owner: str) -> str:
    return owner if kind is Kind.EVENT else f"{owner}-{kind}s"


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
