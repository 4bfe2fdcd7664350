"""Database URLs with the parameters of libpq. Each parameter has its effect, or is refused by name at the start.

The environment variables of libpq are the defaults of the parameters, as in libpq.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

import asyncpg

CONNECT_SECONDS = 5
"""How long connecting to one host may take, if the URL has no connect_timeout."""

PUBLIC_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"

SHARED_SESSIONS: Final = (
    "DATABASE_URL leads to a pooler that gives each transaction another session of the server. For `serve` alone, set "
    "DATABASE_TRANSACTION_POOLER=true; the worker and migrations need PostgreSQL itself, or a pooler in session mode"
)

SHARING_ATTEMPTS = 3
"""The attempts of `shares_sessions`: a third client may take the session between its two statements."""

_PID = "SELECT pg_backend_pid()"

_FILES = {"sslrootcert", "sslcert", "sslkey", "sslcrl"}

_OF_ASYNCPG = _FILES | {
    *(
        "application_name",
        "dbname",
        "gsslib",
        "host",
        "krbsrvname",
        "options",
        "passfile",
        "password",
        "port",
    ),
    *("ssl_max_protocol_version", "ssl_min_protocol_version", "sslmode", "sslnegotiation", "sslpassword"),
    *("target_session_attrs", "user"),
}

_TLS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")

_VALUES = {
    "gsslib": ("gssapi", "sspi"),
    "ssl_max_protocol_version": _TLS,
    "ssl_min_protocol_version": _TLS,
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}

_ONCE = {
    "host": ("a host", "write all hosts before the path"),
    "port": ("a host", "write the port behind the host"),
    "user": ("a user", "remove one of the two"),
    "password": ("a password", "remove one of the two"),
    "dbname": ("a path", "write the database into the path"),
}
"""For each parameter, the part before the query that has the same meaning, and the remedy for a URL that has both."""

_WITHOUT_EFFECT = {
    "channel_binding": ("prefer", "disable"),
    "client_encoding": ("UTF8", "utf8", "UTF-8", "utf-8", "auto"),
    "gssencmode": ("prefer", "disable"),
    "load_balance_hosts": ("disable",),
    "sslcertmode": ("allow",),
    "sslcompression": ("0",),
    "sslsni": ("1",),
}
"""The values that mean the driver's fixed behaviour, so that the parameter can be left out."""

_OF_ENVIRONMENT = {
    "PGAPPNAME": "application_name",
    "PGCHANNELBINDING": "channel_binding",
    "PGCLIENTENCODING": "client_encoding",
    "PGCONNECT_TIMEOUT": "connect_timeout",
    "PGGSSENCMODE": "gssencmode",
    "PGGSSLIB": "gsslib",
    "PGHOST": "host",
    "PGHOSTADDR": "hostaddr",
    "PGKRBSRVNAME": "krbsrvname",
    "PGLOADBALANCEHOSTS": "load_balance_hosts",
    "PGOPTIONS": "options",
    "PGPORT": "port",
    "PGREQUIREAUTH": "require_auth",
    "PGREQUIREPEER": "requirepeer",
    "PGSERVICE": "service",
    "PGSSLCERT": "sslcert",
    "PGSSLCERTMODE": "sslcertmode",
    "PGSSLCOMPRESSION": "sslcompression",
    "PGSSLCRL": "sslcrl",
    "PGSSLKEY": "sslkey",
    "PGSSLMAXPROTOCOLVERSION": "ssl_max_protocol_version",
    "PGSSLMINPROTOCOLVERSION": "ssl_min_protocol_version",
    "PGSSLMODE": "sslmode",
    "PGSSLNEGOTIATION": "sslnegotiation",
    "PGSSLROOTCERT": "sslrootcert",
    "PGSSLSNI": "sslsni",
    "PGTARGETSESSIONATTRS": "target_session_attrs",
}
"""libpq's variables, without the user, the password and the database, whose variables asyncpg reads itself."""


