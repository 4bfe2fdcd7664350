"""Durations arrive in seconds, in the buckets that the semantic conventions advise."""

from chassis.telemetry.durations import BUCKETS_SECONDS, duration_histogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader


def test_a_duration_is_counted_in_its_bucket() -> None:
    reader = InMemoryMetricReader()
    histogram = duration_histogram(MeterProvider([reader]).get_meter("x"), "took", "How long.")
    for seconds in (0.004, 0.3, 0.3, 11):
        histogram.record(seconds, {"http.request.method": "GET"})

    data = reader.get_metrics_data()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    (point,) = metric.data.data_points
    assert (metric.name, metric.unit, point.explicit_bounds) == ("took", "s", BUCKETS_SECONDS)
    counts = dict(zip((*BUCKETS_SECONDS, float("inf")), point.bucket_counts, strict=True))
    assert {bound: count for bound, count in counts.items() if count} == {0.005: 1, 0.5: 2, float("inf"): 1}
