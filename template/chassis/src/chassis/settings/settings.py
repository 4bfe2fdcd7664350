"""Settings, read once from the environment by an entry point and handed down: URLs, limits of requests, times."""

from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, HttpUrl, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from chassis.settings import addresses
from chassis.settings.encryption import ENCRYPTED, unencrypted_urls


def _postgres_url(url: SecretStr) -> SecretStr:
    addresses.parse(url.get_secret_value())
    return url


def _broker_url(url: SecretStr) -> SecretStr:
    allowed = [f"{scheme}://" for pair in ENCRYPTED.items() for scheme in pair]
    text = url.get_secret_value()
    if not text.lower().startswith(tuple(allowed)):
        raise ValueError(f"must start with one of {', '.join(allowed)}")
    try:
        usable = all(_names_a_host(each if "://" in each else f"//{each}") for each in text.split(","))
    except ValueError:  # the text of this error may contain a part of the password
        usable = False
    if not usable:
        raise ValueError(
            "must look like scheme://user:password@host:port, with special characters in the password percent-encoded"
        )
    return url


def _names_a_host(url: str) -> bool:
    """Return whether the URL has a host and a valid form. Raises ValueError for an invalid port."""
    parts = urlsplit(url)
    return bool(parts.hostname) and parts.port != 0 and "@" not in f"{parts.path}{parts.query}{parts.fragment}"


Seconds = Annotated[float, Field(ge=0, le=3600)]


S = TypeVar("S", bound="CommandSettings")


class CommandSettings(BaseSettings):
    """The settings of `migrate`, `parked` and `psql`, which need no other settings of the service."""

    # Errors never show values: an invalid value may be a secret in the wrong variable.
    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)

    database_url: Annotated[SecretStr, AfterValidator(_postgres_url)]
    database_transaction_pooler: bool = False
    """Whether DATABASE_URL leads to a pooler that gives each transaction another session (pool_mode=transaction)."""
    require_tls: bool = False
    """Refuse to start unless connections are encrypted and the database is verified. Set it in production."""
    message_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 30
    """The time limit of a handler for one message."""
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def unencrypted_urls(self) -> list[str]:
        """Name each URL whose connections are not encrypted and verified, with a remedy."""
        return list(unencrypted_urls(self.database_url.get_secret_value(), None))

    @model_validator(mode="after")
    def _require_encryption(self) -> Self:
        if self.require_tls and (found := self.unencrypted_urls()):
            raise ValueError(
                "\n  ".join(["REQUIRE_TLS is true, so connections must be encrypted and verified", *found])
            )
        return self


class BrokerSettings(CommandSettings):
    """The settings of `messages`, which looks at the broker, too."""

    broker_url: Annotated[SecretStr, AfterValidator(_broker_url)] | None = None
    """The URL of NATS, Kafka or RabbitMQ: the scheme decides. A service that sends or consumes messages requires it."""

    def unencrypted_urls(self) -> list[str]:
        """Name each URL whose connections are not encrypted and verified, with a remedy."""
        broker = self.broker_url.get_secret_value() if self.broker_url else None
        return list(unencrypted_urls(self.database_url.get_secret_value(), broker))


