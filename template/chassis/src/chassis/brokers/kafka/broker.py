"""Kafka, by aiokafka. The library works in the event loop, so the rebalances of a group need no thread.

Each name has a topic. A job that no service consumes within the retention is lost, as an event is.

The first service that declares a topic creates the topic, even if the service only consumes it: a Kafka that creates unknown
topics by itself would give the topic the wrong settings.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit
from weakref import WeakSet

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    KafkaError,
    NotLeaderForPartitionError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from chassis.brokers import BrokerUnavailable, DestinationUnavailable, Kind, Message, Options, Topology
from chassis.brokers.bounded_call import bounded_call
from chassis.brokers.kafka.publisher import BATCH_BYTES, Publisher
from chassis.brokers.kafka.subscription import CALL_SECONDS, KafkaSubscription, group_name
from chassis.brokers.supervised_client import SupervisedClient

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it logs each attempt to connect; SupervisedClient logs once

METADATA_SECONDS = 5
"""How soon new topics and partitions are noticed."""

MISSING = (UnknownTopicOrPartitionError, NotLeaderForPartitionError)
"""The errors that aiokafka raises for a missing topic."""


class KafkaBroker:
    system = "kafka"
    shares_in_order = True

    def __init__(self, options: Options) -> None:
        self._options = options
        self._client = client_settings(options)
        self._topology: Topology | None = None
        self.subscriptions: WeakSet[KafkaSubscription] = WeakSet()
        self.supervised = SupervisedClient(self.system, make=self._publisher, holds=_answers, leave=Publisher.abandon)

    @property
    def connected(self) -> bool:
        return self.supervised.client is not None

    async def connect(self) -> None:
        await self.supervised.open()

    async def declare(self, topology: Topology) -> None:
        self._topology = topology
        wanted = {*topology.published_events, *topology.awaited_events, *topology.sent_jobs, *topology.accepted_jobs}
        async with bounded_call(CALL_SECONDS, KafkaError):
            admin = AIOKafkaAdminClient(**self._client)
            try:
                await admin.start()
                missing = wanted - set(await admin.list_topics())
                if missing:
                    created: Any = await admin.create_topics([self._topic(name) for name in sorted(missing)])
                    for name, code, reason in created.topic_errors:
                        if code and for_code(code) is not TopicAlreadyExistsError:
                            raise BrokerUnavailable(
                                f"topic {name} cannot be created: {for_code(code).__name__}: {reason}"
                            )
            finally:
                await admin.close()

    def _topic(self, name: str) -> NewTopic:
        options = self._options
        settings = {
            "retention.ms": str(int(options.retention_seconds * 1000)),
            # If one of three copies is out of reach, the topic still works, and stores each confirmed message on two nodes.
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
        """Create the topic that is missing, or replace the publisher that failed."""
        if not isinstance(error, DestinationUnavailable):
            # The producer may hold on to messages that were given up, and after some errors it never sends again
            # (aiokafka#1017).
            self.supervised.drop(publisher)
        elif isinstance(error.__cause__, MISSING) and self._topology is not None:
            await self.supervised.restore(partial(self.declare, self._topology))

    async def subscribe(self, kind: Kind, owner: str = "") -> KafkaSubscription:
        assert self._topology is not None, "declare first"
        seconds = self._options.redelivery_seconds
        group, topics = owner or self._topology.service, self._topology.taken(kind, owner or self._topology.service)
        subscription = KafkaSubscription(
            kind, group_name(kind, group), topics, self._client, self.supervised, session_seconds=seconds
        )
        await subscription.open()
        self.subscriptions.add(subscription)
        return subscription

    async def close(self) -> None:
        await asyncio.gather(*(subscription.close() for subscription in self.subscriptions))
        await self.supervised.close()

    async def _publisher(self) -> Publisher:
        # The producer is not idempotent: an idempotent producer of aiokafka repeats a send without end and reports no reason,
        # and after one refused batch, Kafka refuses all its later batches. The inbox recognises the copies that a missing
        # answer causes.
        producer = AIOKafkaProducer(**self._client, acks="all", max_batch_size=BATCH_BYTES)
        publisher = Publisher(producer, mend=self._mend, timeout_seconds=self._options.publish_timeout_seconds)
        try:
            async with bounded_call(CALL_SECONDS, KafkaError):
                await producer.start()
            if self._topology is not None:
                await self.declare(self._topology)  # the cluster may have lost its topics
        except BrokerUnavailable:
            self.supervised.finish(publisher.abandon())
            raise
        return publisher


def client_settings(options: Options) -> dict[str, Any]:
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


async def _answers(publisher: Publisher) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(CALL_SECONDS):
            return await publisher.producer.client.force_metadata_update()
    return False
