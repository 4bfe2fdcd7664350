"""Our encoding of spans has the same content as the SDK's, and its cache is bounded."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest
from chassis.telemetry import otlp
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
)
from structlog.testing import CapturingLogger

from tests.support.otlp import OtlpReceiver

LOCAL = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1))
REMOTE = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1))
WITH_STATE = SpanContext(3, 4, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("vendor", "1")]))

PLAIN = {"text": "é \U0001f600", "empty": "", "long": "x" * 5000, "one": 1, "true": True, "1.0": 1.0, "least": -(2**63)}


@contextmanager
def recording(service: str = "tiny", **options: Any) -> Generator[tuple[Tracer, list[ReadableSpan]]]:
    """Yield a tracer and the list of its recorded spans."""
    memory, spans = InMemorySpanExporter(), []
    provider = TracerProvider(resource=Resource({"service.name": service}, "https://schema"), **options)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    yield provider.get_tracer("chassis", "1.0", "https://scope"), spans
    spans += memory.get_finished_spans()


def assert_the_same(spans: list[ReadableSpan]) -> None:
    for _ in range(2):  # the second time, repeated parts come from the cache
        assert ExportTraceServiceRequest.FromString(otlp.encode(spans)) == encode_spans(spans)


@pytest.mark.parametrize(
    "happen",
    [
        lambda span: span.set_attributes(PLAIN),
        lambda span: [span.set_attribute("same", value) for value in (1, True, 1.0)],
        lambda span: span.set_attributes({"texts": ["a", "b"], "numbers": [1, 2]}),
        lambda span: span.set_attributes({"beyond 64 bits": 2**70, "kept": 1}),
        lambda span: span.set_attributes({"not Unicode": "\ud800", "kept": 1}),
        lambda span: span.set_status(StatusCode.ERROR, "why"),
        lambda span: span.set_status(StatusCode.OK),
        lambda span: span.add_event("exception", {"exception.type": "KeyError"}),
        lambda span: span.add_link(REMOTE, {"why": "one batch"}),
    ],
)
def test_every_change_of_a_span_is_encoded_as_by_the_sdk(happen: Callable[[Span], object]) -> None:
    with recording() as (tracer, spans):
        for _ in range(2):
            span = tracer.start_span("work")
            happen(span)
            span.end()

    assert_the_same(spans)


@pytest.mark.parametrize("kind", SpanKind)
@pytest.mark.parametrize("parent", [None, LOCAL, REMOTE, WITH_STATE])
def test_kind_and_parent_are_encoded_as_by_the_sdk(kind: SpanKind, parent: SpanContext | None) -> None:
    context = trace.set_span_in_context(NonRecordingSpan(parent), Context()) if parent else Context()
    with recording() as (tracer, spans):
        tracer.start_span("work", context, kind).end()

    assert_the_same(spans)


def test_values_that_python_takes_for_equal_stay_apart() -> None:
    with recording() as (tracer, spans):
        for value in (1, True, 1.0, "1"):
            tracer.start_span("work", attributes={"value": value}).end()

    assert_the_same(spans)


def test_dropped_spans_are_counted() -> None:
    with recording(span_limits=SpanLimits(max_span_attributes=2)) as (tracer, spans):
        tracer.start_span("work", attributes=dict.fromkeys("abc", 1)).end()

    assert spans[0].dropped_attributes == 1
    assert_the_same(spans)


def test_spans_of_several_tracers_and_resources_stay_together() -> None:
    with recording("one") as (first, of_one), recording("two") as (second, of_two):
        for _ in range(2):
            first.start_span("here").end()
            second.start_span("there").end()
    mixed = [span for pair in zip(of_one, of_two, strict=True) for span in pair]

    assert_the_same(mixed)


def test_a_text_that_callers_make_up_is_not_kept() -> None:
    otlp._cached_attribute.cache_clear()
    with recording() as (tracer, spans):
        for length in (otlp.CACHED_CHARACTERS, otlp.CACHED_CHARACTERS + 1):
            tracer.start_span("work", attributes={"url.path": "/" * length}).end()
    otlp.encode(spans)

    assert otlp._cached_attribute.cache_info().currsize == 1
    assert_the_same(spans)


def export(exporter: otlp.SpanExporter) -> None:
    with recording() as (tracer, spans):
        tracer.start_span("work", attributes=PLAIN).end()
    assert exporter.export(spans) is SpanExportResult.SUCCESS


def test_this_version_of_the_sdk_has_the_client_that_the_exporter_uses() -> None:
    with OtlpReceiver() as receiver:
        exporter = otlp.SpanExporter(endpoint=f"{receiver.endpoint}/v1/traces", timeout=60)
        export(exporter)

    assert exporter.is_fast, "the SDK has changed: adapt chassis/telemetry/otlp.py, or use the SDK's exporter instead"
    assert [span.name for span in receiver.spans] == ["work"]


def test_spans_arrive_by_the_encoder_of_the_sdk_where_ours_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def does_not_fit(spans: list[ReadableSpan]) -> bytes:
        raise AttributeError("'ReadableSpan' object has no attribute 'attributes'")

    monkeypatch.setattr(otlp, "encode", does_not_fit)
    monkeypatch.setattr(otlp, "log", logged := CapturingLogger())
    with OtlpReceiver() as receiver:
        exporter = otlp.SpanExporter(endpoint=f"{receiver.endpoint}/v1/traces", timeout=60)
        for _ in range(2):
            export(exporter)

    assert [span.name for span in receiver.spans] == ["work", "work"]
    assert [call.args for call in logged.calls] == [("span_encoder_unsupported",)]
