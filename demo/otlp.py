"""A receiver of OTLP over HTTP that keeps what it is sent: the demo shows a trace with it, tests look at spans."""

import gzip
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass(frozen=True)
class Span:
    """One span as it arrived. Ids are lower-case hex, as traceparent has them; `parent_id` is empty for a root."""

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    name: str
    kind: str
    """INTERNAL, SERVER, CLIENT, PRODUCER or CONSUMER."""
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    status: str
    """UNSET, OK or ERROR."""
    events: tuple[tuple[str, dict[str, Any]], ...] = ()
    """Name and attributes of each, such as the exception that a span recorded."""


class OtlpReceiver:
    """Listens on a free port of the loopback interface while the `with` block runs."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.metrics: set[str] = set()
        """The names of all metrics that arrived."""
        self.resources: list[dict[str, Any]] = []
        """The resource attributes of each batch of spans."""
        self._arrived = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "OtlpReceiver":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait_for(self, trace_id: str, count: int, timeout: float) -> list[Span]:
        """The spans of one trace, once there are `count` of them or `timeout` seconds are over."""
        with self._arrived:
            self._arrived.wait_for(lambda: len(self._of(trace_id)) >= count, timeout)
            return self._of(trace_id)

    def wait_for_metric(self, name: str, timeout: float) -> bool:
        """True once a metric of that name arrived, False after `timeout` seconds."""
        with self._arrived:
            return self._arrived.wait_for(lambda: name in self.metrics, timeout)

    def _of(self, trace_id: str) -> list[Span]:
        return [span for span in self.spans if span.trace_id == trace_id]

    def take(self, path: str, body: bytes) -> None:
        """Keep the content of one export request. Raises DecodeError, and KeyError for an unknown path."""
        add = {"/v1/traces": self._take_spans, "/v1/metrics": self._take_metrics}[path]
        with self._arrived:
            add(body)
            self._arrived.notify_all()

    def _take_spans(self, body: bytes) -> None:
        for batch in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _mapping(batch.resource.attributes)
            self.resources.append(resource)
            spans = [span for scope in batch.scope_spans for span in scope.spans]
            self.spans += [_span(span, resource.get("service.name", "")) for span in spans]

    def _take_metrics(self, body: bytes) -> None:
        batches = ExportMetricsServiceRequest.FromString(body).resource_metrics
        self.metrics |= {metric.name for batch in batches for scope in batch.scope_metrics for metric in scope.metrics}


def tree(spans: Iterable[Span]) -> str:
    """One trace as an indented tree in order of time, each line with its service and its duration."""
    spans = sorted(spans, key=lambda span: span.start_ns)
    known = {span.span_id for span in spans}
    lines: list[tuple[str, str, str]] = []

    def add(span: Span, depth: int) -> None:
        duration = f"{(span.end_ns - span.start_ns) / 1e6:.1f} ms"
        lines.append(("  " * depth + span.name, span.service, duration))
        for child in spans:
            if child.parent_id == span.span_id:
                add(child, depth + 1)

    for span in spans:
        if span.parent_id not in known:  # a root, or the child of a span that went elsewhere
            add(span, 0)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        f"{name:<{widths[0]}}  {service:<{widths[1]}}  {duration:>{widths[2]}}" for name, service, duration in lines
    )


def _span(span: trace_pb2.Span, service: str) -> Span:
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        service=service,
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_mapping(span.attributes),
        status=trace_pb2.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        events=tuple((event.name, _mapping(event.attributes)) for event in span.events),
    )


def _mapping(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _plain(pair.value) for pair in pairs}


def _plain(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_plain(item) for item in value.array_value.values]
        case "kvlist_value":
            return _mapping(value.kvlist_value.values)
        case kind:
            return getattr(value, kind)


def _handler_for(receiver: OtlpReceiver) -> type[BaseHTTPRequestHandler]:
    # HTTP/1.0, as the base class has it: each export has a connection of its own, so none outlives the receiver.
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            try:
                receiver.take(self.path, body)
            except KeyError:
                self.send_error(404)
            except DecodeError:
                self.send_error(400)
            else:
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet: what arrived is the message."""

    return Handler
