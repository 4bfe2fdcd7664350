"""A wrong setting stops the process before it starts, with a message that names the setting and hides secrets."""

import json

import pytest
from chassis.application import application
from chassis.brokers import SCHEMES
from chassis.commands import main
from chassis.settings import Settings
from chassis.settings.encryption import ENCRYPTED
from pydantic import ValidationError

from tests.chassis.tiny.main import SERVICE

URL = "postgresql://tiny:s3cret@127.0.0.1:5432/tiny"

REFUSED = {
    "DATABASE_POOL_SIZE": [("0", "greater than or equal to 1"), ("many", "valid integer")],
    "HTTP_PORT": [("0", "greater than or equal to 1"), ("65536", "less than or equal to 65535"), ("http", "integer")],
    "KEEP_ALIVE_SECONDS": [("-1", "greater than or equal to 0")],
    "REQUEST_TIMEOUT_SECONDS": [("0", "greater than 0"), ("nan", "less than or equal to 3600"), ("5s", "valid number")],
    "MAX_BODY_BYTES": [("1", "greater than or equal to 1024"), ("1MB", "valid integer")],
    "MAX_CONCURRENT_REQUESTS": [("0", "greater than or equal to 1")],
    "DRAIN_SECONDS": [("-1", "greater than or equal to 0"), ("inf", "less than or equal to 3600")],
    "SHUTDOWN_TIMEOUT_SECONDS": [("-1", "greater than or equal to 0")],
    "REQUIRE_TLS": [("perhaps", "valid boolean")],
    "LOG_FORMAT": [("xml", "'json' or 'console'")],
    "LOG_LEVEL": [("verbose", "'debug', 'info', 'warning' or 'error'")],
    "LOG_REQUESTS": [("perhaps", "valid boolean")],
    "LOG_MESSAGES": [("perhaps", "valid boolean")],
    "OTEL_EXPORTER_OTLP_ENDPOINT": [("collector", "valid URL"), ("grpc://collector:4317", "'http' or 'https'")],
    "TRACE_SAMPLE_RATIO": [("1.1", "less than or equal to 1"), ("-0.1", "greater than or equal to 0")],
}


@pytest.fixture(autouse=True)
def only_these(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a valid DATABASE_URL, and no other setting."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DATABASE_URL", URL)


@pytest.mark.parametrize(
    ("name", "value", "rule"), [(name, value, rule) for name, cases in REFUSED.items() for value, rule in cases]
)
def test_a_malformed_setting_is_named_with_its_rule(
    name: str, value: str, rule: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)

    assert main(SERVICE, ["serve"]) == 2

    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  ")]
    assert line.startswith(f"  {name}: ")
    assert rule in line


@pytest.mark.parametrize(
    "url",
    [
        "mysql://tiny:s3cret@127.0.0.1/tiny",
        "127.0.0.1:5432/tiny?password=s3cret",
        "postgresql://tiny:s3cret/slash@127.0.0.1:5432/tiny",
        "postgresql://tiny:s3cret#hash@127.0.0.1:5432/tiny",
        "postgresql://tiny:s3cret@127.0.0.1:port/tiny",
        "postgresql://tiny:s3cret@[::1/tiny",
    ],
)
def test_a_malformed_database_url_is_named_and_never_shown(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)

    assert main(SERVICE, ["migrate"]) == 2

    said = capsys.readouterr()
    assert "  DATABASE_URL: must look like postgresql://user:password@host:5432/database" in said.err
    assert "s3cret" not in said.out + said.err


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "postgres://tiny:p%2Fw@db.internal/tiny?sslmode=require",
        "postgresql://tiny:pw@one:5432,two:5433/tiny",
        "postgresql://tiny:pw@[::1]:5432/tiny",
        "postgresql://tiny:pw@/tiny?host=/run/postgresql",
    ],
)
def test_every_form_of_database_url_that_the_driver_takes_is_taken(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)

    assert SERVICE.settings().database_url.get_secret_value() == url


