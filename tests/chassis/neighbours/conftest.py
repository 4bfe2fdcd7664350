"""Repetitions without pauses, and the measurements of calls."""

from collections.abc import Callable, Generator
from typing import Any

import pytest
import stamina
from chassis.neighbours import client, transport
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader


@pytest.fixture(autouse=True)
def no_pauses() -> Generator[None]:
    """Repeat without a pause. Retry-After is computed all the same."""
    with stamina.set_testing(True, attempts=100):
        yield


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, list[tuple[dict[str, Any], float]]]]:
    """`measured()`: the points of each metric, with their attributes and sums, of the clients that the test makes."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    for module in (client, transport):
        monkeypatch.setattr(module.metrics, "get_meter", provider.get_meter)

    def points() -> dict[str, list[tuple[dict[str, Any], float]]]:
        found: Any = reader.get_metrics_data()
        if found is None:
            return {}
        metrics = [one for part in found.resource_metrics for scope in part.scope_metrics for one in scope.metrics]
        return {
            one.name: [
                (dict(point.attributes), getattr(point, "value", getattr(point, "count", 0)))
                for point in one.data.data_points
            ]
            for one in metrics
        }

    return points
