"""A database URL is used as libpq would use it, or refused when the process starts, with the parameter's name."""

import socket
import time
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg
import pytest
from chassis.settings import Settings, SettingsError, addresses, read

URL = "postgresql://billing:secret@db:5432/billing"


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("sslmode=bogus", "sslmode=bogus: the driver takes disable, allow, prefer, require, verify-ca, verify-full"),
        ("channel_binding=require", "channel_binding=require, which the driver does not support"),
        ("gssencmode=require", "gssencmode=require"),
        ("target_session_attrs=writer", "target_session_attrs=writer"),
        ("connect_timeout=soon", "connect_timeout=soon"),
        ("connect_timeout=0", "connect_timeout=0"),
        ("sslrootcert=/nowhere/ca.crt", "sslrootcert=/nowhere/ca.crt: no such file exists"),
        ("sslrootcert=system", "name the file instead"),
        ("sslmode=verify-full", "sslmode=verify-full and no sslrootcert: name the file"),
        ("sslmode=verify-ca", "sslmode=verify-ca and no sslrootcert: name the file"),
        ("service=billing", "write the parameters into the URL"),
        ("ssl_min_protocol_version=TLSv9", "ssl_min_protocol_version=TLSv9"),
        ("ssl=true", "PostgreSQL's own name is sslmode"),
        ("sslnegotiation=direct", "it needs sslmode=require"),
        ("port=6432", "has the parameter port and also a host: write the port behind the host"),
        ("host=other", "has the parameter host and also a host"),
        ("user=other", "has the parameter user and also a user"),
        ("password=other-secret", "has the parameter password and also a password"),
        ("dbname=other", "has the parameter dbname and also a path: write the database into the path"),
        ("keepalives_idle=5", "the parameter keepalives_idle"),
        ("hostaddr=10.0.0.1", "the parameter hostaddr"),
        ("require_auth=scram-sha-256", "the parameter require_auth"),
        ("pgbouncer=true", "the parameter pgbouncer"),
        ("statement_timeout=5", "options=-c%20name%3Dvalue"),
        ("nothing", "must look like"),
    ],
)
def test_a_parameter_that_cannot_be_honoured_is_refused_by_name_at_start(
    query: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.setenv("DATABASE_URL", f"{URL}?{query}")
    with pytest.raises(SettingsError) as refused:
        read(Settings)

    assert says in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PGSSLMODE", "bogus"),
        ("PGSSLMODE", "verify-full"),
        ("PGSSLROOTCERT", "/nowhere/ca.crt"),
        ("PGSSLCERT", "/nowhere/client.crt"),
        ("PGSSLNEGOTIATION", "direct"),
        ("PGSSLMINPROTOCOLVERSION", "TLSv9"),
        ("PGTARGETSESSIONATTRS", "bogus"),
        ("PGCHANNELBINDING", "require"),
        ("PGREQUIREAUTH", "scram-sha-256"),
        ("PGCONNECT_TIMEOUT", "soon"),
        ("PGPORT", "many"),
        ("PGGSSLIB", "bogus"),
        ("PGSERVICE", "billing"),
    ],
)
def test_a_variable_of_libpq_that_cannot_be_honoured_is_refused_by_name_at_start(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refused:
        read(Settings)

    assert f"(the environment sets {variable})" in str(refused.value)


def test_the_variables_of_libpq_are_the_defaults_of_parameters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = tmp_path / "ca.crt"
    authority.touch()
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "read-write")
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "7")
    monkeypatch.setenv("PGAPPNAME", "mine")
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGSSLROOTCERT", str(authority))
    monkeypatch.setenv("PGHOST", "a,b")
    monkeypatch.setenv("PGPORT", "1,2")

    named, unnamed, other = (
        addresses.parse(url) for url in (URL, "postgresql:///billing", f"{URL}?target_session_attrs=any")
    )

    assert (named.timeout_seconds, named.session, named.writable, named.application_name) == (
        7,
        "read-write",
        True,
        "mine",
    )
    assert [urlsplit(host).netloc for host in named.hosts] == ["billing:secret@db:5432"]
    assert "sslmode=verify-full" in named.hosts[0]
    places = [parse_qs(urlsplit(host).query) for host in unnamed.hosts]
    assert [(place["host"], place["port"]) for place in places] == [(["a"], ["1"]), (["b"], ["2"])]
    assert (other.session, other.writable) == ("any", False)


