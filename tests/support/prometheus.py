"""The series that Prometheus makes from OTLP metrics, and the series that a query needs.

Names follow OpenTelemetry's "Prometheus and OpenMetrics Compatibility", as Prometheus' own OTLP receiver does by
default (UnderscoreEscapingWithSuffixes). Prometheus 3.16 stored the same series, name by name and label by label, when
it was sent the metrics that tests/service/test_observability.py collects. No registry has its binary, so the comparison
is not repeated here.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser as promql
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from tests.support.otlp import OtlpReceiver

UNITS = {"s": "seconds", "ms": "milliseconds", "By": "bytes", "%": "percent"}


@dataclass(frozen=True)
class Series:
    name: str
    labels: tuple[tuple[str, str], ...]

    @property
    def label(self) -> dict[str, str]:
        return dict(self.labels)


class MetricsReceiver(OtlpReceiver):
    """Store metrics with their attributes, as the series that Prometheus would store."""

    def __init__(self) -> None:
        super().__init__()
        self.series: set[Series] = set()

    def take(self, path: str, body: bytes) -> None:
        super().take(path, body)
        if path == "/v1/metrics":
            self.series |= set(translated(ExportMetricsServiceRequest.FromString(body)))


def translated(request: ExportMetricsServiceRequest) -> Iterator[Series]:
    for batch in request.resource_metrics:
        resource = _labels(batch.resource.attributes)
        of_resource = {
            "job": "/".join(filter(None, [resource.get("service_namespace"), resource["service_name"]])),
            "instance": resource["service_instance_id"],
        }
        for scope in batch.scope_metrics:
            for metric in scope.metrics:
                for suffix, labels in _points(metric):
                    yield Series(_name(metric) + suffix, tuple(sorted({**of_resource, **labels}.items())))


def _name(metric: Metric) -> str:
    words = [_plain(metric.name)]
    # {message} and the like are an annotation for the counted thing, and not a unit.
    unit = re.sub(r"\{.*?\}", "", metric.unit)
    if unit == "1":
        words += ["ratio"] if metric.WhichOneof("data") == "gauge" else []
    elif unit:
        words.append(UNITS[unit])
    if metric.WhichOneof("data") == "sum" and metric.sum.is_monotonic:
        words.append("total")
    return "_".join(words)


def _points(metric: Metric) -> Iterator[tuple[str, dict[str, str]]]:
    match metric.WhichOneof("data"):
        case "histogram":
            for point in metric.histogram.data_points:
                labels = _labels(point.attributes)
                yield "_count", labels
                yield "_sum", labels
                for bound in [*point.explicit_bounds, float("inf")]:
                    yield "_bucket", {**labels, "le": "+Inf" if bound == float("inf") else f"{bound:g}"}
        case kind:
            for point in getattr(metric, kind).data_points:
                yield "", _labels(point.attributes)


def _labels(attributes: Iterable[KeyValue]) -> dict[str, str]:
    return {_plain(pair.key): _text(pair.value) for pair in attributes}


def _text(value: Any) -> str:
    found = getattr(value, value.WhichOneof("value"))
    return str(found).lower() if isinstance(found, bool) else str(found)


def _plain(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_:]", "_", name)


# --- queries --------------------------------------------------------------------------------------------------------


def problems(query: str, series: set[Series]) -> list[str]:
    """Find the series that the query needs and no process exports. Raises ValueError for invalid PromQL."""
    found: list[str] = []

    def look(node: promql.Expr) -> None:
        if isinstance(node, promql.VectorSelector) and not _chosen(node, series):
            found.append(f"{node} is not exported")
        elif isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            exported = {label for one in _below(node.expr, series) for label in one.label}
            found.extend(f"no label {label} is exported" for label in node.modifier.labels if label not in exported)

    promql.walk(promql.parse(query), look)
    return found


def _below(expression: promql.Expr, series: set[Series]) -> list[Series]:
    """Return the series that the selectors of the expression choose."""
    chosen: list[Series] = []

    def look(node: promql.Expr) -> None:
        if isinstance(node, promql.VectorSelector):
            chosen.extend(_chosen(node, series))

    promql.walk(expression, look)
    return chosen


def _chosen(selector: promql.VectorSelector, series: set[Series]) -> list[Series]:
    matchers = selector.matchers.matchers
    return [
        one
        for one in series
        if one.name == selector.name and all(_fits(it, one.label.get(it.name, "")) for it in matchers)
    ]


def _fits(matcher: promql.Matcher, value: str) -> bool:
    match matcher.op:
        case promql.MatchOp.Equal:
            return value == matcher.value
        case promql.MatchOp.NotEqual:
            return value != matcher.value
        case promql.MatchOp.Re:
            return re.fullmatch(matcher.value, value) is not None
        case _:
            return re.fullmatch(matcher.value, value) is None
