"""Spans as an exporter sends them."""

from collections.abc import Iterable
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

TRACE = "0af7651916cd43dd8448eb211c80319c"
SERVER, CLIENT = trace_pb2.Span.SPAN_KIND_SERVER, trace_pb2.Span.SPAN_KIND_CLIENT
PRODUCER, CONSUMER = trace_pb2.Span.SPAN_KIND_PRODUCER, trace_pb2.Span.SPAN_KIND_CONSUMER
SECOND = 10**9
MIDNIGHT = 1_800_000_000 * SECOND


def attribute(name: str, value: Any) -> KeyValue:
    match value:
        case AnyValue():
            return KeyValue(key=name, value=value)
        case str():
            return KeyValue(key=name, value=AnyValue(string_value=value))
        case float():
            return KeyValue(key=name, value=AnyValue(double_value=value))
        case bytes():
            return KeyValue(key=name, value=AnyValue(bytes_value=value))
        case _:
            return KeyValue(key=name, value=AnyValue(int_value=value))


def span(
    number: int, parent: int = 0, *, trace: str = TRACE, name: str = "", start: int | None = None, **more: Any
) -> Any:
    """Make a span of a millisecond, which starts `number` milliseconds after midnight. Attributes have `__` for dots."""
    start = MIDNIGHT + number * 10**6 if start is None else start
    failed = more.pop("failed", False)
    fields: dict[str, Any] = {"kind": SERVER, "end_time_unix_nano": start + 10**6}
    fields |= {key: more.pop(key) for key in ("kind", "links", "end_time_unix_nano", "events") if key in more}
    return trace_pb2.Span(
        trace_id=bytes.fromhex(trace),
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=name or f"span {number}",
        start_time_unix_nano=start,
        status=trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_ERROR if failed else 0),
        attributes=[attribute(key.replace("__", "."), value) for key, value in more.items()],
        **fields,
    )


def export(spans: Iterable[Any], service: str = "billing") -> bytes:
    request = ExportTraceServiceRequest()
    batch = request.resource_spans.add()
    batch.resource.attributes.append(attribute("service.name", service))
    batch.scope_spans.add().spans.extend(spans)
    return request.SerializeToString()


def gauges(service: str, values: dict[str, float]) -> bytes:
    request = ExportMetricsServiceRequest()
    batch = request.resource_metrics.add()
    batch.resource.attributes.append(attribute("service.name", service))
    for name, value in values.items():
        batch.scope_metrics.add().metrics.add(name=name).gauge.data_points.add(as_double=value)
    return request.SerializeToString()