class Settings(BrokerSettings):
    """The settings of every service. The environment variable of a field has its name in capitals.

    A service adds settings of its own in settings.py. Secrets are SecretStr and have no default.
    """

    service_version: str = "0.0.0"
    """The version of the build. The image sets it."""

    database_pool_size: Annotated[int, Field(ge=1, le=1000)] = 10
    """The most connections of a process, without one for probes. Keep the sum of all replicas below max_connections."""

    broker_replication: Annotated[int, Field(ge=1, le=7)] = 1
    """The copies that the broker keeps of each message. Set 3 for a cluster."""
    event_retention_hours: Annotated[int, Field(ge=1, le=24 * 365)] = 7 * 24
    """How long the broker keeps events for consumers that are down (NATS, Kafka)."""
    kafka_partitions: Annotated[int, Field(ge=1, le=1000)] = 12
    """The partitions of each topic that this service creates: at most this many replicas can share its events."""
    inbox_retention_days: Annotated[int, Field(ge=1, le=365)] = 14
    """How long the inbox keeps a message's id, so that a second copy has no effect: longer than the broker keeps the message."""
    message_max_attempts: Annotated[int, Field(ge=1, le=100)] = 5
    """A message is parked after this many failed attempts, and then waits for a person."""
    parked_max_messages: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """The most incoming messages that are parked. Further messages that fail wait, and in the end stop the consumer."""
    parked_max_bytes: Annotated[int, Field(ge=1, le=2**40)] = 2**30
    """The most bytes of incoming messages that are parked, as parked_max_messages limits their number."""
    jobs_at_once: Annotated[int, Field(ge=1, le=100)] = 4
    """The most jobs of a queue that a worker processes at the same time. Each holds a connection: see DATABASE_POOL_SIZE."""
    event_relay: bool = True
    """Whether the worker sends events. Set false if Debezium reads events from the log. Jobs are always sent."""
    run_worker: bool = False
    """Send and consume messages inside the process that serves HTTP, for development. In production `work` does."""

    http_host: str = "127.0.0.1"
    http_port: Annotated[int, Field(ge=1, le=65535)] = 8000
    http_fd: Annotated[int, Field(ge=3)] | None = None
    """The descriptor of a listening socket that the parent process passes on, instead of HTTP_HOST and HTTP_PORT."""
    keep_alive_seconds: Seconds = 75
    """How long an idle connection stays open. A load balancer before it needs a shorter idle timeout."""

    request_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 30
    """The time limit of a request, until the first byte of its answer."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=2**30)] = 1024 * 1024
    """The largest body of a request. A route or a router may have its own `max_body_size`: see web/limits.py."""
    max_concurrent_requests: Annotated[int, Field(ge=1, le=100_000)] = 200
    """The most requests at the same time. A request beyond that gets a 503 at once, instead of waiting in a queue."""
    max_connections: Annotated[int, Field(ge=10, le=100_000)] = 1000
    """The most connections of clients, with idle connections. A further one closes the longest idle connection."""

    idempotency_retention_hours: Annotated[int, Field(ge=1, le=24 * 365)] = 24
    """How long the answer to a POST with an Idempotency-Key is kept, and given again: longer than any client repeats."""

    serve_docs: bool = False
    """Show /docs and /openapi.json to every caller, as `make dev` does."""
    probe_details: bool = False
    """Let /readyz and /startupz show version, waiting messages and faults to every caller, as `make dev` does."""

    drain_seconds: Seconds = 5
    """How long the process serves after SIGTERM, until load balancers notice that it is not ready."""
    shutdown_timeout_seconds: Seconds = 20
    """How long running requests and messages may take to finish after DRAIN_SECONDS."""

    log_requests: bool = False
    """Log a line for each request. Traces show more, so the default is off. Failures are always logged."""

    log_messages: bool = False
    """Log a line for each message that was sent or handled, as `make dev` does. Failures are always logged."""

    otel_exporter_otlp_endpoint: HttpUrl | None = None
    """The base URL of an OTLP/HTTP receiver. Without it nothing is exported, but trace ids are passed on."""
    trace_sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """The share of traces that are recorded if they start here. For callers' traces see TRACE_CALLERS_PER_SECOND."""
    trace_callers_per_second: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    """The most requests of a process that are traced because the caller asks. TRACE_SAMPLE_RATIO is for the rest."""

    @model_validator(mode="after")
    def _remember_longer_than_the_broker_keeps(self) -> Self:
        if self.inbox_retention_days * 24 <= self.event_retention_hours:
            raise ValueError(
                f"INBOX_RETENTION_DAYS={self.inbox_retention_days} is not longer than "
                f"EVENT_RETENTION_HOURS={self.event_retention_hours}: an event could have its effect twice, if a copy "
                "came after the inbox had deleted its id. Raise the first or lower the second"
            )
        return self


class SettingsError(Exception):
    """The environment lacks a setting, or a setting is invalid. The message has a line for each such setting."""


def read(kind: type[S]) -> S:
    """Read the settings from the environment. Raises SettingsError, which never shows a value."""
    try:
        return kind()
    except ValidationError as error:
        lines = []
        for part in error.errors(include_input=False, include_url=False):
            name = "__".join(str(step) for step in part["loc"]).upper()
            what = "is not set" if part["type"] == "missing" else part["msg"].removeprefix("Value error, ")
            lines.append(f"  {name}: {what}" if name else f"  {what}")
        lines.append("Set it in the environment; docs/runbook.md lists the settings.")
        raise SettingsError("\n".join(lines)) from None
