"""The transport to one neighbour: a span and a duration for each attempt, and a bound on the size of its answer."""

import time
from collections.abc import AsyncIterator

import httpx2
from opentelemetry import metrics

from chassis.client import TracedTransport
from chassis.neighbours.failures import NeighbourTimeout, NeighbourUnavailable
from chassis.telemetry.durations import duration_histogram

STREAMED = "slipway.streamed"
"""The extension of a request whose answer is read part by part, and so has no bound."""


class BoundedTransport(TracedTransport):
    """Measure each attempt, and bound the bytes of its answer."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, neighbour: str, max_bytes: int) -> None:
        super().__init__(inner, neighbour)
        self._neighbour, self._max_bytes = neighbour, max_bytes
        self._duration = duration_histogram(
            metrics.get_meter("chassis"), "http.client.request.duration", "Duration of HTTP client requests."
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        attributes: dict[str, str | int] = {"http.request.method": request.method, "slipway.neighbour": self._neighbour}
        attributes["server.address"] = request.url.host
        started = time.perf_counter()
        try:
            response = await super().handle_async_request(request)
            attributes["http.response.status_code"] = response.status_code
        except BaseException as error:  # also a call that its limit cancels
            attributes["error.type"] = type(error).__name__
            raise
        finally:
            self._duration.record(time.perf_counter() - started, attributes)
        is_bounded = not request.extensions.get(STREAMED) and request.method != "HEAD"
        size = _announced(response)
        if size is None or not is_bounded:
            max_bytes = self._max_bytes if is_bounded else None
            response.stream = _Bounded(response.stream, request, self._neighbour, max_bytes)
        if is_bounded and (fault := self._fault(request, response, size or 0)):
            await response.aclose()
            raise NeighbourUnavailable(self._neighbour, f"its answer {fault}", request, is_temporary=False)
        return response

    def _fault(self, request: httpx2.Request, response: httpx2.Response, size: int) -> str | None:
        if size > self._max_bytes:
            return f"has more than {self._max_bytes} bytes"
        if "Content-Encoding" in response.headers and request.headers.get("Accept-Encoding") == "identity":
            return None if response.headers["Content-Encoding"].strip().lower() == "identity" else "is compressed"
        return None


def _announced(response: httpx2.Response) -> int | None:
    """Return the size that the answer announces: the protocol then allows no further byte. A chunked body may have any size."""
    if "Transfer-Encoding" in response.headers:
        return None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and len(length) < 20 else None


class _Bounded(httpx2.AsyncByteStream):
    """The body of an answer. A body that breaks off, or is too large, is a failure of the neighbour."""

    def __init__(self, inner: object, request: httpx2.Request, neighbour: str, max_bytes: int | None) -> None:
        assert isinstance(inner, httpx2.AsyncByteStream)
        self._inner, self._request, self._neighbour, self._max_bytes = inner, request, neighbour, max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for part in self._inner:
                size += len(part)
                if self._max_bytes is not None and size > self._max_bytes:
                    reason = f"its answer has more than {self._max_bytes} bytes"
                    raise NeighbourUnavailable(self._neighbour, reason, self._request, is_temporary=False)
                yield part
        except httpx2.TimeoutException as error:
            raise NeighbourTimeout(self._neighbour, "its answer pauses", self._request) from error
        except httpx2.TransportError as error:
            if isinstance(error, NeighbourUnavailable):
                raise
            reason = f"its answer breaks off, {type(error).__name__}"
            raise NeighbourUnavailable(self._neighbour, reason, self._request) from error

    async def aclose(self) -> None:
        await self._inner.aclose()
