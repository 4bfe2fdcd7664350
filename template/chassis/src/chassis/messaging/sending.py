"""Send one row of the outbox: the message and the span of a row."""

from collections.abc import Awaitable, Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from chassis.brokers import REPUBLISHED, SAGA, SUBJECT, Broker, Kind, Message
from chassis.telemetry import trace_context
from chassis.telemetry.setup import Telemetry

UNRECORDED = ("-00", "-02")
"""The ends of a traceparent whose trace was not sampled (W3C Trace Context). Such a header is passed on unchanged: to make an
unrecorded span, and write its id into the header, would take a fifth of the cost of sending."""


class Sender:
    def __init__(self, broker: Broker, telemetry: Telemetry) -> None:
        self._broker = broker
        self._tracer = telemetry.tracer

    def send(self, row: Any) -> Awaitable[None]:
        """Send the row, in the trace that the row belongs to. Await the result, as for `Broker.publish`."""
        stored = trace_of(row)
        if stored.get("traceparent", "").endswith(UNRECORDED):
            return self._broker.publish(message_of(row, stored))
        return self._send_in_span(row, stored)

    async def _send_in_span(self, row: Any, stored: Mapping[str, str]) -> None:
        name, parent = row["type"], trace_context.extract(stored)
        span = self._tracer.start_span(f"send {name}", context=parent, kind=SpanKind.PRODUCER)
        if span.is_recording():
            span.set_attributes(
                {
                    **self.measured(name),
                    "messaging.operation.name": "send",
                    "messaging.operation.type": "send",
                    "messaging.message.id": row["id"],
                }
            )
        carrier: dict[str, str] = {}
        trace_context.inject(carrier, trace.set_span_in_context(span, parent))
        try:
            await self._broker.publish(message_of(row, carrier))
        except Exception as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            span.end()

    def measured(self, name: str) -> dict[str, str]:
        """Return the attributes of metrics and spans about a destination."""
        return {"messaging.system": self._broker.system, "messaging.destination.name": name}


def trace_of(row: Any) -> dict[str, str]:
    return {name: row[name] for name in ("traceparent", "tracestate") if row[name] is not None}


def message_of(row: Any, headers: dict[str, str]) -> Message:
    headers = {"content-type": row["content_type"], **headers}
    if row["republished"]:
        headers[REPUBLISHED] = row["republished"]
    if row["subject"]:
        headers[SUBJECT] = row["subject"]
    if row["saga"]:
        headers[SAGA] = row["saga"]
    return Message(
        kind=Kind(row["kind"]),
        name=row["type"],
        id=row["id"],
        key=row["aggregateid"],
        body=row["payload"].encode(),
        headers=headers,
    )
