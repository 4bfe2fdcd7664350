"""Durations arrive as from the SDK's own `Histogram.record`, in every reader and temporality."""

from typing import Any

import pytest
from chassis.telemetry.durations import BUCKETS_SECONDS, Durations
from opentelemetry import context, trace
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

METHODS = [
    {"http.request.method": "GET", "http.response.status_code": 200, "http.route": "/v1/things"},
    {"http.request.method": "GET", "http.response.status_code": 404},
    {"http.request.method": "POST", "http.response.status_code": 201, "http.route": "/v1/things"},
]
SECONDS = [0.0, 0.004, 0.005, 0.0051, 0.3, 0.3, 11.0]
SAMPLED = trace.set_span_in_context(NonRecordingSpan(SpanContext(7, 8, is_remote=False, trace_flags=TraceFlags(1))))
NOT_SAMPLED = trace.set_span_in_context(NonRecordingSpan(SpanContext(7, 9, is_remote=False)))


def reader(temporality: AggregationTemporality) -> InMemoryMetricReader:
    return InMemoryMetricReader(preferred_temporality={Histogram: temporality})


def shown(reader: InMemoryMetricReader) -> list[Any]:
    """Return everything that differs between two measurements, without the time."""
    data = reader.get_metrics_data()
    if data is None:
        return []
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    return [
        metric.name,
        metric.unit,
        metric.description,
        metric.data.aggregation_temporality,
        [
            (
                sorted(point.attributes.items()),
                (point.count, point.sum, point.min, point.max, point.bucket_counts, point.explicit_bounds),
                [(one.filtered_attributes, one.value, one.trace_id, one.span_id) for one in point.exemplars],
            )
            for point in metric.data.data_points
        ],
    ]


@pytest.mark.parametrize("temporality", [AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA])
def test_durations_equal_the_durations_of_the_sdk(temporality: AggregationTemporality) -> None:
    ours, theirs, second = reader(temporality), reader(temporality), reader(AggregationTemporality.CUMULATIVE)
    durations = Durations(MeterProvider([ours, second]).get_meter("x"), "took", "How long.")
    histogram = (
        MeterProvider([theirs])
        .get_meter("x")
        .create_histogram("took", "s", "How long.", explicit_bucket_boundaries_advisory=BUCKETS_SECONDS)
    )
    taken = 0
    for sampled in (SAMPLED, NOT_SAMPLED, SAMPLED):
        for number, seconds in enumerate(SECONDS):
            token = context.attach(sampled)
            durations.record(seconds, dict(METHODS[number % 3]))
            histogram.record(seconds, dict(METHODS[number % 3]))
            context.detach(token)
            taken += 1

        found = shown(ours)
        assert found == shown(theirs)
        assert len(found[-1]) == 3
    assert sum(counts[0] for _, counts, _ in shown(second)[-1]) == taken


def test_many_sets_of_attributes_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chassis.telemetry.durations.KEPT_SETS", 5)
    ours = reader(AggregationTemporality.CUMULATIVE)
    durations = Durations(MeterProvider([ours]).get_meter("x"), "took", "How long.")
    for number in range(20):
        durations.record(1, {"http.response.status_code": number})

    assert len(durations._kept) == 5
    assert [counts[0] for _, counts, _ in shown(ours)[-1]] == [1] * 20


def test_without_an_sdk_nothing_is_recorded_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    ours = reader(AggregationTemporality.CUMULATIVE)
    Durations(MeterProvider([ours]).get_meter("x"), "took", "How long.").record(1, {})

    assert shown(ours) == []
