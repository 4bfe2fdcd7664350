"""Histograms of durations, with the buckets that the semantic conventions of OpenTelemetry advise."""

from opentelemetry.metrics import Histogram, Meter

BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)


def duration_histogram(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(
        name, unit="s", description=description, explicit_bucket_boundaries_advisory=BUCKETS_SECONDS
    )
