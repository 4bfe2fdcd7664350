"""A client for the HTTP API of another service: it passes the trace on, and every call has a time limit."""

import asyncio
import time
from typing import Any

import httpx2
from opentelemetry import trace
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode

from chassis.telemetry import trace_context
from chassis.telemetry.finished_spans import FAILED, FINE, FinishedSpans, child_of


class TracedTransport(httpx2.AsyncBaseTransport):
    """Give each request a span, and pass the trace on. The span has the name of the neighbour, if it is known."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, neighbour: str = "") -> None:
        self._inner = inner
        self._tracer = trace.get_tracer("chassis")
        self._known = {"slipway.neighbour": neighbour} if neighbour else {}
        self._suffix = f" {neighbour}" if neighbour else ""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        attributes: dict[str, str | int] = {
            "http.request.method": request.method,
            "server.address": url.host,
            # The text has no user, password or query. URL.copy_with would take as long as all the rest of the span.
            "url.full": f"{url.scheme}://{url.netloc.decode()}{url.raw_path.partition(b'?')[0].decode()}",
            **self._known,
        }
        # A route may pass the headers of its own request on: their tracestate belongs to another span.
        if "tracestate" in request.headers:
            del request.headers["tracestate"]
        parent, spans = trace.get_current_span().get_span_context(), FinishedSpans.installed
        if spans is not None and parent.is_valid and not parent.is_remote:
            return await self._send_in(spans, parent, request, attributes)
        span = self._tracer.start_span(request.method + self._suffix, kind=SpanKind.CLIENT, attributes=attributes)
        with trace.use_span(span, end_on_exit=True):
            trace_context.inject(request.headers)
            try:
                response = await self._inner.handle_async_request(request)
            except asyncio.CancelledError:  # the time limit ended the call, or our own caller disconnected
                span.set_status(Status(StatusCode.ERROR, "cancelled"))
                raise
            span.set_attribute("http.response.status_code", response.status_code)
            if response.status_code >= 400:
                span.set_status(Status(StatusCode.ERROR))
            return response

    async def _send_in(
        self, spans: FinishedSpans, parent: SpanContext, request: httpx2.Request, attributes: dict[str, str | int]
    ) -> httpx2.Response:
        """Send a request whose parent span is of this process. The span is built at its end, which costs half as much."""
        context = child_of(parent, parent.trace_state)
        trace_context.write(context, request.headers)
        started, status, failure = time.time_ns(), FINE, None
        try:
            response = await self._inner.handle_async_request(request)
            attributes["http.response.status_code"] = response.status_code
            if response.status_code >= 400:
                status = FAILED
            return response
        except asyncio.CancelledError:
            status = Status(StatusCode.ERROR, "cancelled")
            raise
        except Exception as error:
            status, failure = Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"), error
            raise
        finally:
            if parent.trace_flags.sampled:
                name = request.method + self._suffix
                spans.add(name, context, parent, attributes=attributes, started=started, status=status, error=failure)

    async def aclose(self) -> None:
        await self._inner.aclose()


class ServiceClient(httpx2.AsyncClient):
    """Limit the whole exchange. HTTPX2's own limits apply to each phase or to each single read."""

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        seconds = self.limit_of(request)
        try:
            async with asyncio.timeout(seconds) as deadline:
                return await self.send_once(request, stream=stream, **options)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise httpx2.TimeoutException(f"no complete answer within {seconds} s", request=request) from error

    async def send_once(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request without a time limit for the whole exchange. Only the neighbour gets the client's credentials."""
        given = options.get("auth", httpx2.USE_CLIENT_DEFAULT)
        if (
            given is httpx2.USE_CLIENT_DEFAULT
            and self.auth is not None
            and _origin(request.url) != _origin(self.base_url)
        ):
            options["auth"] = None
        return await super().send(request, **options)

    def limit_of(self, request: httpx2.Request) -> float | None:
        """Return the seconds that the whole exchange may take."""
        limits = request.extensions.get("timeout", self.timeout.as_dict()).values()
        return None if None in limits else max(limits)


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def service_client(
    base_url: str,
    *,
    timeout_seconds: float = 5,
    transport: httpx2.AsyncBaseTransport | None = None,
    auth: httpx2.Auth | None = None,
) -> httpx2.AsyncClient:
    """Make a client for one other service. Use one client for the life of the process, because it pools connections.

    `timeout_seconds` limits a whole exchange: waiting for a connection, connecting again, redirects, and the answer to
    its last byte. A longer exchange raises httpx2.TimeoutException. For `client.stream(…)` it limits the head of the
    answer, and each pause between two chunks. A call may have a `timeout=` of its own, with the same meaning.

    Only a failed attempt to connect is repeated (twice). To repeat a request that may have arrived, the caller has to
    know that the other service allows it.

    `auth` is the token of this service for the other service, in a service with identity: `settings.token_for("customers")`. No
    request to another origin carries it, and no redirect to another origin.
    """
    if transport is not None and not isinstance(transport, httpx2.AsyncBaseTransport):
        raise TypeError(f"{transport!r} is no transport of httpx2: write `import httpx2` in place of `import httpx`")
    return ServiceClient(
        base_url=base_url,
        timeout=timeout_seconds,
        auth=auth,
        transport=TracedTransport(transport or httpx2.AsyncHTTPTransport(retries=2)),
    )
