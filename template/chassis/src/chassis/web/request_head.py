"""The rules of HTTP for the head of a request that Uvicorn and httptools do not check."""

import re
from collections.abc import Iterable

CHUNKED = -1
"""The length of a body that arrives in chunks."""

CHECKED = frozenset({b"host", b"content-length", b"transfer-encoding"})
"""The headers that `body_length` reads."""

HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")


class Refused(Exception):
    """The request breaks a rule of HTTP, or a bound of connections.py. The message is for the client."""


def body_length(headers: Iterable[tuple[bytes, bytes]], version: str) -> int:
    """Return the length of the body that follows the head: a number of bytes, or CHUNKED. Raises Refused."""
    length, hosts = 0, []
    for name, value in headers:
        if name not in CHECKED:
            continue
        if name == b"host":
            hosts.append(value)
        elif name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            if value.strip().lower() != b"chunked":
                raise Refused("The request has an unknown transfer coding: this server supports only chunked.")
            length = CHUNKED
    if version not in ("1.1", "1.0"):
        raise Refused(f"The request is of HTTP/{version}: this server supports HTTP/1.1 and HTTP/1.0.")
    if len(hosts) != 1 and (hosts or version == "1.1"):
        raise Refused(f"The request has {len(hosts)} Host headers: HTTP/1.1 asks for exactly one.")
    if hosts and not HOST.fullmatch(hosts[0]):
        raise Refused("The Host header is not a host name or address with an optional port.")
    return length
