"""W3C Trace Context, Level 2: read the trace of a caller or of a message, and pass the trace on."""

import re
from collections.abc import Mapping, MutableMapping

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

MAX_STATE_CHARACTERS = 8192
MAX_STATE_MEMBERS = 32

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[^,]*)?")
_MEMBER = re.compile(r"([a-z0-9][a-z0-9_*/@-]{0,255})=([ -+\--<>-~]{0,255}[!-+\--<>-~])")
_NOTHING = Context()

inject = TraceContextTextMapPropagator().inject


def write(context: SpanContext, headers: MutableMapping[str, str]) -> None:
    """Write the headers that make the span with this context the parent."""
    headers["traceparent"] = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    if context.trace_state:
        headers["tracestate"] = context.trace_state.to_header()


def extract(headers: Mapping[str, str]) -> Context:
    """Make the parent context for a span of ours; an empty context if `traceparent` names no trace.

    A header that was sent more than once has all its values, joined by commas (RFC 9110, section 5.3): two values of
    `traceparent` then name no trace, and two values of `tracestate` are one list.
    """
    match = _PARENT.fullmatch(headers.get("traceparent", "").strip(" \t"))
    if match is None:
        return _NOTHING
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more):
        return _NOTHING
    parent = SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16)),
        trace_state=_State(headers["tracestate"]) if "tracestate" in headers else None,
    )
    return set_span_in_context(NonRecordingSpan(parent), _NOTHING) if parent.is_valid else _NOTHING


def is_recorded(parent: Context) -> bool:
    """Return whether to record a span in this context: always, except in a trace that its sender did not sample."""
    found = get_current_span(parent).get_span_context()
    return found.trace_flags.sampled or not found.is_valid


class _State(TraceState):
    """The members of a `tracestate`: the first of each key, and no member at all if any is malformed.

    OpenTelemetry's own parser drops the whole list if a key occurs twice, and knows only the keys of Level 1.
    """

    def __init__(self, header: str) -> None:
        super().__init__()
        members = [member for each in header.split(",") if (member := each.strip(" \t"))]
        matches = [match for member in members if (match := _MEMBER.fullmatch(member))]
        if len(header) <= MAX_STATE_CHARACTERS and len(matches) == len(members) <= MAX_STATE_MEMBERS:
            for match in matches:
                self._dict.setdefault(*match.groups())
