"""NATS with JetStream (server 2.10 or newer), by nats-py.

Who owns a name has a stream for its events, which keeps them for the retention, and one for its jobs, which keeps each
until it is done. A service that takes from a stream has one durable consumer there, named after itself; a new one
begins with the oldest event that the stream still has.
"""

import asyncio
import re
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog
from nats import errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from chassis.brokers import BrokerUnavailable, DestinationUnavailable, Kind, Message, MessageRefused, Options, Topology
from chassis.brokers.nats.jetstream import FAILURES, NatsSubscription, by_owner, quietly, stream_name
from chassis.brokers.nats.publisher import Publisher

log = structlog.get_logger()

RECONNECT_SECONDS = 0.25
"""Between tries to reach the servers again."""
PING_SECONDS = 10
"""A server that leaves two of these unanswered is given up."""
DUPLICATE_SECONDS = 120
"""How long a stream knows the ids of its messages."""
ENSURE_TRIES = 10

STREAM_EXISTS = 10058
REFUSALS = {10054, 10060, 10070, 10071, 10097, 10111, 10164, 10165, 10166}
"""JetStream's errors that concern the message: it is too large, or has a header that the stream does not accept or a
condition that does not hold. All other errors concern the stream or the account, and may be temporary."""
FORBIDDEN = re.compile(r'permissions violation for publish to "(.+)"', re.IGNORECASE)


