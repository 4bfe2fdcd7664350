"""Durations as OpenTelemetry's histograms, in a third of the time of its `Histogram.record` (bench/README.md)."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from opentelemetry import context
from opentelemetry.context import Context
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics._internal._view_instrument_match import _hash_attributes

BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""The buckets that the HTTP semantic conventions recommend."""

KEPT_SETS = 2000
"""The most sets of attributes whose aggregation is kept: the SDK distinguishes as many."""


class _Measured(NamedTuple):
    """The attributes of a measurement that an aggregation reads, in the order of an exemplar filter's arguments."""

    value: float
    time_unix_nano: int
    attributes: Mapping[str, Any]
    context: Context


class Durations:
    """A histogram that looks up the SDK's aggregation only once for each set of attributes.

    The SDK checks, copies and hashes the attributes of every measurement, which takes three quarters of its time.
    """

    def __init__(self, meter: Meter, name: str, description: str) -> None:
        self._histogram = meter.create_histogram(
            name, unit="s", description=description, explicit_bucket_boundaries_advisory=BUCKETS_SECONDS
        )
        # None with OTEL_SDK_DISABLED. The type is Any, because the SDK's inside has no public names.
        self._consumer: Any = getattr(self._histogram, "_measurement_consumer", None)
        self._kept: dict[tuple[tuple[str, str | int], ...], list[Any]] = {}

    def record(self, seconds: float, attributes: Mapping[str, str | int]) -> None:
        """Record one duration. Do not change the attributes afterwards."""
        key = tuple(attributes.items())
        aggregations = self._kept.get(key)
        if aggregations is None:
            aggregations = self._aggregations(attributes) if len(self._kept) < KEPT_SETS else None
            if aggregations is None:
                self._histogram.record(seconds, attributes)
                return
            self._kept[key] = aggregations
        measured = _Measured(seconds, time.time_ns(), attributes, context.get_current())
        is_exemplar = self._consumer._sdk_config.exemplar_filter.should_sample(*measured)
        for aggregation in aggregations:
            aggregation.aggregate(measured, is_exemplar)

    def _aggregations(self, attributes: Mapping[str, str | int]) -> list[Any] | None:
        """Find the aggregation for each reader; None without an SDK, or with aggregations for one collection only."""
        if self._consumer is None:
            return None
        found = []
        for storage in self._consumer._reader_storages.values():
            for match in storage._get_or_init_view_instrument_match(self._histogram):
                if match._reset_on_collect:  # delta temporality: new aggregations after each collection
                    return None
                with match._lock:
                    aggregation = match._get_or_create_aggregation(_hash_attributes(attributes), attributes)
                found.append(aggregation)
        return found
