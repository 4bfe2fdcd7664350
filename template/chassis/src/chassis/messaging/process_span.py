"""The span and the measured duration of processing one message."""

import time

from opentelemetry import context, trace
from opentelemetry.metrics import Histogram
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from chassis.brokers import Message


class ProcessSpan:
    """A context in which one message is processed. Code that runs inside belongs to the sender's trace."""

    def __init__(
        self,
        tracer: trace.Tracer,
        duration: Histogram,
        system: str,
        message: Message,
        *,
        parent: context.Context,
        recorded: bool,
    ) -> None:
        """`parent` is the sender's span, and `recorded` is whether to record a span below that span."""
        self._tracer = tracer
        self._duration = duration
        self._attributes = {"messaging.system": system, "messaging.destination.name": message.name}
        self._message = message
        self._parent = parent
        self._recorded = recorded
        self._span: Span | None = None

    def __enter__(self) -> None:
        current = self._parent
        if self._recorded:
            self._span = self._tracer.start_span(
                f"process {self._message.name}",
                context=self._parent,
                kind=SpanKind.CONSUMER,
                attributes={
                    **self._attributes,
                    "messaging.operation.name": "process",
                    "messaging.operation.type": "process",
                    "messaging.message.id": self._message.id,
                },
            )
            current = trace.set_span_in_context(self._span, self._parent)
        self._token = context.attach(current)
        self._started = time.perf_counter()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        attributes = self._attributes
        if error is not None:
            attributes = {**attributes, "error.type": type(error).__name__}
            if self._span is not None:
                self._span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        self._duration.record(time.perf_counter() - self._started, attributes)
        if self._span is not None:
            self._span.end()
        context.detach(self._token)
