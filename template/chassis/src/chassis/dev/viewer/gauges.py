"""The newest values of the gauges that services send as metrics: the outbox, and parked messages."""

import math
import threading
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from chassis.dev.viewer.otlp import MAX_NAME, mapping

SHOWN = {
    "messaging.outbox.messages": "waiting",
    "messaging.outbox.oldest.age": "oldest_seconds",
    "messaging.parked.messages": "parked",
}
MOST_SERVICES = 100


class Gauges:
    """Keeps one value for each service and gauge."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[str, dict[str, float]] = {}

    def add(self, body: bytes) -> bool:
        """Keep the newest values of an export request, and return whether a value is new. Raises DecodeError."""
        before = self.newest()
        for batch in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            service = str(mapping(batch.resource.attributes).get("service.name", ""))[:MAX_NAME]
            values = {
                SHOWN[metric.name]: point.as_int if point.HasField("as_int") else round(point.as_double, 1)
                for scope in batch.scope_metrics
                for metric in scope.metrics
                if metric.name in SHOWN
                for point in metric.gauge.data_points
                if math.isfinite(point.as_double)
            }
            with self._lock:
                if values and (service in self._newest or len(self._newest) < MOST_SERVICES):
                    self._newest[service] = self._newest.get(service, {}) | values
        return self.newest() != before

    def newest(self) -> dict[str, Any]:
        with self._lock:
            return dict(self._newest)
