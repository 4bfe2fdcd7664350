"""Find connections whose server nobody proves, or whose content anybody on the way can read."""

import os
from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

_ENCRYPTED = {"nats": "tls", "kafka": "kafkas", "amqp": "amqps"}
"""For each scheme without encryption the one with it."""


def unencrypted(database_url: str, broker_url: str | None) -> Iterator[str]:
    """Yield the name of each URL that leaves this machine unprotected, and a remedy. No value is shown.

    What listens on this machine needs no encryption: a proxy beside the service, for example.
    """
    if not _is_verified(database_url):
        yield "DATABASE_URL: add sslmode=verify-full and sslrootcert, or anybody on the way may act as the database"
    schemes = {scheme for scheme, host in _servers(broker_url or "") if scheme in _ENCRYPTED and not _is_here(host)}
    for scheme in sorted(schemes):
        yield f"BROKER_URL: write {_ENCRYPTED[scheme]}:// for {scheme}://, or anybody on the way may read the messages"


def _is_verified(url: str) -> bool:
    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    named = [host for _, host in _servers(url)] + options.get("host", "").split(",")
    hosts = [host for host in named if host] or os.environ.get("PGHOST", "").split(",")
    mode = options.get("sslmode") or os.environ.get("PGSSLMODE")
    return mode == "verify-full" or all(map(_is_here, hosts))


def _servers(url: str) -> Iterator[tuple[str, str]]:
    """Scheme and host of each server; one without a scheme of its own has that of the server before."""
    scheme = ""
    for server in url.partition("?")[0].split(","):
        own, separator, rest = server.strip().rpartition("://")
        scheme = own.lower() if separator else scheme
        yield scheme, urlsplit(f"//{rest}").hostname or ""


def _is_here(host: str) -> bool:
    """Whether it is this machine: by an address, a name, or the folder of a socket, which is the default."""
    try:
        return host in ("", "localhost") or host.startswith("/") or ip_address(host).is_loopback
    except ValueError:
        return False