def test_the_home_of_the_process_may_have_the_authority_of_the_database(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql/root.crt").touch()

    assert addresses.parse(f"{URL}?sslmode=verify-full").hosts


def test_hosts_of_the_query_are_tried_in_turn() -> None:
    found = addresses.parse("postgresql:///billing?host=a,/run/b&port=5433")

    places = [parse_qs(urlsplit(host).query) for host in found.hosts]
    assert places == [{"host": ["a"], "port": ["5433"]}, {"host": ["/run/b"], "port": ["5433"]}]


@pytest.mark.parametrize(
    "query",
    [
        "channel_binding=prefer&gssencmode=disable&sslcompression=0&load_balance_hosts=disable&sslsni=1",
        "client_encoding=utf8&fallback_application_name=x",
    ],
)
def test_a_parameter_that_asks_for_the_usual_behaviour_is_left_out(query: str) -> None:
    assert addresses.parse(f"{URL}?{query}").hosts == [URL]


def test_each_host_has_its_own_port_and_the_time_that_the_url_gives() -> None:
    found = addresses.parse("postgres://u:p%2Fw@a:1,[::1]:2,c/db?connect_timeout=7&target_session_attrs=primary")

    assert [urlsplit(host).netloc for host in found.hosts] == ["u:p%2Fw@a:1", "u:p%2Fw@[::1]:2", "u:p%2Fw@c"]
    assert (found.timeout_seconds, found.session, found.writable) == (7, "primary", True)


async def test_the_parameters_of_the_url_reach_the_server(database_url: str) -> None:
    options = quote("-c search_path=tiny -c work_mem=5MB", safe="")
    url = f"{database_url}?sslmode=prefer&connect_timeout=9&application_name=mine&options={options}"

    connection = await addresses.connect(url, server_settings={"application_name": "ours"})
    shown = [await connection.fetchval(f"SHOW {name}") for name in ("application_name", "search_path", "work_mem")]
    await connection.close()

    assert shown == ["mine", "tiny", "5MB"]


async def test_a_password_file_and_a_host_in_the_query_are_used(database_url: str, tmp_path: Path) -> None:
    parts = urlsplit(database_url)
    passwords = tmp_path / "passwords"
    passwords.write_text(f"*:*:*:*:{parts.password}\n")
    passwords.chmod(0o600)
    query = f"host={parts.hostname}&port={parts.port}&user={parts.username}&passfile={passwords}"

    connection = await addresses.connect(f"postgresql://{parts.path}?{query}")
    await connection.close()


async def test_a_host_that_does_not_answer_leaves_time_for_the_next_host(database_url: str) -> None:
    parts = urlsplit(database_url)
    credentials, _, host = parts.netloc.rpartition("@")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        hosts = f"127.0.0.1:{silent.getsockname()[1]},{host}"
        url = parts._replace(netloc=f"{credentials}@{hosts}", query="connect_timeout=1").geturl()
        started = time.monotonic()

        connection = await addresses.connect(url)
        await connection.close()

    assert time.monotonic() - started < 30


@pytest.mark.parametrize("session", ["any", "read-write", "primary", "prefer-standby"])
async def test_a_session_that_the_server_offers_is_taken(database_url: str, session: str) -> None:
    connection = await addresses.connect(f"{database_url}?target_session_attrs={session}")
    try:
        assert await connection.fetchval("SELECT current_setting('transaction_read_only')") == "off"
    finally:
        await connection.close()


@pytest.mark.parametrize("session", ["read-only", "standby"])
async def test_a_session_that_no_server_offers_is_refused(database_url: str, session: str) -> None:
    with pytest.raises(asyncpg.TargetServerAttributeNotMatched):
        await addresses.connect(f"{database_url}?target_session_attrs={session}")
