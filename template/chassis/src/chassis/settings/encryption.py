"""Find connections that do not authenticate the server, or that are not encrypted."""

import os
from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

ENCRYPTED = {"nats": "tls", "kafka": "kafkas", "amqp": "amqps"}
"""The encrypted scheme for each unencrypted scheme of BROKER_URL."""


def unencrypted_urls(database_url: str, broker_url: str | None) -> Iterator[str]:
    """Name each URL whose connections leave this machine unprotected, with a remedy. Never show its value.

    A server on this machine needs no encryption, for example a proxy in the pod.
    """
    if not _is_verified(database_url):
        yield "DATABASE_URL: add sslmode=verify-full and sslrootcert, or others can impersonate the database"
    schemes = {scheme for scheme, host in _servers(broker_url or "") if scheme in ENCRYPTED and not _is_here(host)}
    for scheme in sorted(schemes):
        yield f"BROKER_URL: write {ENCRYPTED[scheme]}:// for {scheme}://, or others can read the messages"


def _is_verified(url: str) -> bool:
    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    named = [host for _, host in _servers(url)] + options.get("host", "").split(",")
    hosts = [host for host in named if host] or os.environ.get("PGHOST", "").split(",")
    mode = options.get("sslmode") or os.environ.get("PGSSLMODE")
    return mode == "verify-full" or all(map(_is_here, hosts))


def _servers(url: str) -> Iterator[tuple[str, str]]:
    """Yield scheme and host of each server. A server without a scheme has the scheme of the server before it."""
    scheme = ""
    for server in url.partition("?")[0].split(","):
        own, separator, rest = server.strip().rpartition("://")
        scheme = own.lower() if separator else scheme
        yield scheme, urlsplit(f"//{rest}").hostname or ""


def _is_here(host: str) -> bool:
    """Return whether the host is this machine: a loopback address, localhost, the folder of a socket, or none, which means a socket."""
    try:
        return host in ("", "localhost") or host.startswith("/") or ip_address(host).is_loopback
    except ValueError:
        return False
