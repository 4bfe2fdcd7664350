"""HTTP out: a client for another service that carries the trace along and never waits for ever."""

import httpx
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from chassis import tracecontext


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
            request.headers.pop("tracestate", None)  # of another trace, where a request's headers were passed on
            tracecontext.inject(request.headers)
            response = await self._inner.handle_async_request(request)
            span.set_attribute("http.response.status_code", response.status_code)
            if response.status_code >= 400:
                span.set_status(Status(StatusCode.ERROR))
            return response

    async def aclose(self) -> None:
        await self._inner.aclose()


def service_client(
    base_url: str, *, timeout_seconds: float = 5, transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncClient:
    """A client for one other service. Keep one per service for the life of the process: it pools connections.

    Only a connection that could not be made is tried again (twice): repeating anything else needs to know that the
    other side allows it.
    """
    return httpx.AsyncClient(
        base_url=base_url,
        timeout=timeout_seconds,
        transport=_Traced(transport or httpx.AsyncHTTPTransport(retries=2)),
    )
