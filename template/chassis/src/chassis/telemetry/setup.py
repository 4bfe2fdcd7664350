"""OpenTelemetry traces and metrics over OTLP/HTTP: by default one span per request and one per SQL statement."""

import random
import threading
import time
import uuid
from functools import lru_cache
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, Tracer, TracerProvider
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from chassis.service import Service
from chassis.settings import Settings
from chassis.telemetry.finished_spans import FINE, IDS, SCOPE, FinishedSpans, child_of
from chassis.telemetry.request_span import RequestSpan

EXPORT_TIMEOUT_SECONDS = 3
MAX_QUEUED_SPANS = 4096
"""The most spans that wait for the receiver. Further spans are dropped, so that they do not fill the memory."""


class FollowCallers(Sampler):
    """Trace requests whose caller traces them, up to `per_second`, and a share of all other requests.

    The bound is for requests, because any client may send a sampled `traceparent`. Messages have no bound, because only
    services send them.
    """

    def __init__(self, per_second: int, ratio: float) -> None:
        self._per_second, self._ratio = per_second, ratio
        self._second, self._followed = 0, 0

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        *more: Any,
        **rest: Any,
    ) -> SamplingResult:
        # Chance decides, and not the trace id as in TraceIdRatioBased, because the caller chooses the id.
        traced = kind is not SpanKind.SERVER or self._follows() or random.random() < self._ratio  # noqa: S311
        sampler = ALWAYS_ON if traced else ALWAYS_OFF
        return sampler.should_sample(parent_context, trace_id, name, kind, *more, **rest)

    def _follows(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._followed = second, 0
        self._followed += 1
        return self._followed <= self._per_second

    def get_description(self) -> str:
        return f"FollowCallers{{{self._per_second},{self._ratio}}}"


class Provider(TracerProvider):
    """The provider of spans."""

    is_extended = False
    """Whether the service has added a processor, which may want to see a span at its start."""

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        super().add_span_processor(span_processor)
        self.is_extended = True


class Telemetry:
    """The tracer and the meter of one process.

    Only `install_globally` touches OpenTelemetry's global providers.
    """

    def __init__(
        self,
        resource: Resource,
        *,
        sampler: Sampler,
        span_processors: list[SpanProcessor],
        metric_readers: list[MetricReader],
    ) -> None:
        self._tracing = Provider(resource=resource, sampler=sampler, shutdown_on_exit=False)
        self._finished = FinishedSpans(resource, span_processors)
        for processor in span_processors:
            self._tracing.add_span_processor(processor)
        self._tracing.is_extended = False
        self._sampler = sampler
        self._metering = MeterProvider(resource=resource, metric_readers=metric_readers, shutdown_on_exit=False)
        self.tracer = self._tracing.get_tracer(SCOPE.name)
        self.meter = self._metering.get_meter("chassis")

    def install_globally(self) -> None:
        """Make `trace.get_tracer(…)` in the service's code produce spans. Only the first call has an effect."""
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(self._tracing)
            FinishedSpans.installed = self._finished
            metrics.set_meter_provider(self._metering)

    def shutdown(self) -> None:
        """Send the queued spans and measurements, for at most EXPORT_TIMEOUT_SECONDS. The rest is lost."""
        # To a dead receiver, the SDK would send batch after batch for 30 s, so it runs in threads that can be abandoned.
        closing = [threading.Thread(target=part.shutdown, daemon=True) for part in (self._tracing, self._metering)]
        deadline = time.monotonic() + EXPORT_TIMEOUT_SECONDS
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join(max(0, deadline - time.monotonic()))

    def start_request(self, name: str, parent: Context) -> trace.Span:
        """Start the span of a request, which `request_span.complete` ends."""
        if self._tracing.is_extended or not isinstance(self.tracer, Tracer):  # another class if the SDK is switched off
            return self.tracer.start_span(name, parent, SpanKind.SERVER)
        caller = trace.get_current_span(parent).get_span_context()
        trace_id = caller.trace_id if caller.is_valid else IDS.generate_trace_id()
        sampled = self._sampler.should_sample(parent, trace_id, name, SpanKind.SERVER)
        flags = caller.trace_flags & TraceFlags.RANDOM_TRACE_ID if caller.is_valid else TraceFlags.RANDOM_TRACE_ID
        if sampled.decision.is_sampled():
            flags |= TraceFlags.SAMPLED
        context = SpanContext(trace_id, IDS.generate_span_id(), False, TraceFlags(flags), sampled.trace_state)
        if not sampled.decision.is_recording():
            return trace.NonRecordingSpan(context)
        return RequestSpan(name, context, caller if caller.is_valid else None, self._finished)

    def observe_statement(self, query: str, started: int, error: BaseException | None) -> None:
        """Record an SQL statement that ends now as a child of the current span: the `observe` of chassis.database."""
        if query.startswith("BEGIN"):
            return
        parent = trace.get_current_span().get_span_context()
        if not parent.trace_flags.sampled:
            return
        summary = summarise(query)
        self._finished.add(
            summary,
            child_of(parent),
            parent,
            attributes={"db.system.name": "postgresql", "db.query.summary": summary, "db.query.text": query},
            started=started,
            status=FINE if error is None else Status(StatusCode.ERROR, type(error).__name__),
        )


def sampler_of(settings: Settings) -> Sampler:
    """Make the sampler of a process that exports spans."""
    ratio = settings.trace_sample_ratio
    followed = FollowCallers(settings.trace_callers_per_second, ratio)
    return ParentBased(TraceIdRatioBased(ratio), remote_parent_sampled=followed)


def from_settings(service: Service, settings: Settings) -> Telemetry:
    """Export to the settings' OTLP endpoint. Without an endpoint no span is recorded, but trace ids are passed on."""
    # Resource.create() is not used, because its detectors scan every installed package's entry points at each start.
    given = OTELResourceDetector().detect()
    resource = given.merge(
        Resource(
            {
                "service.name": service.name,
                "service.namespace": service.domain,
                "service.version": settings.service_version,
                # A name from the environment identifies the replica across restarts of the process.
                "service.instance.id": given.attributes.get("service.instance.id") or str(uuid.uuid4()),
                "telemetry.sdk.language": "python",
                "telemetry.sdk.name": "opentelemetry",
            }
        )
    )
    if settings.otel_exporter_otlp_endpoint is None:
        # ParentBased: if our caller samples a trace, it stays sampled for the services that we call.
        return Telemetry(resource, sampler=ParentBased(ALWAYS_OFF), span_processors=[], metric_readers=[])

    # Imported here, because the exporter loads an HTTP client, which a process without an endpoint does not need.
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from chassis.telemetry.otlp import SpanExporter

    endpoint = str(settings.otel_exporter_otlp_endpoint).rstrip("/")
    spans = SpanExporter(endpoint=f"{endpoint}/v1/traces", timeout=EXPORT_TIMEOUT_SECONDS)
    measurements = OTLPMetricExporter(endpoint=f"{endpoint}/v1/metrics", timeout=EXPORT_TIMEOUT_SECONDS)
    return Telemetry(
        resource,
        sampler=sampler_of(settings),
        span_processors=[
            BatchSpanProcessor(
                spans,
                max_queue_size=MAX_QUEUED_SPANS,
                # To send a batch costs as much CPU as the encoding of 170 spans.
                max_export_batch_size=MAX_QUEUED_SPANS // 4,
                schedule_delay_millis=1000,
            )
        ],
        metric_readers=[
            PeriodicExportingMetricReader(measurements, export_timeout_millis=EXPORT_TIMEOUT_SECONDS * 1000)
        ],
    )


def current_trace_id() -> str | None:
    """Return the id of the current trace in hex, or None outside of a trace."""
    context = trace.get_current_span().get_span_context()
    return format(context.trace_id, "032x") if context.is_valid else None


@lru_cache(maxsize=1024)
def summarise(query: str) -> str:
    """Name a statement by its verb and first table (`SELECT billing.invoices`), as the semantic conventions do."""
    words = query.split() or [""]
    verb = words[0].rstrip(";").upper()
    target = next((words[i + 1] for i, word in enumerate(words[:-1]) if word.upper() in {"FROM", "INTO", "UPDATE"}), "")
    return f"{verb} {target.partition('(')[0].rstrip(';,')}".strip()
