"""A receiver of OTLP over HTTP that keeps what it is sent, for tests and measurements."""

import gzip
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from chassis.dev.viewer.otlp import Span, batches
from chassis.dev.viewer.tree import draw, in_tree_order
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

__all__ = ["OtlpReceiver", "Span", "tree"]


class OtlpReceiver:
    """A receiver that listens on a free port of the loopback interface while the `with` block runs."""

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
        """The value for OTEL_EXPORTER_OTLP_ENDPOINT."""
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

    def _of(self, trace_id: str) -> list[Span]:
        return [span for span in self.spans if span.trace_id == trace_id]

    def take(self, path: str, body: bytes) -> None:
        """Keep the content of one export request. Raises DecodeError, and KeyError for an unknown path."""
        add = {"/v1/traces": self._take_spans, "/v1/metrics": self._take_metrics}[path]
        with self._arrived:
            add(body)
            self._arrived.notify_all()

    def _take_spans(self, body: bytes) -> None:
        for resource, spans in batches(body):
            self.resources.append(resource)
            self.spans += spans

    def _take_metrics(self, body: bytes) -> None:
        batches = ExportMetricsServiceRequest.FromString(body).resource_metrics
        self.metrics |= {metric.name for batch in batches for scope in batch.scope_metrics for metric in scope.metrics}


def tree(spans: Iterable[Span]) -> str:
    """One trace as an indented tree in order of time, each line with its service and its duration."""
    return draw(
        (depth, span.name, span.service, f"{(span.end_ns - span.start_ns) / 1e6:.1f} ms", "")
        for span, depth in in_tree_order(spans)
    )


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
            """Print nothing: tests look at the content that arrived."""

    return Handler
