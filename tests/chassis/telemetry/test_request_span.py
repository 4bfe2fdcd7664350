"""The span of a request that is built in one step equals the span of the same request by the SDK's tracer."""

import copy
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from chassis.telemetry import request_span, trace_context
from chassis.telemetry.request_span import RequestSpan
from chassis.telemetry.setup import FollowCallers, Telemetry
from opentelemetry import context, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanContext, SpanKind, StatusCode

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
DESCRIBED = {"http.request.method": "GET", "http.response.status_code": 200, "url.path": "/v1/things/7"}
CALLERS: dict[str, Mapping[str, str]] = {
    "no caller": {},
    "a caller that traces": {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "ours=1"},
    "a caller with a random trace id": {"traceparent": f"00-{TRACE}-{CALLER}-03"},
    "a caller that does not trace": {"traceparent": f"00-{TRACE}-{CALLER}-00"},
}
ADDITIONS: dict[str, Callable[[Span], Any]] = {
    "nothing": lambda span: None,
    "an attribute": lambda span: span.set_attribute("tiny.colour", "red"),
    "an attribute of the chassis": lambda span: span.set_attributes({"url.path": "mine", "tiny.list": [1, 2]}),
    "a value that is no attribute": lambda span: span.set_attribute("tiny.thing", object),
    "too many attributes": lambda span: [span.set_attribute(f"tiny.{number}", number) for number in range(200)],
    "an event": lambda span: span.add_event("noticed", {"tiny.colour": "red"}, 10**18),
    "too many events": lambda span: [span.add_event("noticed", timestamp=10**18) for _ in range(200)],
    "a link": lambda span: span.add_link(SpanContext(int(TRACE, 16), 7, is_remote=True), {"tiny.colour": "red"}),
    "a name": lambda span: span.update_name("mine"),
    "success": lambda span: span.set_status(StatusCode.OK),
    "a failure with a description": lambda span: span.set_status(StatusCode.ERROR, "no thing"),
    "an exception": lambda span: span.record_exception(ValueError("no thing"), {"tiny.colour": "red"}, 10**18),
    "an end": lambda span: span.end(),
}


class Unused(SpanProcessor):
    """A processor of the service, with which each span is made by the SDK."""


def record(caller: Mapping[str, str], add: Callable[[Span], Any], *, failed: bool, by_sdk: bool) -> tuple[Any, Any]:
    """Return the context of the span inside of the request, and the exported spans, without what differs each time."""
    exported = InMemorySpanExporter()
    telemetry = Telemetry(
        Resource({"service.name": "tiny"}),
        sampler=ParentBased(TraceIdRatioBased(1), remote_parent_sampled=FollowCallers(10, 0)),
        span_processors=[SimpleSpanProcessor(exported)],
        metric_readers=[],
    )
    if by_sdk:
        telemetry._tracing.add_span_processor(Unused())
    parent = trace_context.extract(caller)
    span = telemetry.start_request("GET", parent)
    current = context.attach(trace.set_span_in_context(span, parent))
    add(trace.get_current_span())
    context.detach(current)
    request_span.complete(span, "GET /v1/things/{id}", DESCRIBED, failed=failed)
    assert not span.is_recording()
    span.set_attribute("tiny.late", True)  # as a task in the background does
    found = span.get_span_context()
    seen = (
        bool(caller) and f"{found.trace_id:032x}",
        found.trace_flags,
        found.trace_state,
        found.is_remote,
        found.is_valid,
    )
    return seen, [
        _comparable(json.loads(each.to_json())) | {"dropped": each.dropped_attributes}
        for each in exported.get_finished_spans()
    ]


def _comparable(span: dict[str, Any]) -> dict[str, Any]:
    span["context"]["trace_id"] = span["context"]["span_id"] = ""
    assert span.pop("end_time") >= span.pop("start_time")
    for event in span["events"]:
        event["attributes"].pop("exception.stacktrace", None)
    return span


@pytest.mark.parametrize("failed", [False, True], ids=["answered", "failed"])
@pytest.mark.parametrize("add", ADDITIONS.values(), ids=ADDITIONS)
@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
def test_a_span_in_one_step_equals_the_span_of_the_sdk(
    caller: Mapping[str, str], add: Callable[[Span], Any], failed: bool
) -> None:
    assert record(caller, add, failed=failed, by_sdk=False) == record(caller, add, failed=failed, by_sdk=True)


def recorded() -> Telemetry:
    return Telemetry(Resource({"service.name": "tiny"}), sampler=ALWAYS_ON, span_processors=[], metric_readers=[])


def test_the_service_reads_the_span_of_its_request_as_a_span_of_the_sdk() -> None:
    telemetry = recorded()
    span: Any = telemetry.start_request("GET", trace_context.extract(CALLERS["a caller that traces"]))

    assert span.name == "GET"
    assert span.kind is SpanKind.SERVER
    assert f"{span.parent.span_id:016x}" == CALLER
    assert span.start_time <= time.time_ns()
    assert dict(span.attributes) == {}
    span.set_attribute("tiny.colour", "red")
    assert dict(span.attributes) == {"tiny.colour": "red"}
    assert span.resource.attributes["service.name"] == "tiny"
    assert not hasattr(span, "_no_such_name")
    assert isinstance(copy.copy(span), RequestSpan)


def test_attributes_that_threads_add_at_once_all_arrive() -> None:
    telemetry, spans, threads = recorded(), 300, 4
    both = threading.Barrier(threads)

    def add(number: int) -> None:
        for span in requests:
            both.wait(30)
            span.set_attribute(f"tiny.{number}", number)

    requests: list[Any] = [telemetry.start_request("GET", context.Context()) for _ in range(spans)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(add, range(threads)))
    finally:
        sys.setswitchinterval(interval)

    assert [len(span.attributes) for span in requests] == [threads] * spans


def test_a_processor_that_a_service_adds_sees_the_start_of_each_request() -> None:
    started: list[str] = []

    class Watching(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            started.append(span.name)

    telemetry = recorded()
    assert isinstance(telemetry.start_request("GET", context.Context()), RequestSpan)

    telemetry._tracing.add_span_processor(Watching())
    telemetry.start_request("POST", context.Context())

    assert started == ["POST"]


def test_a_disabled_sdk_records_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    exported = InMemorySpanExporter()
    processors = [SimpleSpanProcessor(exported)]
    telemetry = Telemetry(Resource({}), sampler=ALWAYS_ON, span_processors=processors, metric_readers=[])

    span = telemetry.start_request("GET", context.Context())
    request_span.complete(span, "GET", DESCRIBED, failed=False)

    assert exported.get_finished_spans() == ()
