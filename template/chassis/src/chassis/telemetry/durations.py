"""Durations as OpenTelemetry's histograms, at a third of what its `Histogram.record` takes (bench/README.md)."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from opentelemetry import context
from opentelemetry.context import Context
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics._internal._view_instrument_match import _hash_attributes

BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""As the HTTP semantic conventions advise."""

KEPT_SETS = 2000
"""Of attributes, for which the SDK's aggregation is kept at hand: as many as the SDK tells apart."""


class _Measured(NamedTuple):
    """What an aggregation reads of a measurement, in the order that a filter of exemplars takes it."""

    value: float
    time_unix_nano: int
    attributes: Mapping[str, Any]
    context: Context


class Durations:
    """A histogram whose aggregations, the SDK's own, are looked up once for each set of attributes.

    The SDK checks, copies and hashes the attributes of every measurement: three quarters of its time.
    """

    def __init__(self, meter: Meter, name: str, description: str) -> None:
        self._histogram = meter.create_histogram(
            name, unit="s", description=description, explicit_bucket_boundaries_advisory=BUCKETS_SECONDS
        )
        # None with OTEL_SDK_DISABLED. Any: nothing below it has a public name.
        self._consumer: Any = getattr(self._histogram, "_measurement_consumer", None)
        self._kept: dict[tuple[tuple[str, str | int], ...], list[Any]] = {}

    def record(self, seconds: float, attributes: Mapping[str, str | int]) -> None:
        """Take one in. The attributes are not for changing afterwards."""
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
        """One for each reader; None where they do not last, or where there is no SDK."""
        if self._consumer is None:
            return None
        found = []
        for storage in self._consumer._reader_storages.values():
            for match in storage._get_or_init_view_instrument_match(self._histogram):
                if match._reset_on_collect:  # it makes new ones after each collection, as for delta temporality
                    return None
                with match._lock:
                    aggregation = match._get_or_create_aggregation(_hash_attributes(attributes), attributes)
                found.append(aggregation)
        return found
