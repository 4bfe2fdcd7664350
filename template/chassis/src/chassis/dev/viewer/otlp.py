"""Read OTLP: what an export request holds, as plain values."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

MAX_TEXT = 16 * 1024
"""The characters of a text that are kept."""

MAX_NAME = 200
"""The characters of the name of a service that are kept: each span has a copy of it."""

LAST_TIME = 2**62
"""The latest time that is kept, in nanoseconds since 1970: SQLite has no unsigned integers of 64 bits."""

EXACT = 2**53
"""JavaScript rounds whole numbers from here on, so they become texts."""

KINDS = {value: name.removeprefix("SPAN_KIND_") for name, value in trace_pb2.Span.SpanKind.items()}
STATUSES = {value: name.removeprefix("STATUS_CODE_") for name, value in trace_pb2.Status.StatusCode.items()}


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it arrived. Ids are lower-case hex, as in traceparent. `parent_id` is empty for a root."""

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
    message: str = ""
    """The description of the status."""
    events: tuple[tuple[str, dict[str, Any]], ...] = ()
    """Name and attributes of each event, such as an exception that the span recorded."""
    links: tuple[str, ...] = ()
    """The ids of the traces that this span belongs to as well."""


def batches(body: bytes) -> Iterator[tuple[dict[str, Any], list[Span]]]:
    """Yield the resource and the spans of each batch, without spans whose ids are invalid. Raises DecodeError."""
    for batch in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = mapping(batch.resource.attributes)
        service = str(resource.get("service.name", ""))[:MAX_NAME]
        spans = [span for scope in batch.scope_spans for span in scope.spans]
        yield (
            resource,
            [_span(span, service) for span in spans if len(span.trace_id) == 16 and len(span.span_id) == 8],
        )


def _span(span: trace_pb2.Span, service: str) -> Span:
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        service=service,
        name=span.name[:MAX_TEXT],
        kind=KINDS.get(span.kind, "INTERNAL"),
        start_ns=min(span.start_time_unix_nano, LAST_TIME),
        end_ns=min(span.end_time_unix_nano, LAST_TIME),
        attributes=mapping(span.attributes),
        status=STATUSES.get(span.status.code, "UNSET"),
        message=span.status.message[:MAX_TEXT],
        events=tuple((event.name[:MAX_TEXT], mapping(event.attributes)) for event in span.events),
        links=tuple(link.trace_id.hex() for link in span.links),
    )


def mapping(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key[:MAX_TEXT]: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_value(item) for item in value.array_value.values]
        case "kvlist_value":
            return mapping(value.kvlist_value.values)
        case kind:
            return getattr(value, kind)


def plain(value: Any) -> Any:
    """Convert a value for JSON in a browser: without NaN, numbers that JavaScript rounds, and texts of any length."""
    match value:
        case str():
            return value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]}… ({len(value) - MAX_TEXT} more characters)"
        case bytes():
            return plain(value.hex())
        case bool():
            return value
        case int():
            return value if -EXACT < value < EXACT else str(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case dict():
            return {key: plain(each) for key, each in value.items()}
        case list():
            return [plain(each) for each in value]
        case _:
            return value