class Address(NamedTuple):
    """The hosts of a database, and the options for connecting to them."""

    hosts: list[str]
    """A URL for each host, for asyncpg."""
    timeout_seconds: int
    """The time limit for connecting to each host."""
    session: str | None
    """target_session_attrs: the kind of session that is acceptable."""
    application_name: str | None

    @property
    def writable(self) -> bool:
        """Return whether only a session that accepts writes is acceptable."""
        return self.session in ("read-write", "primary")


def parse(url: str) -> Address:
    """Parse DATABASE_URL and the environment's defaults. Raises ValueError, whose message shows no password."""
    try:
        parts = urlsplit(url)
        _, _, hosts = parts.netloc.rpartition("@")
        for host in hosts.split(","):
            _ = urlsplit(f"//{host}").port  # the text of this ValueError may contain a part of the password
        given = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError(
            "must look like postgresql://user:password@host:5432/database?sslmode=verify-full&sslrootcert=/path/ca.crt, "
            "with special characters in the password percent-encoded"
        )
    _check_once(parts, hosts, given)
    inherited = {
        name: variable
        for variable, name in _OF_ENVIRONMENT.items()
        if os.environ.get(variable) and name not in given and not (hosts and name in ("host", "hostaddr"))
    }
    try:
        return _address(parts, {name: os.environ[variable] for name, variable in inherited.items()} | given)
    except ValueError as error:
        if not inherited:
            raise
        raise ValueError(f"{error} (the environment sets {', '.join(sorted(inherited.values()))})") from None


def _check_once(parts: SplitResult, hosts: str, given: dict[str, str]) -> None:
    """Refuse a parameter that repeats a part of the URL: libpq would use the parameter, and asyncpg the part."""
    parts_of = {"host": hosts, "port": hosts, "user": parts.username, "password": parts.password, "dbname": parts.path}
    for name, (part, remedy) in _ONCE.items():
        if name in given and parts_of[name]:
            raise ValueError(f"has the parameter {name} and also {part}: {remedy}")


def _address(parts: SplitResult, given: dict[str, str]) -> Address:
    timeout = _timeout(given.pop("connect_timeout", str(CONNECT_SECONDS)))
    given.pop("fallback_application_name", None)  # the service sets its own name
    kept = {name: value for name, value in given.items() if _has_effect(name, value)}
    mode = kept.get("sslmode")
    if kept.get("sslnegotiation") == "direct" and mode not in ("require", "verify-ca", "verify-full"):
        raise ValueError("has sslnegotiation=direct: it needs sslmode=require, verify-ca or verify-full")
    if mode in ("verify-ca", "verify-full") and "sslrootcert" not in kept and not _has_own_authorities():
        raise ValueError(
            f"has sslmode={mode} and no sslrootcert: name the file with the certificate authority of the database, "
            f"{PUBLIC_AUTHORITIES} in the service's image for a public authority"
        )
    return Address(list(_urls(parts, kept)), timeout, kept.get("target_session_attrs"), kept.get("application_name"))


def _urls(parts: SplitResult, kept: dict[str, str]) -> Iterator[str]:
    """Yield a URL for each host: the hosts before the path, or else the hosts of the parameter `host`."""
    credentials, at, hosts = parts.netloc.rpartition("@")
    names, ports = (kept.pop(name, "").split(",") for name in ("host", "port"))
    if not all(port.isdigit() for port in ports if ports != [""]):
        raise ValueError(f"has port={','.join(ports)}: give it numbers")
    if hosts:
        query = urlencode(kept, quote_via=quote)
        yield from (
            parts._replace(netloc=f"{credentials}{at}{host}", query=query).geturl() for host in hosts.split(",")
        )
        return
    if names == [""] and ports == [os.environ.get("PGPORT")]:
        ports = [""]  # asyncpg itself reads PGPORT for each place where it looks for a server on this machine
    if len(ports) not in (1, len(names)) or (ports != [""] and names == [""]):
        raise ValueError(f"has port={','.join(ports)}: give it one port, or one for each host of the parameter host")
    for name, port in zip(names, ports * len(names) if len(ports) == 1 else ports, strict=True):
        place = {key: value for key, value in (("host", name), ("port", port)) if value}
        yield parts._replace(query=urlencode(kept | place, quote_via=quote)).geturl()


