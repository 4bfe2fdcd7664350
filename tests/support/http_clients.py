"""The HTTP clients of this process: they wait for a busy machine, and share one context for TLS."""

import os
import ssl
from functools import lru_cache
from typing import Any

from httpx2._config import DEFAULT_TIMEOUT_CONFIG, create_ssl_context
from httpx2._transports import default

from tests.support.waiting import PATIENCE_SECONDS


def prepare() -> None:
    """Change the defaults of httpx2. A client with a time limit or a context of its own keeps them."""
    for phase in ("connect", "read", "write", "pool"):  # the default of 5 seconds is for an idle machine
        setattr(DEFAULT_TIMEOUT_CONFIG, phase, PATIENCE_SECONDS)
    default.create_ssl_context = _shared_context  # ty: ignore[invalid-assignment]


def _shared_context(verify: Any = True, cert: Any = None, trust_env: bool = True) -> ssl.SSLContext:
    """Read the certificates of all authorities once, and not for each client: that takes 40 ms of processor time."""
    if verify is not True or cert:
        return create_ssl_context(verify, cert, trust_env)
    return _context(trust_env, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@lru_cache
def _context(trust_env: bool, *_: str | None) -> ssl.SSLContext:
    return create_ssl_context(trust_env=trust_env)
