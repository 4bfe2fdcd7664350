"""Spans and metrics at a real OTLP receiver; a receiver that is down costs nothing but the spans."""

import gc
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager

import httpx2
import pytest
from chassis.service import Service
from chassis.telemetry.setup import (
    EXPORT_TIMEOUT_SECONDS,
    MAX_QUEUED_SPANS,
    Telemetry,
    from_settings,
    sampler_of,
    summarise,
)
from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

from tests.chassis.processes import Running, Start
from tests.support.otlp import OtlpReceiver, tree

URL = "postgresql://tiny@127.0.0.1/tiny"
WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def receiver() -> Generator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def first(start: Start, receiver: OtlpReceiver) -> Running:
    """A service that reports to the receiver."""
    return start(
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test,service.instance.id=tiny-1",
        SERVICE_VERSION="1.2.3",
    )


@pytest.mark.slow
def test_a_trace_goes_through_two_services(start: Start, first: Running, receiver: OtlpReceiver) -> None:
    second = start(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
    address = second.base.replace("http://", "http://user:hidden@")
    answer = httpx2.get(f"{first.base}/v1/onward", params={"url": address})
    spans = receiver.wait_for(answer.headers["x-request-id"], count=3, timeout=WAIT_SECONDS)

    assert answer.json() == 404  # the second service has no /there
    here, out, there = sorted(spans, key=lambda span: span.start_ns)
    assert [here.kind, out.kind, there.kind] == ["SERVER", "CLIENT", "SERVER"]
    assert (out.parent_id, there.parent_id) == (here.span_id, out.span_id)
    assert out.attributes["url.full"] == f"{second.base}/there"
    assert (out.attributes["http.response.status_code"], out.status) == (404, "ERROR")
    assert not any(secret in str(span) for span in spans for secret in ("alice", "hidden"))


@pytest.mark.slow
@pytest.mark.usefixtures("database")  # the fixture empties the table afterwards
def test_a_request_arrives_as_one_tree_and_queued_spans_arrive_before_the_end(
    first: Running, receiver: OtlpReceiver
) -> None:
    created = httpx2.post(f"{first.base}/v1/things", json={"name": "telemetry"})
    spans = receiver.wait_for(created.headers["x-request-id"], count=3, timeout=WAIT_SECONDS)
    last = httpx2.get(f"{first.base}/v1/things")
    first.tell()
    assert first.wait() == 0

    assert [line.split()[:2] for line in tree(spans).splitlines()] == [
        ["POST", "/v1/things"],
        ["INSERT", "tiny.things"],
        ["COMMIT", "tiny"],
    ]
    assert {span.service for span in spans} == {"tiny"}
    resource = next(each for each in receiver.resources if each["service.version"] == "1.2.3")
    assert resource["service.namespace"] == "tests"
    assert resource["deployment.environment.name"] == "test"
    assert resource["service.instance.id"] == "tiny-1"
    assert len(receiver.wait_for(last.headers["x-request-id"], count=2, timeout=0)) == 2
    assert {"http.server.request.duration", "db.client.connection.count"} <= receiver.metrics
    assert first.events(event="request_finished") == []  # by default traces show requests, and logs do not


@contextmanager
def dead(kind: str) -> Generator[str]:
    """The address of a receiver that refuses connections, or accepts them and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "hangs":
            listener.listen(128)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def telemetry(service: Service, endpoint: str, **settings: object) -> Telemetry:
    values = {"database_url": URL, "otel_exporter_otlp_endpoint": endpoint, **settings}
    return from_settings(service, service.settings.model_validate(values))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["refuses", "hangs"])
def test_a_dead_receiver_blocks_nothing_and_holds_up_the_end_for_a_bounded_time(service: Service, kind: str) -> None:
    def work() -> float:
        began = time.monotonic()
        for _ in range(MAX_QUEUED_SPANS + 1000):
            ours.tracer.start_span("work").end()
        return time.monotonic() - began

    with dead(kind) as endpoint:
        ours = telemetry(service, endpoint)
        ours.meter.create_counter("things").add(1)
        # No request waited for an export. (The best of several, because this machine may be busy.)
        assert min(work() for _ in range(3)) < EXPORT_TIMEOUT_SECONDS

        began = time.monotonic()
        ours.shutdown()

    assert time.monotonic() - began < EXPORT_TIMEOUT_SECONDS + 20  # without our limit, the SDK takes 30 s


@pytest.mark.slow
def test_a_dead_receiver_fills_no_memory(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chassis.telemetry.setup.MAX_QUEUED_SPANS", 512)  # a shorter queue fills sooner
    with dead("refuses") as endpoint:
        ours = telemetry(service, endpoint)
        for _ in range(3000):
            ours.tracer.start_span("to nobody").end()
        spans = [each for each in gc.get_objects() if issubclass(type(each), ReadableSpan)]
        kept = sum(span.name == "to nobody" for span in spans)
        del spans
        ours.shutdown()

    assert 0 < kept <= 1024  # the waiting spans, and a batch of 512 that is being sent


def test_every_part_of_a_span_arrives_as_recorded(service: Service) -> None:
    attributes = {
        "text": "é \U0001f600",
        "long": "x" * 5000,
        "true": True,
        "one": 1,
        "large": -(2**62),
        "share": 0.5,
        "list": ["a", "b"],
        "numbers": [1, 2],
    }
    remote = SpanContext(
        trace_id=0xABC,
        span_id=0xDEF,
        is_remote=True,
        trace_flags=TraceFlags(1),
        trace_state=TraceState([("vendor", "1")]),
    )
    parent = trace.set_span_in_context(NonRecordingSpan(remote), context.Context())
    with OtlpReceiver() as receiver:
        ours = telemetry(service, receiver.endpoint)
        for _ in range(2):  # the second time, repeated parts may come from a cache
            span = ours.tracer.start_span("plain", parent, SpanKind.CLIENT, attributes, start_time=1_000)
            span.set_status(StatusCode.ERROR, "why")
            span.end(3_000)
        eventful = ours.tracer.start_span("eventful", kind=SpanKind.SERVER)
        eventful.add_event("exception", {"exception.type": "KeyError"})
        eventful.end()
        ours.shutdown()

    *plain, with_event = sorted(receiver.spans, key=lambda span: span.start_ns)
    for each in plain:
        assert (each.trace_id, each.parent_id, each.name) == (f"{0xABC:032x}", f"{0xDEF:016x}", "plain")
        assert (each.kind, each.status, each.start_ns, each.end_ns) == ("CLIENT", "ERROR", 1_000, 3_000)
        assert each.attributes == attributes
        assert (each.service, each.events) == ("tiny", ())
    assert len({each.span_id for each in plain}) == 2
    assert (with_event.name, with_event.kind, with_event.status, with_event.parent_id) == (
        "eventful",
        "SERVER",
        "UNSET",
        "",
    )
    assert with_event.events == (("exception", {"exception.type": "KeyError"}),)


@pytest.mark.parametrize(("ratio", "expected"), [(0, 0), (1, 5)])
def test_the_ratio_says_how_many_traces_are_kept(service: Service, ratio: float, expected: int) -> None:
    with OtlpReceiver() as receiver:
        ours = telemetry(service, receiver.endpoint, trace_sample_ratio=ratio)
        for _ in range(5):
            ours.tracer.start_span("work").end()
        ours.shutdown()

    assert len(receiver.spans) == expected


def traced(sampler: Sampler, kind: SpanKind, count: int) -> int:
    """Count the sampled requests of callers that sample. The trace id is the first that a sampler by ratio would choose."""
    parent = SpanContext(trace_id=1 << 64, span_id=7, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    asking = trace.set_span_in_context(NonRecordingSpan(parent))
    found = [sampler.should_sample(asking, parent.trace_id, "GET", kind=kind) for _ in range(count)]
    return sum(each.decision.is_sampled() for each in found)


def test_callers_decide_on_no_more_traces_than_the_setting_allows(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"database_url": URL, "trace_sample_ratio": 0, "trace_callers_per_second": 5}
    sampler = sampler_of(service.settings.model_validate(values))
    now = 1000.0
    monkeypatch.setattr("chassis.telemetry.setup.time.monotonic", lambda: now)

    assert traced(sampler, SpanKind.SERVER, 50) == 5
    assert traced(sampler, SpanKind.SERVER, 50) == 0
    now += 1
    assert traced(sampler, SpanKind.SERVER, 50) == 5
    assert traced(sampler, SpanKind.CONSUMER, 50) == 50  # another service has sent the message


def test_beyond_the_setting_the_ratio_decides_for_any_trace_id_of_the_caller(service: Service) -> None:
    def share(ratio: float) -> int:
        values = {"database_url": URL, "trace_sample_ratio": ratio, "trace_callers_per_second": 0}
        return traced(sampler_of(service.settings.model_validate(values)), SpanKind.SERVER, 1000)

    assert (share(0), share(1)) == (0, 1000)
    assert 300 < share(0.5) < 700


def test_without_an_endpoint_nothing_is_recorded_and_ids_are_made(service: Service) -> None:
    ours = from_settings(service, service.settings.model_validate({"database_url": URL}))

    span = ours.tracer.start_span("work")

    assert not span.is_recording()
    assert span.get_span_context().is_valid
    ours.shutdown()


@pytest.mark.parametrize("sampled", [True, False])
def test_without_an_endpoint_the_callers_decision_still_goes_on_to_called_services(
    service: Service, sampled: bool
) -> None:
    ours = from_settings(service, service.settings.model_validate({"database_url": URL}))
    caller = SpanContext(trace_id=1, span_id=2, is_remote=True, trace_flags=TraceFlags(sampled))

    span = ours.tracer.start_span(
        "work", context=trace.set_span_in_context(NonRecordingSpan(caller), context.Context())
    )

    assert span.get_span_context().trace_id == 1
    assert span.get_span_context().trace_flags.sampled is sampled


@pytest.mark.parametrize(
    ("query", "summary"),
    [
        ("SELECT a, b \nFROM tiny.things \nWHERE a = $1", "SELECT tiny.things"),
        ("INSERT INTO tiny.things (id) VALUES ($1)", "INSERT tiny.things"),
        ("INSERT INTO tiny.things(id) VALUES ($1)", "INSERT tiny.things"),
        ("UPDATE tiny.things SET a=$1", "UPDATE tiny.things"),
        ("DELETE FROM tiny.things", "DELETE tiny.things"),
        ("COMMIT;", "COMMIT"),
        ("select 1", "SELECT"),
        ("", ""),
    ],
)
def test_a_statement_is_summed_up_by_its_verb_and_its_table(query: str, summary: str) -> None:
    assert summarise(query) == summary
