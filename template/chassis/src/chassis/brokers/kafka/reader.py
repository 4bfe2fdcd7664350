"""Read from Kafka, also past records that cannot be decoded.

aiokafka reports what is wrong with a batch but not the position of the batch, drops the records of other partitions in the
same call, and reads the same batch in the next call. So after such an error, partitions are read one by one, and the
partition with the error record by record: then its position is the offset of the record that cannot be decoded.
"""

import asyncio
import gzip
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import cramjam
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError

log = structlog.get_logger()

CAREFUL_SECONDS = 5
"""How long partitions are read one by one after an error."""
LOOK_SECONDS = 0.05

UNDECODABLE = (
    CorruptRecordException,
    UnsupportedCodecError,
    NotImplementedError,  # a codec whose library is missing
    cramjam.DecompressionError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    IndexError,
    ValueError,
)


@dataclass(frozen=True)
class Unreadable:
    """A record that cannot be decoded."""

    place: TopicPartition
    offset: int
    reason: str


Found = dict[TopicPartition, list[ConsumerRecord]]


class Reader:
    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._careful_until = 0.0
        self._by_record: set[TopicPartition] = set()
        self._turns: dict[TopicPartition, int] = {}
        """The turn in which each partition was last read. Partitions take turns, so that no partition fills every answer."""

    async def read(
        self, limit: int, *, wait_seconds: float, positions: Mapping[TopicPartition, int]
    ) -> tuple[Found, list[Unreadable]]:
        """Return up to `limit` records. `positions` are the next offsets of the partitions that were read before.

        Raises KafkaError.
        """
        clock = asyncio.get_running_loop()
        if clock.time() >= self._careful_until:
            self._by_record.clear()
            try:
                return await self._consumer.getmany(timeout_ms=int(wait_seconds * 1000), max_records=limit), []
            except UNDECODABLE as error:
                log.warning("kafka_fetch_unreadable", reason=f"{type(error).__name__}: {error}")
                self._careful_until = clock.time() + CAREFUL_SECONDS
                await self._go_back(positions)
        deadline = clock.time() + wait_seconds
        while True:
            found, unreadable = await self._read_each(limit)
            if found or unreadable or clock.time() >= deadline:
                return found, unreadable
            await asyncio.sleep(LOOK_SECONDS)

    async def _go_back(self, positions: Mapping[TopicPartition, int]) -> None:
        for place in self._consumer.assignment():
            position = positions.get(place)
            if position is None:
                position = await self._consumer.committed(place)
            if position is None:
                await self._consumer.seek_to_beginning(place)
            else:
                self._consumer.seek(place, position)

    async def _read_each(self, limit: int) -> tuple[Found, list[Unreadable]]:
        found: Found = {}
        unreadable: list[Unreadable] = []
        for place in sorted(self._consumer.assignment(), key=lambda place: self._turns.get(place, 0)):
            room = limit - len(unreadable) - sum(map(len, found.values()))
            if room <= 0:
                break
            self._turns[place] = 1 + max(self._turns.values(), default=0)
            most = 1 if place in self._by_record else room
            try:
                found |= await self._consumer.getmany(place, timeout_ms=0, max_records=most)
            except UNDECODABLE as error:
                self._careful_until = asyncio.get_running_loop().time() + CAREFUL_SECONDS
                if place in self._by_record:
                    offset = await self._consumer.position(place)
                    self._consumer.seek(place, offset + 1)
                    unreadable.append(Unreadable(place, offset, f"{type(error).__name__}: {error}"))
                self._by_record.add(place)
        return found, unreadable
