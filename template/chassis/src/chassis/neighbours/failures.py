"""The failures of a neighbour, and the answers of this service to its own callers."""

import math
import re
from email.utils import parsedate_to_datetime
from time import time

import httpx2
import structlog
from fastapi import FastAPI, Request, Response

from chassis import problems

MAX_RETRY_AFTER_SECONDS = 60
"""The longest Retry-After that a repeated call waits for, and that this service sends to its own callers."""

_SECONDS = re.compile(r"[0-9]{1,9}")

log = structlog.get_logger()


class NeighbourUnavailable(httpx2.TransportError):
    """A neighbour has given no answer, or was not asked.

    `is_sent` is false if no byte of the request can have arrived, and `is_temporary` is false if a repetition would fail as well.
    """

    is_sent = is_temporary = True
    retry_after_seconds: float = 0

    def __init__(self, neighbour: str, reason: str, request: httpx2.Request, **facts: float) -> None:
        super().__init__(f"{neighbour} is unavailable: {reason}", request=request)
        self.neighbour, self.reason = neighbour, reason
        self.__dict__ |= facts


class NeighbourTimeout(NeighbourUnavailable, httpx2.TimeoutException):
    """A neighbour has not answered in time. The request may have had its effect."""


def retry_after(response: httpx2.Response) -> float:
    """Return the seconds of Retry-After, which may be a date; 0 without a valid value."""
    value = response.headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(value):
        return int(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return 0


async def _answer(request: Request, error: Exception) -> Response:
    assert isinstance(error, NeighbourUnavailable)
    request.scope["logged"] = True
    log.warning("neighbour_unavailable", neighbour=error.neighbour, reason=error.reason)
    if isinstance(error, NeighbourTimeout):
        return problems.document(504, code="neighbour_timeout", detail="a service that this one calls is too slow")
    seconds = min(max(problems.RETRY_AFTER_SECONDS, math.ceil(error.retry_after_seconds)), MAX_RETRY_AFTER_SECONDS)
    detail = "a service that this one calls is unavailable"
    return problems.document(503, code="neighbour_unavailable", detail=detail, headers={"Retry-After": str(seconds)})


def install(app: FastAPI) -> None:
    """Answer 503 or 504 if a route does not handle the failure of a neighbour."""
    app.add_exception_handler(NeighbourUnavailable, _answer)
