"""The outermost layer of a request: its span, its metrics, its ids, and an answer even to a surprise."""

import re
import time

import structlog
from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis import problems
from chassis.durations import Durations
from chassis.health import Lifecycle
from chassis.logs import describe_exception, request_id
from chassis.telemetry import Telemetry

log = structlog.get_logger()

PROBES = frozenset({"/livez", "/readyz", "/startupz"})
"""Answered without span, metric, log line or limit: they must work while everything else is busy."""

SAFE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
"""What we repeat from a caller into logs and headers."""

_W3C = TraceContextTextMapPropagator()
_NOTHING = context.Context()


class Edge:
    """ASGI middleware. Written by hand because it costs a fifth of FastAPI's own instrumentation (bench/)."""

    def __init__(self, app: ASGIApp, *, telemetry: Telemetry, lifecycle: Lifecycle, log_requests: bool) -> None:
        self._app = app
        self._tracer = telemetry.tracer
        self._lifecycle = lifecycle
        self._log_requests = log_requests
        self._duration = Durations(telemetry.meter, "http.server.request.duration", "Duration of HTTP server requests.")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope.get("method", "")
        if method == "HEAD":  # as GET, everywhere (RFC 9110). The server, whose scope still says HEAD, sends no body
            scope = {**scope, "method": "GET"}
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return

        carrier: dict[str, str] = {}
        caller_id: bytes | None = None
        for name, value in scope["headers"]:
            if name == b"traceparent" or name == b"tracestate":
                carrier[name.decode()] = value.decode("latin-1")
            elif name == b"x-request-id":
                caller_id = value
        parent = _W3C.extract(carrier, _NOTHING) if carrier else _NOTHING
        span = self._tracer.start_span(method, context=parent, kind=SpanKind.SERVER)
        current = context.attach(trace.set_span_in_context(span, parent))
        if caller_id is not None and SAFE_REQUEST_ID.fullmatch(caller_id):
            identity = caller_id.decode()
        else:
            identity = format(span.get_span_context().trace_id, "032x")
        named = request_id.set(identity)

        status = 0
        extra = [(b"x-request-id", identity.encode())]
        lifecycle = self._lifecycle

        async def send_with_ids(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *extra]
                if lifecycle.draining:
                    # Moves the client to another replica now, rather than cutting its idle connection later.
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        started = time.perf_counter()
        try:
            await self._app(scope, receive, send_with_ids)
        except Exception as error:
            self._record_surprise(span, error)
            if status:  # half an answer is out: only cutting the connection says that the rest is missing
                raise
            await problems.document(500)(scope, receive, send_with_ids)
        finally:
            self._finish(method, scope, span, status, time.perf_counter() - started)
            request_id.reset(named)
            context.detach(current)

    def _record_surprise(self, span: Span, error: Exception) -> None:
        described = describe_exception(error)
        log.error("request_failed", exc_info=error)
        span.add_event("exception", {f"exception.{key}": value for key, value in described.items()})

    def _finish(self, method: str, scope: Scope, span: Span, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None)
        attributes = {
            "http.request.method": method,
            "url.scheme": scope["scheme"],
            # 499, as proxies log it: the client left before there was a status.
            "http.response.status_code": status or 499,
        }
        if route is not None:
            attributes["http.route"] = route
        self._duration.record(seconds, attributes)
        if span.is_recording():
            span.update_name(f"{method} {route}" if route else method)
            span.set_attributes({**attributes, "url.path": scope["path"]})
            if status >= 500:
                span.set_status(Status(StatusCode.ERROR))
        span.end()
        if self._log_requests or status >= 500:
            log.info(
                "request_finished", method=method, route=route, status=status, duration_ms=round(seconds * 1000, 1)
            )