def _has_own_authorities() -> bool:
    """Return whether the file exists that PostgreSQL's clients use without `sslrootcert`."""
    try:
        return (Path.home() / ".postgresql/root.crt").is_file()
    except RuntimeError:  # the user has no home
        return False


def _timeout(seconds: str) -> int:
    if not (seconds.isascii() and seconds.isdigit() and int(seconds)):
        raise ValueError(f"has connect_timeout={seconds}: give it whole seconds, 1 or more")
    return int(seconds)


def _has_effect(name: str, value: str) -> bool:
    """Return whether asyncpg needs the parameter. Raises ValueError for an unknown parameter or value."""
    if name == "channel_binding" and value == "require":
        raise ValueError(
            "has channel_binding=require, which the driver does not support: remove it, and use sslmode=verify-full to "
            "authenticate the server"
        )
    if name == "sslrootcert" and value == "system":
        raise ValueError(f"has sslrootcert=system: name the file instead, {PUBLIC_AUTHORITIES} in the service's image")
    if name == "ssl":
        raise ValueError(f"has ssl={value}: PostgreSQL's own name is sslmode, as in sslmode=verify-full")
    if (allowed := _WITHOUT_EFFECT.get(name)) and value in allowed:
        return False
    if allowed := allowed or _VALUES.get(name):
        if value not in allowed:
            raise ValueError(f"has {name}={value}: the driver takes {', '.join(allowed)}")
    elif name == "service":
        raise ValueError(f"has service={value}: the driver reads no service file: write the parameters into the URL")
    elif name not in _OF_ASYNCPG:
        raise ValueError(
            f"has the parameter {name}, which the driver does not take: remove it; a setting of the server is written "
            "options=-c%20name%3Dvalue"
        )
    elif name in _FILES and not Path(value).is_file():
        raise ValueError(f"has {name}={value}: no such file exists, so correct the path or mount the file")
    return True


async def connect(url: str, **options: Any) -> asyncpg.Connection:
    """Connect to the first host that accepts the connection and has an acceptable session.

    Each host has its own time limit, as in libpq: asyncpg would spend the whole time on a host that does not answer.
    """
    address = parse(url)
    if address.application_name:
        options["server_settings"] = {
            **options.get("server_settings", {}),
            "application_name": address.application_name,
        }
    *attempts, last = _attempts(address)
    for host, session in attempts:
        with suppress(OSError, asyncpg.CannotConnectNowError, asyncpg.InternalClientError):
            return await _connect_to(host, session, address, options)
    return await _connect_to(*last, address, options)


def _attempts(address: Address) -> Iterator[tuple[str, str | None]]:
    sessions = ["standby", "any"] if address.session == "prefer-standby" else [address.session]
    for session in sessions:
        yield from ((host, session) for host in address.hosts)


async def _connect_to(host: str, session: str | None, address: Address, options: dict[str, Any]) -> asyncpg.Connection:
    limited: dict[str, Any] = options | {"timeout": address.timeout_seconds, "target_session_attrs": session}
    return await asyncpg.connect(host, **limited)


async def shares_sessions(url: str, connection: asyncpg.Connection) -> bool:
    """Return whether a pooler gives the session of this connection to other clients between two transactions.

    A pooler invents a process number for each client, so that number differs from the server's. If the numbers differ,
    open a second connection: if sessions are shared, that connection gets the session that the first has just used.
    """
    # The class's method runs without tracing, because the statement belongs to no request.
    pid = partial(asyncpg.Connection.fetchval, query=_PID)
    if await pid(connection) == connection.get_server_pid():
        return False
    for _ in range(SHARING_ATTEMPTS):
        other = await connect(url, statement_cache_size=0)
        try:
            if await pid(connection) == await pid(other):
                return True
        finally:
            await other.close()
    return False
