"""The log lines of messages that were sent or handled. LOG_MESSAGES turns the lines on, as `make dev` does."""

from typing import Any

import structlog
from opentelemetry import context

from chassis.brokers import Message
from chassis.messaging.sending import trace_of
from chassis.telemetry import trace_context

log = structlog.get_logger()


def log_sent(row: Any) -> None:
    """Log that the broker has confirmed the message of this row of the outbox."""
    trace = trace_context.extract(trace_of(row))
    _log("message_sent", trace, name=row["type"], message_id=row["id"], key=row["aggregateid"])


def log_handled(message: Message, trace: context.Context) -> None:
    """Log that the effect of the message was committed. `trace` is the span of the sender."""
    _log("message_handled", trace, name=message.name, message_id=message.id, key=message.key)


def _log(event: str, trace: context.Context, **facts: str) -> None:
    # Log in the trace of the message, because the current span belongs to a batch, or there is no current span.
    token = context.attach(trace)
    try:
        log.info(event, **facts)
    finally:
        context.detach(token)
