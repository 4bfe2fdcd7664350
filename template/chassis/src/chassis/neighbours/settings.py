"""The settings of calls to other services."""

import re
from typing import Annotated

import httpx2
from pydantic import AfterValidator, Field

from chassis.settings import Settings

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def _has_name(url: str) -> str:
    if not re.match(r"https?://", url) or "{name}" not in url:
        raise ValueError("must be a URL with {name} in it, such as http://{name}.{name}-production")
    return url


class NeighbourSettings(Settings):
    """The settings of every service, and of its calls to others: a base class in settings.py."""

    neighbour_url: Annotated[str, AfterValidator(_has_name)] = "http://{name}"
    """The URL of a neighbour that has no setting of its own, as CUSTOMERS_URL for `customers`. {name} is its name."""
    neighbour_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 5
    """The time limit of a call with its repetitions. The deadline of a request or message may be sooner."""
    neighbour_calls_at_once: Annotated[int, Field(ge=1, le=10_000)] = 100
    """The most calls of one neighbour at the same time. A further call fails at once."""
    neighbour_retry_percent: Annotated[float, Field(ge=0, le=100)] = 20
    """The most repetitions, for 100 calls of one neighbour."""
    neighbour_max_answer_bytes: Annotated[int, Field(ge=1024, le=2**30)] = 10 * 2**20
    """The largest answer of a neighbour, except of one that is read as a stream."""

    def client_for(
        self,
        name: str,
        *,
        timeout_seconds: float | None = None,
        auth: httpx2.Auth | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> httpx2.AsyncClient:
        """Make the client of one neighbour, for the life of the process: `customers` is called at CUSTOMERS_URL.

        A call without an answer, or with a 429, 502, 503 or 504, raises NeighbourUnavailable. A call that is not answered
        within its limit, or by the deadline of the current request or message, raises NeighbourTimeout. Before that, it is
        repeated up to twice if it cannot have arrived, is idempotent, or is a POST with an Idempotency-Key.
        """
        from chassis.neighbours.client import NeighbourClient
        from chassis.neighbours.transport import BoundedTransport

        if not NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is no name of a service: use small letters, digits and single hyphens, as customers"
            )
        url = getattr(self, f"{name.replace('-', '_')}_url", None) or self.neighbour_url.replace("{name}", name)
        limits = httpx2.Limits(max_connections=self.neighbour_calls_at_once)
        bounded = BoundedTransport(
            transport or httpx2.AsyncHTTPTransport(limits=limits), name, self.neighbour_max_answer_bytes
        )
        timeout = timeout_seconds or self.neighbour_timeout_seconds
        return NeighbourClient(name, bounded, self, base_url=str(url), timeout=timeout, auth=auth)
