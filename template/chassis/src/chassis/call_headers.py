"""The headers of a call between services, for the side that sends them and for the side that reads them."""

REQUEST_TIMEOUT = "X-Request-Timeout-Ms"
"""The header with the milliseconds that the caller has left: no time of day, because the clocks of two pods differ."""

IDEMPOTENCY_KEY = "Idempotency-Key"
"""The header with the name that the caller gives to one effect, so that a repeated request has no second effect."""


def in_scope(name: str) -> bytes:
    """Return the name of a header as an ASGI scope has it: in lower case, as bytes."""
    return name.lower().encode()
