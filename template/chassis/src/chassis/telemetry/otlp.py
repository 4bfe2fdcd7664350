"""Export spans over OTLP/HTTP, encoded in a fraction of the time of the SDK's encoder (bench/README.md)."""

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import structlog
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode

log = structlog.get_logger()

_VALUES: dict[type, Callable[[Any], AnyValue]] = {
    str: lambda value: AnyValue(string_value=value),
    bool: lambda value: AnyValue(bool_value=value),
    int: lambda value: AnyValue(int_value=value),
    float: lambda value: AnyValue(double_value=value),
}

CACHED_CHARACTERS = 2000
"""The longest text of a span that is encoded here, because each is cached: long texts must not fill the memory."""

_UNUSUAL = (KeyError, TypeError, ValueError)
"""The errors of an attribute that only the SDK encodes, or leaves out: a list, a long text, a number beyond 64 bits."""

_TIMES = struct.Struct("<BQBQ")


class SpanExporter(OTLPSpanExporter):
    """The SDK's exporter, with its client, its settings and its retries, and `encode` in place of its encoder.

    The client has no public name. If a new version of the SDK has changed it, the SDK's own encoder is used: spans cost
    more CPU, and none is lost. See docs/decisions/0051 of the template.
    """

    is_fast = True
    """Whether this exporter uses `encode`."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.is_fast:
            try:
                sent = self._client.export(encode(spans)).success
            except Exception as error:
                self.is_fast = False
                log.warning("span_encoder_unsupported", reason=f"{type(error).__name__}: {error}")
            else:
                return SpanExportResult.SUCCESS if sent else SpanExportResult.FAILURE
        return super().export(spans)


def encode(spans: Sequence[ReadableSpan]) -> bytes:
    """Serialise an ExportTraceServiceRequest, with the same content as the SDK's `encode_spans`.

    Parts that repeat from span to span, as nearly all attributes do, are encoded once and cached. Protobuf allows that:
    the serialised parts of a message may be joined (https://protobuf.dev/programming-guides/encoding).
    """
    # Compare by identity: a tracer has one resource and one scope, and hashing a resource would serialise it to JSON.
    by_scope: dict[tuple[int, int], list[ReadableSpan]] = {}
    for span in spans:
        by_scope.setdefault((id(span.resource), id(span.instrumentation_scope)), []).append(span)
    return b"".join(map(_encode_scope, by_scope.values()))


def _encode_scope(spans: list[ReadableSpan]) -> bytes:
    of_resource = encode_spans(spans[:1]).resource_spans[0]
    of_scope = of_resource.scope_spans.pop()
    del of_scope.spans[:]
    parts = [_field(trace_pb2.ScopeSpans.SPANS_FIELD_NUMBER, _encode_span(span)) for span in spans]
    inner = _field(trace_pb2.ResourceSpans.SCOPE_SPANS_FIELD_NUMBER, of_scope.SerializeToString() + b"".join(parts))
    return _field(ExportTraceServiceRequest.RESOURCE_SPANS_FIELD_NUMBER, of_resource.SerializeToString() + inner)


def _encode_span(span: ReadableSpan) -> bytes:
    attributes: Any = span.attributes
    attributes = attributes.copy()  # a plain dict, because each item of the SDK's class takes a lock
    more = span.events or span.links or span.context.trace_state or span.status.description or span.dropped_attributes
    if not more:
        try:
            encoded = map(_cached_attribute, attributes, attributes.values())
            return b"".join((_encode_ids(span), _encode_head(span), *encoded))
        except _UNUSUAL:
            pass
    return encode_spans([span]).resource_spans[0].scope_spans[0].spans[0].SerializeToString()


def _encode_ids(span: ReadableSpan) -> bytes:
    """Encode the ids and times: fields of fixed lengths, so each tag, with its length, is a constant."""
    context, parent = span.context, span.parent
    return b"\x0a\x10%b\x12\x08%b%b%b" % (
        context.trace_id.to_bytes(16, "big"),
        context.span_id.to_bytes(8, "big"),
        b"\x22\x08" + parent.span_id.to_bytes(8, "big") if parent else b"",
        _TIMES.pack(0x39, span.start_time or 0, 0x41, span.end_time or 0),
    )


def _encode_head(span: ReadableSpan) -> bytes:
    remote = span.parent is not None and span.parent.is_remote
    return _cached_head(span.name, span.kind, span.status.status_code, remote)


@lru_cache(maxsize=1024)
def _cached_head(name: str, kind: SpanKind, status: StatusCode, remote: bool) -> bytes:
    flags = trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | (remote and trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
    return trace_pb2.Span(
        name=name,
        kind=trace_pb2.Span.SpanKind.Value(f"SPAN_KIND_{kind.name}"),
        status=trace_pb2.Status(code=trace_pb2.Status.StatusCode.Value(f"STATUS_CODE_{status.name}")),
        flags=flags,
    ).SerializeToString()


@lru_cache(maxsize=1024, typed=True)  # `typed`, because otherwise True and 1 are one key
def _cached_attribute(name: str, value: str | bool | int | float) -> bytes:
    """Encode an attribute. Raises one of _UNUSUAL: an error is not cached."""
    if type(value) is str and len(value) > CACHED_CHARACTERS:
        raise ValueError("too long to be cached")
    attribute = KeyValue(key=name, value=_VALUES[type(value)](value))
    return trace_pb2.Span(attributes=[attribute]).SerializeToString()


def _field(number: int, message: bytes) -> bytes:
    return _cached_prefix(number, len(message)) + message


@lru_cache(maxsize=1024)
def _cached_prefix(number: int, length: int) -> bytes:
    """Make the start of a field: its number and wire type 2, and the length as a varint."""
    prefix = bytearray([number << 3 | 2])
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix)
