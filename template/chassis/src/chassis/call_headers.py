"""The headers of a call between services, for the side that sends them and for the side that reads them."""

REQUEST_TIMEOUT = "X-Request-Timeout-Ms"
"""The milliseconds that the caller has left. A duration, because the clocks of two pods differ."""

IDEMPOTENCY_KEY = "Idempotency-Key"
"""The name that the caller gives to one effect, so that a repeated request has no second effect."""


def in_scope(name: str) -> bytes:
    """Return the name as the scope of a request has it."""
    return name.lower().encode()
