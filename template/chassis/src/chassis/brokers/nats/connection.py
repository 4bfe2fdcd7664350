"""The connection to NATS: connect, reconnect, and declare the streams again that a server has lost."""

import asyncio
import re
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog
from nats import errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from chassis.brokers import BrokerUnavailable, DestinationUnavailable, Kind, Options, Topology
from chassis.brokers.nats import streams
from chassis.brokers.nats.publisher import Publisher

log = structlog.get_logger()

SYSTEM = "nats"

RECONNECT_SECONDS = 0.25
"""The pause between two attempts to reach the servers again."""
PING_SECONDS = 10
"""The pause between two pings. A server that leaves two pings unanswered counts as lost."""
CLOSE_SECONDS = 2

FAILURES = (errors.Error, OSError, TimeoutError)
"""The errors of nats-py."""
FORBIDDEN = re.compile(r'permissions violation for publish to "(.+)"', re.IGNORECASE)


class Connection:
    """One connection to NATS. The class declares the streams of the topology, again if the server may have lost them."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.breaks = 0
        """How often the connection was lost."""
        self.topology: Topology | None = None
        self._client: Client | None = None
        self._jetstream: JetStreamContext | None = None
        self._publisher: Publisher | None = None
        self._declared = False
        self._repairing: asyncio.Task[None] | None = None
        self._restoring: dict[tuple[Kind, str], asyncio.Task[None]] = {}
        self._last_error: Exception | None = None
        self._violation: str | None = None
        """The server's last report of a missing permission, which explains a call that gets no answer."""
        self._closed = False

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    @property
    def client(self) -> Client:
        assert self._client is not None, "connect first"
        return self._client

    @property
    def publisher(self) -> Publisher:
        assert self._publisher is not None, "connect first"
        return self._publisher

    async def declare(self, topology: Topology) -> None:
        """Declare the streams of the topology. Raises BrokerUnavailable."""
        self.topology, self._declared = topology, False
        await self.ready()

    async def ready(self) -> JetStreamContext:
        """Return JetStream, once connected and with all streams declared. Raises BrokerUnavailable."""
        while not self.connected or (self.topology is not None and not self._declared):
            if self._closed:
                raise BrokerUnavailable("the connection to NATS was closed")
            if self._client is not None and not self.connected and not self._client.is_closed:
                # nats-py itself reconnects.
                raise BrokerUnavailable(f"NATS cannot be reached: {_reason(self._last_error)}")
            # One task repairs the connection, and all callers wait for it: they must not repair one after the other.
            if self._repairing is None or self._repairing.done():
                self._repairing = asyncio.create_task(self._repair())
            await asyncio.wait([self._repairing])
            if not self._repairing.cancelled():
                self._repairing.result()
        assert self._jetstream is not None
        return self._jetstream

    async def close(self) -> None:
        self._closed = True
        if self._repairing is not None:
            self._repairing.cancel()
        if self._client is not None:
            await quietly(self._client.close())

    async def restore(self, kind: Kind, owner: str) -> None:
        """Create a missing stream again, once for all messages that need it. Raises DestinationUnavailable."""
        assert self.topology is not None
        assert self._jetstream is not None
        missing = (kind, owner)
        for stream in streams.streams_of(self.topology):
            if (stream.kind, stream.owner) == missing and missing not in self._restoring:
                ensure = streams.ensure(self._jetstream, stream, self.options, ours=self.topology.owners)
                restoring = asyncio.create_task(ensure)
                restoring.add_done_callback(lambda _: self._restoring.pop(missing))
                self._restoring[missing] = restoring
        if (task := self._restoring.get(missing)) is not None:
            try:
                await asyncio.shield(task)
            except (*FAILURES, BrokerUnavailable) as error:
                raise DestinationUnavailable(str(self.as_unavailable(error))) from error

    def as_unavailable(self, failure: Exception) -> BrokerUnavailable:
        """Return the error that callers of this package expect for an error of nats-py."""
        if isinstance(failure, NotFoundError):
            self._declared = False  # the server may have lost its streams
        reason = _reason(failure)
        if isinstance(failure, TimeoutError) and self._violation is not None:
            reason += f" (the server has reported: {self._violation})"
        return BrokerUnavailable(reason)

    async def _repair(self) -> None:
        if self._client is None or self._client.is_closed:
            self._client = await self._connected_client()
            self._jetstream = self._client.jetstream(timeout=self.options.publish_timeout_seconds)
            self._publisher = Publisher(self._client)
            await self._publisher.start()
            if self.breaks:  # the server closed the connection with an error, after which nats-py does not reconnect
                await self._on_reconnect()
        if (topology := self.topology) is not None:
            assert self._jetstream is not None
            try:
                for stream in streams.streams_of(topology):
                    await streams.ensure(self._jetstream, stream, self.options, ours=topology.owners)
            except FAILURES as error:
                raise self.as_unavailable(error) from error
            self._declared = topology is self.topology

    async def _connected_client(self) -> Client:
        client = _Client()
        self._last_error = self._violation = None
        urls = self.options.url.get_secret_value().split(",")
        try:
            async with asyncio.timeout(
                self.options.publish_timeout_seconds
            ):  # nats-py would try to connect without an end
                await client.connect(
                    urls,
                    **_credentials(urls[0]),
                    name=self.options.client_name,
                    # Each service has an inbox prefix, so that no service needs permission to subscribe to all inboxes:
                    # such a service could read the replies to other services.
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
        # A server that refuses a client reports the reason and closes the connection: either error may be seen last.
        if not (isinstance(error, OSError) and isinstance(self._last_error, errors.Error)):
            self._last_error = error

    async def _on_disconnect(self) -> None:
        self.breaks += 1
        self._last_error = None
        if not self._closed:
            log.warning("broker_connection_lost", system=SYSTEM)

    async def _on_reconnect(self) -> None:
        log.info("broker_connection_restored", system=SYSTEM)


class _Client(Client):
    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # nats-py leaves it to the server whether to encrypt: the password could be sent unencrypted.
        assert self._current_server is not None
        if initial_connection and self._current_server.uri.scheme == "tls" and not info.get("tls_required"):
            raise errors.SecureConnWantedError
        await super()._process_info(info, initial_connection)

    async def _process_pong(self) -> None:
        # nats-py silently stops reading if the answer to a ping arrives after the ping was cancelled or timed out.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()


async def quietly(closing: Coroutine[Any, Any, None]) -> None:
    """Wait for the end of a connection for a bounded time, and ignore its errors."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            # gather() returns the cancellation of nats-py's own tasks, which `closing` would raise.
            await asyncio.gather(closing, return_exceptions=True)


def _credentials(url: str) -> dict[str, Any]:
    """Return the credentials for all servers. nats-py would send the percent-encoded text of the URL."""
    parts = urlsplit(url)
    if parts.username and parts.password:
        return {"user": unquote(parts.username), "password": unquote(parts.password)}
    return {"token": unquote(parts.username)} if parts.username else {}


def _reason(error: Exception | None) -> str:
    return "the connection was lost" if error is None else str(error) or type(error).__name__
