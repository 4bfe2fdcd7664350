"""HTTP out: a client for another service that carries the trace along and never waits for ever."""

import asyncio
from typing import Any

import httpx
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from chassis.telemetry import trace_context


class _Traced(httpx.AsyncBaseTransport):
    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        tracer = trace.get_tracer("chassis")
        attributes = {
            "http.request.method": request.method,
            "server.address": request.url.host,
            "url.full": str(request.url.copy_with(query=None, userinfo=b"")),
        }
        with tracer.start_as_current_span(request.method, kind=SpanKind.CLIENT, attributes=attributes) as span:
            # The headers of a received request, passed on, would bring the state of another trace.
            request.headers.pop("tracestate", None)
            trace_context.inject(request.headers)
            try:
                response = await self._inner.handle_async_request(request)
            except asyncio.CancelledError:  # the time limit ended the call, or our own caller left
                span.set_status(Status(StatusCode.ERROR, "cancelled"))
                raise
            span.set_attribute("http.response.status_code", response.status_code)
            if response.status_code >= 400:
                span.set_status(Status(StatusCode.ERROR))
            return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Client(httpx.AsyncClient):
    """Limit the whole exchange. HTTPX's own limits apply to each phase or to each single read."""

    async def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        limits = request.extensions.get("timeout", self.timeout.as_dict()).values()
        seconds = None if None in limits else max(limits)
        try:
            async with asyncio.timeout(seconds) as deadline:
                return await super().send(request, stream=stream, **options)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise httpx.TimeoutException(f"no whole answer within {seconds} s", request=request) from error


def service_client(
    base_url: str, *, timeout_seconds: float = 5, transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncClient:
    """A client for one other service. Keep one per service for the life of the process: it pools connections.

    `timeout_seconds` limits a whole exchange: waiting for a connection, connecting again, redirects, and the answer to
    its last byte. A longer exchange raises httpx.TimeoutException. For `client.stream(…)` it limits the head of the
    answer, and each silence after that. A call may have a `timeout=` of its own, with the same meaning.

    Only a connection that could not be made is tried again (twice): repeating anything else needs to know that the
    other side allows it.
    """
    return _Client(
        base_url=base_url,
        timeout=timeout_seconds,
        transport=_Traced(transport or httpx.AsyncHTTPTransport(retries=2)),
    )
