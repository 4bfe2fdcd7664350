"""The span of a request: built in one step at its end, unless the code of the service adds to it."""

import threading
import time
from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import Span, SpanLimits
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode

from chassis.telemetry.finished_spans import FAILED, FINE, SCOPE, FinishedSpans

_LIMITS = SpanLimits()
_CHANGING = threading.RLock()
"""Held while a span is extended or completed, so that threads of one request extend its span once."""


class _ExtendedSpan(Span):
    """A span of the SDK, for ids that exist already: a tracer would make ids of its own."""


class RequestSpan(trace.Span):
    """The current span of a request.

    The SDK cleans, locks and copies each attribute of its spans, which takes a twelfth of a small request. Most requests
    need none of that, because only the chassis describes them. The first call that adds to this span makes a span of the SDK.
    """

    def __init__(self, name: str, context: SpanContext, parent: SpanContext | None, finished: FinishedSpans) -> None:
        self._name, self._context, self._parent, self._finished = name, context, parent, finished
        self._started = time.time_ns()
        self._extended: trace.Span | None = None

    def get_span_context(self) -> SpanContext:
        return self._context

    def __getattr__(self, name: str) -> Any:
        """Let code read what a span of the SDK has beyond the methods of OpenTelemetry: name, attributes, parent, times."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._extend(), name)

    def is_recording(self) -> bool:
        return self._extended is None or self._extended.is_recording()

    def complete(self, name: str, attributes: Mapping[str, str | int], *, failed: bool) -> None:
        """Name, describe and end the span. The attributes are texts and numbers that need no cleaning."""
        with _CHANGING:
            extended, self._extended = self._extended, self._extended or trace.NonRecordingSpan(self._context)
        if extended is not None:
            complete(extended, name, attributes, failed=failed)
            return
        self._finished.add(
            name,
            self._context,
            self._parent,
            attributes=attributes,
            started=self._started,
            kind=SpanKind.SERVER,
            status=FAILED if failed else FINE,
        )

    def _extend(self) -> trace.Span:
        with _CHANGING:
            if self._extended is None:
                self._extended = _ExtendedSpan(
                    self._name,
                    self._context,
                    self._parent,
                    resource=self._finished.resource,
                    kind=SpanKind.SERVER,
                    span_processor=self._finished,
                    limits=_LIMITS,
                    instrumentation_scope=SCOPE,
                )
                self._extended.start(self._started)
            return self._extended

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        self._extend().set_attributes(attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        self._extend().set_attribute(key, value)

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        self._extend().add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Any = None) -> None:
        self._extend().add_link(context, attributes)

    def update_name(self, name: str) -> None:
        self._extend().update_name(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        self._extend().set_status(status, description)

    def record_exception(
        self, exception: BaseException, attributes: Any = None, timestamp: int | None = None, escaped: bool = False
    ) -> None:
        self._extend().record_exception(exception, attributes, timestamp, escaped)

    def end(self, end_time: int | None = None) -> None:
        self._extend().end(end_time)


def complete(span: trace.Span, name: str, attributes: Mapping[str, str | int], *, failed: bool) -> None:
    """Name, describe and end the span of a request."""
    if isinstance(span, RequestSpan):
        span.complete(name, attributes, failed=failed)
        return
    if span.is_recording():
        span.update_name(name)
        span.set_attributes(attributes)
        if failed:
            span.set_status(FAILED)
    span.end()
