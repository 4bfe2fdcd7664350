"""A span of a call that is built in one step equals the span of the same call by the steps of OpenTelemetry."""

import asyncio
from contextlib import suppress
from typing import Any

import httpx2
import pytest
from chassis.client import service_client
from chassis.telemetry import trace_context
from chassis.telemetry.finished_spans import FinishedSpans
from chassis.telemetry.setup import Telemetry
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ANSWERS = [
    httpx2.Response(200),
    httpx2.Response(404),
    httpx2.Response(503),
    httpx2.ConnectError("refused"),
    ValueError("a mistake"),
    asyncio.CancelledError(),
]


async def call(monkeypatch: pytest.MonkeyPatch, answer: Any, *, in_one_step: bool, flags: str) -> dict[str, Any]:
    """Call another service inside of a request. Return the span and the headers without the values that always differ."""
    spans = InMemorySpanExporter()
    telemetry = Telemetry(
        Resource({"service.name": "tiny"}),
        sampler=ParentBased(ALWAYS_OFF),
        span_processors=[SimpleSpanProcessor(spans)],
        metric_readers=[],
    )
    monkeypatch.setattr("chassis.client.trace.get_tracer", lambda _: telemetry.tracer)
    monkeypatch.setattr(FinishedSpans, "installed", telemetry._finished if in_one_step else None)
    sent: list[httpx2.Request] = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        if isinstance(answer, BaseException):
            raise answer
        return httpx2.Response(answer.status_code)

    caller = trace_context.extract({"traceparent": f"00-{TRACE}-{CALLER}-{flags}", "tracestate": "ours=1,theirs=2"})
    with telemetry.tracer.start_as_current_span("request", caller) as request:
        async with service_client("http://customers:8000", transport=httpx2.MockTransport(respond)) as client:
            with suppress(type(answer) if isinstance(answer, BaseException) else OSError):
                await client.get("/v1/customers/7?token=secret", headers={"tracestate": "of=another-span"})
        above = request.get_span_context()
    (head,) = [each.headers for each in sent]
    _, trace_id, span_id, sampled = head["traceparent"].split("-")
    found = [span for span in spans.get_finished_spans() if span.kind is trace.SpanKind.CLIENT]
    for span in found:
        assert span.parent is not None
        assert span.parent.span_id == above.span_id
        assert f"{span.context.span_id:016x}" == span_id
        assert (span.end_time or 0) >= (span.start_time or 0) > 10**18
    return {
        "headers": (trace_id, sampled, head["tracestate"], span_id != f"{above.span_id:016x}"),
        "spans": [
            (
                span.name,
                span.context.trace_id,
                span.context.trace_state,
                dict(span.attributes or {}),
                (span.status.status_code, span.status.description),
                [(event.name, dict(event.attributes or {}).keys()) for event in span.events],
                [event.attributes and event.attributes["exception.type"] for event in span.events],
                [event.attributes and event.attributes["exception.message"] for event in span.events],
                span.resource,
                span.instrumentation_scope and span.instrumentation_scope.name,
            )
            for span in found
        ],
    }


@pytest.mark.parametrize("answer", ANSWERS, ids=repr)
async def test_a_span_in_one_step_equals_the_span_of_opentelemetry(
    monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    made = [await call(monkeypatch, answer, in_one_step=each, flags="01") for each in (True, False)]
    assert made[0] == made[1]
    assert len(made[0]["spans"]) == 1
    assert made[0]["headers"] == (TRACE, "01", "ours=1,theirs=2", True)


async def test_a_trace_that_is_not_sampled_goes_along_without_a_span(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [await call(monkeypatch, httpx2.Response(200), in_one_step=each, flags="00") for each in (True, False)]
    assert made[0] == made[1]
    assert made[0]["spans"] == []
    assert made[0]["headers"][:3] == (TRACE, "00", "ours=1,theirs=2")
