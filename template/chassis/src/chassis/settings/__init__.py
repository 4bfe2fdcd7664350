"""Settings, read once from the environment by an entry point and handed down."""

from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, HttpUrl, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from chassis.settings import addresses
from chassis.settings.encryption import unencrypted


def _postgres_url(url: SecretStr) -> SecretStr:
    addresses.parse(url.get_secret_value())
    return url


def _broker_url(url: SecretStr) -> SecretStr:
    from chassis.brokers import SCHEMES  # here, because a service that speaks HTTP only needs no broker

    allowed = [f"{scheme}://" for scheme in SCHEMES if scheme != "memory"]
    text = url.get_secret_value()
    if not text.lower().startswith(tuple(allowed)):
        raise ValueError(f"must begin with one of {', '.join(allowed)}")
    try:
        usable = all(_names_a_host(each if "://" in each else f"//{each}") for each in text.split(","))
    except ValueError:  # its text has a part of the password, if that contains a /
        usable = False
    if not usable:
        raise ValueError(
            "must look like scheme://user:password@host:port, with special characters in the password percent-encoded"
        )
    return url


def _names_a_host(url: str) -> bool:
    """Raises ValueError for an invalid port."""
    parts = urlsplit(url)
    return bool(parts.hostname) and parts.port != 0 and "@" not in f"{parts.path}{parts.query}{parts.fragment}"


Seconds = Annotated[float, Field(ge=0, le=3600)]


S = TypeVar("S", bound="CommandSettings")


class CommandSettings(BaseSettings):
    """The settings of `migrate` and `parked`, which run also where the other settings of the service are missing."""

    # Values never show in errors: the wrong one may be a secret in the wrong variable.
    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)

    database_url: Annotated[SecretStr, AfterValidator(_postgres_url)]
    database_transaction_pooler: bool = False
    """DATABASE_URL leads to a pooler that gives each transaction another session (pgbouncer: pool_mode=transaction)."""
    require_tls: bool = False
    """Refuse to start unless connections are encrypted and the database is verified: for production."""
    message_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 30
    """How long a handler may take."""
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def unencrypted(self) -> list[str]:
        """The name of each URL whose connections are not encrypted and verified, and what to do."""
        return list(unencrypted(self.database_url.get_secret_value(), None))

    @model_validator(mode="after")
    def _encrypt_where_that_is_required(self) -> Self:
        if self.require_tls and (found := self.unencrypted()):
            raise ValueError(
                "\n  ".join(["REQUIRE_TLS is true, so connections must be encrypted and verified", *found])
            )
        return self


class Settings(CommandSettings):
    """What every service can be told. The environment variable has the field's name in capitals.

    A service adds its own in settings.py. Secrets are SecretStr and have no default.
    """

    service_version: str = "0.0.0"
    """Of the build; the image sets it."""

    database_pool_size: Annotated[int, Field(ge=1, le=1000)] = 10
    """Connections per process, at most, and one more for probes. All replicas' stay below max_connections."""

    broker_url: Annotated[SecretStr, AfterValidator(_broker_url)] | None = None
    """Of NATS, Kafka or RabbitMQ, by its scheme. Required in a service that sends or takes messages."""
    broker_replication: Annotated[int, Field(ge=1, le=7)] = 1
    """Copies that the broker keeps of each message: 3 where it is a cluster."""
    event_retention_hours: Annotated[int, Field(ge=1, le=24 * 365)] = 7 * 24
    """How long the broker keeps events, for listeners that were away (NATS, Kafka)."""
    kafka_partitions: Annotated[int, Field(ge=1, le=1000)] = 12
    """Of each topic that this service makes: the most replicas that can share its events."""
    inbox_retention_days: Annotated[int, Field(ge=1, le=365)] = 14
    """How long a message's id is remembered, so that a second copy has no effect. Longer than the broker keeps it."""
    message_max_tries: Annotated[int, Field(ge=1, le=100)] = 5
    """After so many failures a message is parked, and waits for a person."""
    parked_max_messages: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """At most this many incoming messages are parked. Others that fail then wait, and in the end stop the consumer."""
    parked_max_bytes: Annotated[int, Field(ge=1, le=2**40)] = 2**30
    """As parked_max_messages, for the size of the incoming messages that are parked."""
    event_relay: bool = True
    """The worker sends events. False where Debezium reads them from the database's log; jobs are sent in any case."""
    run_worker: bool = False
    """Send and take messages inside the process that serves HTTP: for development. Else `work` does it."""

    http_host: str = "127.0.0.1"
    http_port: Annotated[int, Field(ge=1, le=65535)] = 8000
    keep_alive_seconds: Seconds = 75
    """Longer than the idle timeout of the load balancer, or it meets closed connections."""

    request_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 30
    max_body_bytes: Annotated[int, Field(ge=1024, le=2**30)] = 1024 * 1024
    max_concurrent_requests: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Requests beyond this are told to come back, rather than queued until all time out."""
    max_connections: Annotated[int, Field(ge=10, le=100_000)] = 1000
    """Connections of clients, idle ones included. One more closes the one that has waited longest for a request."""

    serve_docs: bool = False
    """Show /docs and /openapi.json, to anybody. `make dev` does."""
    probe_details: bool = False
    """Let /readyz and /startupz show version, waiting messages and faults, to anybody. `make dev` does."""

    drain_seconds: Seconds = 5
    """How long to go on serving after SIGTERM, for load balancers to notice that we are not ready."""
    shutdown_timeout_seconds: Seconds = 20
    """How long accepted requests may take to finish after that."""

    log_requests: bool = False
    """A line per request. Off by default: traces say it better; failures are always logged."""

    otel_exporter_otlp_endpoint: HttpUrl | None = None
    """Base URL of an OTLP/HTTP receiver. Without it nothing is exported, trace ids still go through."""
    trace_sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the traces that start here. A caller's decision is followed, within TRACE_CALLERS_PER_SECOND."""
    trace_callers_per_second: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    """Requests per process that are traced because their caller asks. TRACE_SAMPLE_RATIO decides on the others."""

    def unencrypted(self) -> list[str]:
        """The name of each URL whose connections are not encrypted and verified, and what to do."""
        broker = self.broker_url.get_secret_value() if self.broker_url else None
        return list(unencrypted(self.database_url.get_secret_value(), broker))

    @model_validator(mode="after")
    def _remember_longer_than_the_broker_keeps(self) -> Self:
        if self.inbox_retention_days * 24 <= self.event_retention_hours:
            raise ValueError(
                "INBOX_RETENTION_DAYS must be longer than EVENT_RETENTION_HOURS: a copy of an event that comes after its "
                "id was forgotten has its effect twice"
            )
        return self


class SettingsError(Exception):
    """The environment does not hold what the service needs. The message has a line for each setting that is wrong."""


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
        lines.append("Set it in the environment; docs/runbook.md lists every setting.")
        raise SettingsError("\n".join(lines)) from None
