"""The addresses of the servers that `make dev` runs, for the other commands on the same machine."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from chassis.settings import SettingsError

FILE = Path(".dev/servers.env")
HEADER = "# Written by `make dev`, whose servers have these addresses at every start, unless a port is taken.\n"


def write(addresses: Mapping[str, str]) -> None:
    """Write the URLs of embedded servers by their settings' names. Only the owner of the file can read the passwords.

    The URL of any other server does not belong here: a command must not change that database by accident.
    """
    FILE.parent.mkdir(exist_ok=True)
    FILE.touch(mode=0o600)
    FILE.write_text(HEADER + "".join(f"{name}={url}\n" for name, url in addresses.items()))


def use() -> None:
    """Set DATABASE_URL, BROKER_URL and the settings of the issuer to the servers of `make dev`.

    A container has no `.dev/`, so nothing happens in production. Raises SettingsError if `make dev` does not run.
    """
    if not FILE.exists():
        return
    lines = [line.partition("=") for line in FILE.read_text().splitlines() if not line.startswith("#")]
    addresses = {name: url for name, _, url in lines}
    if not all(_listens(url) for url in addresses.values() if "://" in url):
        raise SettingsError(
            "  DATABASE_URL: is not set, and the servers of `make dev` do not run\nStart `make dev` in another terminal, "
            "or set DATABASE_URL."
        )
    for name, url in addresses.items():
        os.environ[name] = os.environ.get(name) or url


def _listens(url: str) -> bool:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname, parts.port), timeout=2):
            return True
    except OSError:
        return False
