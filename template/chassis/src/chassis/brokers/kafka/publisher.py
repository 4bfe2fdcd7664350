"""Publish to Kafka in batches of our own.

Kafka accepts or refuses a batch as a whole. So a publisher that makes the batches itself can find out which record caused a refusal.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    BrokerResponseError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    RequestTimedOutError,
    UnsupportedForMessageFormatError,
    kafka_errors,
)
from aiokafka.partitioner import murmur2

from chassis.brokers import BrokerUnavailable, DestinationUnavailable, Message, MessageRefused

BATCH_BYTES = 128 * 1024


class InvalidRecordError(BrokerResponseError):
    """An error of Kafka that aiokafka does not know."""

    errno = 87
    message = "INVALID_RECORD"
    description = "The topic refuses the record, for example because it is compacted and the record has no key"


kafka_errors[InvalidRecordError.errno] = InvalidRecordError  # ty: ignore[invalid-assignment]

REFUSALS = (
    InvalidRecordError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnsupportedForMessageFormatError,
)
"""Errors that a record of the batch has caused. All other errors of the broker concern the topic or the partition.

InvalidTimestamp concerns our clock, because each attempt to send a record gives it the time of that attempt.
"""


class _Record(NamedTuple):
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]
    answer: "asyncio.Future[None]"


class Publisher:
    """A publisher of any number of messages at a time. Messages of one turn of the event loop share batches."""

    def __init__(
        self,
        producer: AIOKafkaProducer,
        *,
        mend: Callable[["Publisher", BrokerUnavailable], Awaitable[None]],
        timeout_seconds: float,
    ) -> None:
        self.producer = producer
        self._mend = mend
        """A function that repairs the cause of a failure. The publisher awaits the function before the messages fail."""
        self._timeout_seconds = timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._waiting: defaultdict[str, list[_Record]] = defaultdict(list)
        """Records that have not been sent yet, by topic."""
        self._sending: set[asyncio.Task[None]] = set()

    def publish(self, message: Message) -> "asyncio.Future[None]":
        """Return a future that ends when the broker has confirmed the message, or with an error.

        The errors are BrokerUnavailable, DestinationUnavailable and MessageRefused.
        """
        answer = self._loop.create_future()
        try:
            headers = [("id", message.id.encode()), ("type", message.name.encode())]
            headers += [(name, value.encode()) for name, value in message.headers.items()]
            record = _Record(message.key.encode() or None, message.body, headers, answer)
        except UnicodeEncodeError as error:
            answer.set_exception(MessageRefused(f"the key or a header is not valid Unicode: {error}"))
            return answer
        if not self._waiting:
            self._loop.call_soon(self._send)
        self._waiting[message.name].append(record)
        return answer

    async def abandon(self) -> None:
        """Close the connections. Messages that are not confirmed by now fail."""
        self._send()
        for task in self._sending:
            task.cancel()
        # stop() would wait until all messages are sent, without a limit. Without a sender it only closes the
        # connections.
        await self.producer._sender.close()
        self.producer._sender = None  # ty: ignore[invalid-assignment]
        await self.producer.stop()

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, defaultdict(list)
        for topic, records in waiting.items():
            task = self._loop.create_task(self._send_to_topic(topic, records))
            self._sending.add(task)
            task.add_done_callback(partial(self._sent, records))

    def _sent(self, records: list[_Record], task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if task.cancelled():
            _answer(records, BrokerUnavailable("the connection was lost while sending"))

    async def _send_to_topic(self, topic: str, records: list[_Record]) -> None:
        try:
            partitions = sorted(await self.producer.partitions_for(topic))
            by_partition: defaultdict[int, list[_Record]] = defaultdict(list)
            for record in records:
                by_partition[_partition_for(record, partitions)].append(record)
            sending = (self._send_to_partition(topic, *some) for some in by_partition.items())
            await asyncio.gather(*sending)
        except Exception as error:
            await self._fail(records, error)

    async def _send_to_partition(self, topic: str, partition: int, records: Sequence[_Record]) -> None:
        while records:
            batch = self.producer.create_batch()
            for record in records:
                if batch.append(timestamp=None, key=record.key, value=record.value, headers=record.headers) is None:
                    break  # the batch is full
            number = batch.record_count()
            sent, records = records[:number], records[number:]
            try:
                # aiokafka gives up by itself, with the broker's reason, unless its sender has ended.
                async with asyncio.timeout(2 * self._timeout_seconds):
                    await (await self.producer.send_batch(batch, topic, partition=partition))
            except REFUSALS as error:
                if number == 1:
                    _answer(sent, MessageRefused(_reason(error)))
                else:
                    await self._send_to_partition(topic, partition, sent[: number // 2])
                    await self._send_to_partition(topic, partition, sent[number // 2 :])
            except (KafkaError, OSError) as error:  # TimeoutError is an OSError
                await self._fail(sent, error)
            else:
                _answer(sent, None)

    async def _fail(self, records: Sequence[_Record], error: Exception) -> None:
        verdict = _verdict(error)
        try:
            if isinstance(verdict, BrokerUnavailable):
                await self._mend(self, verdict)
        finally:
            _answer(records, verdict)


def _partition_for(record: _Record, partitions: Sequence[int]) -> int:
    if record.key is None:
        return random.choice(partitions)  # noqa: S311
    return partitions[_hash(record.key) % len(partitions)]


@lru_cache(maxsize=10_000)
def _hash(key: bytes) -> int:
    """Return the hash by which Kafka's own clients choose a partition. aiokafka computes it in Python."""
    return murmur2(key) & 0x7FFFFFFF


def _answer(records: Sequence[_Record], error: Exception | None) -> None:
    for record in records:
        if record.answer.done():
            continue
        if error is None:
            record.answer.set_result(None)
        else:
            record.answer.set_exception(error)


def _verdict(error: Exception) -> Exception:
    """Return the error that callers of this module expect for an error of aiokafka."""
    if not isinstance(error, (KafkaError, OSError)):  # TimeoutError is an OSError
        return error
    concerns_topic = isinstance(error, BrokerResponseError) and not isinstance(error, RequestTimedOutError)
    verdict = (DestinationUnavailable if concerns_topic else BrokerUnavailable)(_reason(error))
    verdict.__cause__ = error
    return verdict


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