class NatsBroker:
    system = "nats"
    shares_in_order = False

    def __init__(self, options: Options) -> None:
        self.options = options
        self.breaks = 0
        """How often the connection was lost."""
        self._client: Client | None = None
        self._jetstream: JetStreamContext | None = None
        self._publisher: Publisher | None = None
        self._topology: Topology | None = None
        self._declared = False
        self._mending: asyncio.Task[None] | None = None
        self._restoring: dict[tuple[Kind, str], asyncio.Task[None]] = {}
        self._last_error: Exception | None = None
        self._violation: str | None = None
        """The last permission that the server found missing: the reason why an answer may never come."""
        self._closed = False

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    @property
    def client(self) -> Client:
        assert self._client is not None, "connect first"
        return self._client

    async def connect(self) -> None:
        await self.ready()

    async def declare(self, topology: Topology) -> None:
        self._topology, self._declared = topology, False
        await self.ready()

    async def publish(self, message: Message) -> None:
        headers = _headers(message)
        if not self.connected:
            await self.ready()
        assert self._publisher is not None
        size = len(message.body) + _size(headers)
        if size > self.client.max_payload:  # asked after all, the server would hang up
            raise MessageRefused(f"{size} bytes with its headers: the server takes {self.client.max_payload}")
        try:
            async with asyncio.timeout(self.options.publish_timeout_seconds):
                await self._publisher.publish(message.name, message.body, headers)
        except APIError as error:
            verdict = MessageRefused if error.err_code in REFUSALS else DestinationUnavailable
            raise verdict(str(error.description)) from error
        except NoStreamResponseError as error:
            await self._restore(message)
            raise DestinationUnavailable(f"no stream takes {message.name}") from error
        except (errors.MaxPayloadError, errors.BadHeaderError, errors.BadSubjectError) as error:
            raise MessageRefused(str(error)) from error
        except FAILURES as error:
            raise self.meaning_of(error) from error

    async def subscribe(self, kind: Kind) -> NatsSubscription:
        assert self._topology is not None, "declare first"
        await self.ready()
        return NatsSubscription(self, self._topology, kind)

    async def close(self) -> None:
        self._closed = True
        if self._mending is not None:
            self._mending.cancel()
        if self._client is not None:
            await quietly(self._client.close())

    async def ready(self) -> JetStreamContext:
        """What to talk with, once all that was declared is there. Raises BrokerUnavailable."""
        while not self.connected or (self._topology is not None and not self._declared):
            if self._closed:
                raise BrokerUnavailable("the connection to NATS was closed")
            if self._client is not None and not self.connected and not self._client.is_closed:
                # It keeps trying by itself.
                raise BrokerUnavailable(f"NATS cannot be reached: {_reason(self._last_error)}")
            # One mends, and all that wait have its outcome: they must not try one after the other.
            if self._mending is None or self._mending.done():
                self._mending = asyncio.create_task(self._mend())
            await asyncio.wait([self._mending])
            if not self._mending.cancelled():
                self._mending.result()
        assert self._jetstream is not None
        return self._jetstream

    def meaning_of(self, failure: Exception) -> BrokerUnavailable:
        """Return the error that callers of this module expect for an error of nats-py."""
        if isinstance(failure, NotFoundError):
            self._declared = False  # the server may have lost what it knew
        reason = _reason(failure)
        if isinstance(failure, TimeoutError) and self._violation is not None:
            reason += f" (the server has reported: {self._violation})"
        return BrokerUnavailable(reason)

    async def _restore(self, message: Message) -> None:
        """Create the missing stream of this message again, once for all messages that need it.

        Raises DestinationUnavailable.
        """
        assert self._topology is not None
        assert self._jetstream is not None
        which = (message.kind, message.owner)
        for kind, owner, names in _streams(self._topology):
            if (kind, owner) == which and which not in self._restoring:
                restoring = asyncio.create_task(self._ensure_stream(self._jetstream, kind, owner, names))
                restoring.add_done_callback(lambda _: self._restoring.pop(which))
                self._restoring[which] = restoring
        if (task := self._restoring.get(which)) is not None:
            try:
                await asyncio.shield(task)
            except (*FAILURES, BrokerUnavailable) as error:
                raise DestinationUnavailable(str(self.meaning_of(error))) from error

    async def _mend(self) -> None:
        if self._client is None or self._client.is_closed:
            self._client = await self._connected_client()
            self._jetstream = self._client.jetstream(timeout=self.options.publish_timeout_seconds)
            self._publisher = Publisher(self._client)
            await self._publisher.start()
            if self.breaks:  # the server had thrown us out, and nats-py takes that for an answer
                await self._on_reconnect()
        if (topology := self._topology) is not None:
            assert self._jetstream is not None
            try:
                for kind, owner, names in _streams(topology):
                    await self._ensure_stream(self._jetstream, kind, owner, names)
            except FAILURES as error:
                raise self.meaning_of(error) from error
            self._declared = topology is self._topology

    async def _connected_client(self) -> Client:
        client = _Client()
        self._last_error = self._violation = None
        urls = self.options.url.get_secret_value().split(",")
        try:
            async with asyncio.timeout(self.options.publish_timeout_seconds):  # nats-py itself would try for ever
                await client.connect(
                    urls,
                    **_credentials(urls[0]),
                    name=self.options.client_name,
                    # An inbox prefix of its own: a client that may subscribe to every inbox reads the replies to
                    # others.
                    inbox_prefix=f"_INBOX_{self.options.client_name}",
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RECONNECT_SECONDS,  # ty: ignore[invalid-argument-type]
                    ping_interval=PING_SECONDS,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnect,
                    reconnected_cb=self._on_reconnect,
                )
        except FAILURES as error:
            raise BrokerUnavailable(f"NATS cannot be reached: {_reason(self._last_error or error)}") from error
        finally:
            if not client.is_connected:
                await quietly(client.close())
        return client

    async def _on_error(self, error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            self._violation = str(error)
            if (found := FORBIDDEN.search(str(error))) and self._publisher is not None:
                self._publisher.forbid(found[1], DestinationUnavailable(str(error)))
            return
        # A server that refuses us says why, and hangs up: which of the two is seen last is chance.
        if not (isinstance(error, OSError) and isinstance(self._last_error, errors.Error)):
            self._last_error = error

    async def _on_disconnect(self) -> None:
        self.breaks += 1
        self._last_error = None
        if not self._closed:
            log.warning("broker_connection_lost", system=self.system)

    async def _on_reconnect(self) -> None:
        log.info("broker_connection_restored", system=self.system)

    async def _ensure_stream(self, jetstream: JetStreamContext, kind: Kind, owner: str, names: frozenset[str]) -> None:
        assert self._topology is not None
        stream = stream_name(kind, owner)
        settings = self._settings(kind)
        for _ in range(ENSURE_TRIES):
            try:
                found = (await jetstream.stream_info(stream)).config
            except NotFoundError:
                retention = RetentionPolicy.LIMITS if kind is Kind.EVENT else RetentionPolicy.WORK_QUEUE
                made = StreamConfig(stream, subjects=sorted(names), retention=retention, storage=StorageType.FILE)
                try:
                    await jetstream.add_stream(made, **settings)
                except APIError as error:
                    if error.err_code != STREAM_EXISTS:  # another service was faster
                        raise
                continue
            subjects = set(found.subjects or ())
            # The owner's settings count, not those of a listener that was there first. But no copy is given up.
            kept = {"num_replicas": max(self.options.replication, found.num_replicas or 1)}
            wanted = settings | kept if owner == self._topology.service else {}
            if names <= subjects and all(getattr(found, name) == value for name, value in wanted.items()):
                return
            # Then looked at again: another service may be adding its names at the same time.
            await jetstream.update_stream(found, subjects=sorted(subjects | names), **wanted)
        raise BrokerUnavailable(f"others keep changing the stream {stream}")

    def _settings(self, kind: Kind) -> dict[str, Any]:
        keeps = max(round(self.options.retention_seconds), 1)
        return {
            "max_age": keeps if kind is Kind.EVENT else 0,  # 0: for ever
            "duplicate_window": min(DUPLICATE_SECONDS, keeps) if kind is Kind.EVENT else DUPLICATE_SECONDS,
            "num_replicas": self.options.replication,
        }


class _Client(Client):
    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # nats-py leaves it to the server whether to encrypt: our password would go out in the clear.
        assert self._current_server is not None
        if initial_connection and self._current_server.uri.scheme == "tls" and not info.get("tls_required"):
            raise errors.SecureConnWantedError
        await super()._process_info(info, initial_connection)


def _credentials(url: str) -> dict[str, Any]:
    """For all servers. nats-py would send what a URL says as it stands there, percent-encoded."""
    parts = urlsplit(url)
    if parts.username and parts.password:
        return {"user": unquote(parts.username), "password": unquote(parts.password)}
    return {"token": unquote(parts.username)} if parts.username else {}


def _reason(error: Exception | None) -> str:
    return "the connection was lost" if error is None else str(error) or type(error).__name__


def _streams(topology: Topology) -> list[tuple[Kind, str, frozenset[str]]]:
    events = topology.published_events | topology.awaited_events
    jobs = topology.sent_jobs | topology.accepted_jobs
    return [(kind, *each) for kind, names in ((Kind.EVENT, events), (Kind.JOB, jobs)) for each in by_owner(names)]


def _headers(message: Message) -> dict[str, str]:
    """Raises MessageRefused for what would arrive as something else."""
    ours = {"id": message.id, "key": message.key, "type": message.name, "Nats-Msg-Id": message.id}
    headers = {**message.headers, **ours}
    for name, value in headers.items():
        if value != value.strip() or "\n" in value or "\r" in value:
            raise MessageRefused(f"NATS changes line breaks and outer white space in headers, and {name} has some")
    return headers


def _size(headers: dict[str, str]) -> int:
    """Return the size of the headers in bytes. Raises MessageRefused."""
    try:
        return len("NATS/1.0\r\n\r\n") + sum(len(f"{name}: {value}\r\n".encode()) for name, value in headers.items())
    except UnicodeEncodeError as error:
        raise MessageRefused(f"a header is not valid Unicode: {error}") from error