@pytest.mark.parametrize("command", ["serve", "migrate"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_setting_is_named(
    value: str | None, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    if value is not None:
        monkeypatch.setenv("DATABASE_URL", value)

    assert main(SERVICE, [command]) == 2
    assert "  DATABASE_URL: is not set" in capsys.readouterr().err


def test_all_that_is_wrong_is_said_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("HTTP_PORT", "LOG_LEVEL", "DATABASE_URL"):
        monkeypatch.setenv(name, "wrong")

    assert main(SERVICE, ["serve"]) == 2

    said = capsys.readouterr().err
    assert all(f"  {name}: " in said for name in ("HTTP_PORT", "LOG_LEVEL", "DATABASE_URL"))


def test_a_wrong_value_is_not_shown_wherever_settings_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PORT", "s3cret")  # a common mistake: a secret in the wrong variable

    with pytest.raises(ValidationError) as refused:
        SERVICE.settings()

    assert "http_port" in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_settings_cannot_be_changed_and_do_not_show_secrets() -> None:
    settings = SERVICE.settings()

    with pytest.raises(ValidationError):
        settings.http_port = 1  # ty: ignore[invalid-assignment]
    assert "s3cret" not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"


DATABASE = "DATABASE_URL: add sslmode=verify-full and sslrootcert"
NATS = "BROKER_URL: write tls:// for nats://"


def test_broker_url_may_have_every_scheme_that_a_broker_speaks() -> None:
    assert {scheme for pair in ENCRYPTED.items() for scheme in pair} == set(SCHEMES)


# DATABASE_URL, BROKER_URL, and the variables that the warnings name.
CONNECTIONS = [
    ("postgresql://u:s3cret@db.internal/tiny", None, [DATABASE]),
    ("postgresql://u:s3cret@db.internal/tiny?sslmode=require", None, [DATABASE]),
    (f"postgresql://u:s3cret@db.internal/tiny?sslmode=verify-ca&sslrootcert={__file__}", None, [DATABASE]),
    (f"postgresql://u:s3cret@db.internal/tiny?sslmode=verify-full&sslrootcert={__file__}", None, []),
    ("postgresql://u:s3cret@127.0.0.1,db.internal/tiny", None, [DATABASE]),
    ("postgresql://u:s3cret@/tiny?host=db.internal", None, [DATABASE]),
    (f"postgresql://u:s3cret@/tiny?host=db.internal&sslmode=verify-full&sslrootcert={__file__}", None, []),
    # A proxy in the same pod, or the machine itself.
    ("postgresql://u:s3cret@127.0.0.1:5432/tiny", None, []),
    ("postgresql://u:s3cret@localhost,[::1]:5433/tiny", None, []),
    ("postgresql://u:s3cret@/tiny?host=/run/postgresql", None, []),
    ("postgresql:///tiny", None, []),
    (URL, "nats://u:s3cret@nats.internal:4222", [NATS]),
    (URL, "NATS://nats.internal", [NATS]),
    (URL, "tls://nats.internal,nats://other.internal", [NATS]),
    (URL, "kafka://one:9092,two:9092", ["BROKER_URL: write kafkas:// for kafka://"]),
    (URL, "kafka://127.0.0.1:9092,two:9092", ["BROKER_URL: write kafkas:// for kafka://"]),
    (URL, "amqp://u:s3cret@rabbit.internal/vhost", ["BROKER_URL: write amqps:// for amqp://"]),
    (URL, "nats://127.0.0.1:4222", []),
    (URL, "tls://nats.internal:4222,tls://other.internal", []),
    (URL, "kafkas://u:s3cret@one:9093,two:9093", []),
    (URL, "amqps://u:s3cret@rabbit.internal/vhost", []),
    ("postgresql://u:s3cret@db.internal/tiny", "nats://nats.internal", [DATABASE, NATS]),
]


@pytest.mark.parametrize(("database_url", "broker_url", "expected"), CONNECTIONS)
def test_a_connection_that_leaves_the_machine_unencrypted_is_warned_of_or_refused(
    database_url: str,
    broker_url: str | None,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = {"database_url": database_url, "broker_url": broker_url}
    application(SERVICE, Settings.model_validate(given))
    logs = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {one["event"] for one in logs} <= {"connection_unencrypted"}
    assert [one["remedy"].partition(",")[0] for one in logs] == expected
    assert "s3cret" not in str(logs)

    if not expected:
        assert Settings.model_validate({**given, "require_tls": True}).require_tls
        return
    for name, value in given.items():
        if value is not None:
            monkeypatch.setenv(name.upper(), value)
    monkeypatch.setenv("REQUIRE_TLS", "true")
    # A migration needs no broker.
    for command in ("serve", "work", "migrate") if DATABASE in expected else ("serve", "work"):
        assert main(SERVICE, [command]) == 2
        said = capsys.readouterr().err
        assert "REQUIRE_TLS is true" in said
        assert all(one in said for one in ([DATABASE] if command == "migrate" else expected))
        assert "s3cret" not in said
