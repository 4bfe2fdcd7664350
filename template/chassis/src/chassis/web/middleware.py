"""The outermost layer of a request: span, metrics, request id, Cache-Control, and a 500 for an unexpected error."""

import re
import time
from collections.abc import Iterable

import structlog
from opentelemetry import context, trace
from opentelemetry.trace import Span
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis import problems
from chassis.database import DatabaseUnavailable
from chassis.database.current_database import current_database
from chassis.telemetry import request_span, trace_context
from chassis.telemetry.durations import duration_histogram
from chassis.telemetry.logs import AnswerCut, describe_exception, request_id
from chassis.telemetry.setup import Telemetry
from chassis.web.probes import Lifecycle

log = structlog.get_logger()

PROBES = frozenset({"/livez", "/readyz", "/startupz"})
"""The paths that are answered without span, metric, log line or limit, even if the process is overloaded."""

SAFE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
"""The request ids that we accept from callers, and repeat in logs and headers. A comma would join two ids."""

CACHE_CONTROL = (b"cache-control", b"private, no-cache")
"""The default of Cache-Control: only the caller may keep a copy, and has to validate the copy before each reuse."""

_NO_PARENT = context.Context()
_TAG = re.compile(rb'"[^"]*"')
_BODY_HEADERS = (b"content-length", b"content-type")
_NO_BODY: Message = {"type": "http.response.body", "body": b"", "more_body": False}

MAX_PATH = 1024
"""The characters of a path that a span keeps: a path may have 64 KiB, and many spans may wait for their receiver."""


class RequestMiddleware:
    """Give each request a span, a duration and an id, and answer 500 to an unexpected error.

    This takes a fifth of the time of FastAPI's own instrumentation (bench/).
    """

    def __init__(self, app: ASGIApp, *, telemetry: Telemetry, lifecycle: Lifecycle, log_requests: bool) -> None:
        self._app = app
        self._telemetry = telemetry
        self._lifecycle = lifecycle
        self._log_requests = log_requests
        self._duration = duration_histogram(
            telemetry.meter, "http.server.request.duration", "Duration of HTTP server requests."
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope.get("method", "")
        if method == "HEAD":  # handle HEAD as GET (RFC 9110). The server, whose scope is still HEAD, sends no body
            scope = {**scope, "method": "GET"}
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return

        headers = dict(scope["headers"])
        if len(headers) < len(scope["headers"]):
            headers = _combine(scope["headers"])
            scope = {**scope, "headers": list(headers.items())}
        parent = _parent(headers) if b"traceparent" in headers else _NO_PARENT
        span = self._telemetry.start_request(method, parent)
        current = context.attach(trace.set_span_in_context(span, parent))
        caller_id = headers.get(b"x-request-id")
        if caller_id and SAFE_REQUEST_ID.fullmatch(caller_id):
            identity = caller_id.decode()
        else:
            identity = format(span.get_span_context().trace_id, "032x")
        named = request_id.set(identity)
        database = current_database.set(scope["app"].state.database)

        status = 0
        streamed_from = 0.0
        ended = False
        lifecycle = self._lifecycle
        tags = headers.get(b"if-none-match") if method in ("GET", "HEAD") else None

        async def send_finished(message: Message) -> None:
            nonlocal status, streamed_from, ended
            if message["type"] == "http.response.start":
                status = message["status"]
                answer = [*message["headers"], (b"x-request-id", identity.encode())]
                names = dict(answer)
                if b"cache-control" not in names:
                    answer.append(CACHE_CONTROL)
                if lifecycle.draining:
                    # Let the client connect to another replica now, before we close its idle connection.
                    answer.append((b"connection", b"close"))
                if tags is not None and status == 200 and _is_named(names.get(b"etag", b""), tags):
                    status, answer = 304, [header for header in answer if header[0] not in _BODY_HEADERS]
                message["status"], message["headers"] = status, answer
            elif status == 304:
                if ended:
                    return
                message, ended = _NO_BODY, True
            elif not streamed_from and message.get("more_body"):
                streamed_from = time.perf_counter()
            await send(message)

        started = time.perf_counter()
        try:
            await self._app(scope, receive, send_finished)
        except AnswerCut:
            raise
        except Exception as error:
            if outage := _outage(error):
                scope["app"].state.outages.add(outage)
            else:
                self._record_surprise(span, error)
            if status:  # a part of the answer was sent: only a cut connection shows the client that the rest is missing
                raise AnswerCut from error
            await problems.document(500)(scope, receive, send_finished)
        finally:
            # The duration of a stream ends with its first byte: its length does not show how fast the service is.
            self._finish(method, scope, span, status, (streamed_from or time.perf_counter()) - started)
            current_database.reset(database)
            request_id.reset(named)
            context.detach(current)

    def _record_surprise(self, span: Span, error: Exception) -> None:
        described = describe_exception(error)
        log.error("request_failed", exc_info=error)
        span.add_event("exception", {f"exception.{key}": value for key, value in described.items()})

    def _finish(self, method: str, scope: Scope, span: Span, status: int, seconds: float) -> None:
        route = _route_of(scope)
        attributes = {
            "http.request.method": method,
            "url.scheme": scope["scheme"],
            # 499, as in the logs of proxies: the client disconnected before the answer.
            "http.response.status_code": status or 499,
        }
        if route is not None:
            attributes["http.route"] = route
        self._duration.record(seconds, attributes)
        name = f"{method} {route}" if route else method
        described = {**attributes, "url.path": scope["path"][:MAX_PATH]}
        request_span.complete(span, name, described, failed=status >= 500)
        if self._log_requests or (status >= 500 and "logged" not in scope):
            log.info(
                "request_finished", method=method, route=route, status=status, duration_ms=round(seconds * 1000, 1)
            )


def _outage(error: Exception) -> DatabaseUnavailable | None:
    """Return the outage behind an error, if any. After a part of the answer was sent, problems.py cannot answer."""
    return next((each for each in (error, error.__cause__) if isinstance(each, DatabaseUnavailable)), None)


def _combine(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Join the values of each repeated header into one list, as RFC 9110, section 5.3, allows.

    So no code has to choose between two values: a list is not a valid media type, token or version.
    """
    combined: dict[bytes, bytes] = {}
    for name, value in headers:
        separator = b"; " if name == b"cookie" else b", "
        combined[name] = combined[name] + separator + value if name in combined else value
    return combined


def _route_of(scope: Scope) -> str | None:
    """Return the path of the route, with the prefixes of all routers that include the route."""
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    return getattr(route, "path", None)


def _parent(headers: dict[bytes, bytes]) -> context.Context:
    names = (b"traceparent", b"tracestate")
    return trace_context.extract({name.decode(): headers[name].decode("latin-1") for name in names if name in headers})


def _is_named(etag: bytes, tags: bytes) -> bool:
    """Compare the answer's ETag with the tags of If-None-Match: weakly, as RFC 9110, section 13.1.2, requires."""
    return bool(etag) and (tags.strip() == b"*" or etag.removeprefix(b"W/") in _TAG.findall(tags))
