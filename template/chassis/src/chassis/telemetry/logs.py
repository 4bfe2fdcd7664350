"""Structured logs on stdout. An event is a fixed noun_verbed string, with facts as keywords and ids from the context.

A log call never raises, for any values, and even if stdout cannot be written.
"""

import inspect
import io
import json
import logging
import math
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, Literal, TextIO

import structlog
from opentelemetry import trace
from structlog.types import EventDict, ExcInfo, Processor, WrappedLogger

from chassis.telemetry.printable import printable_lines

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

copies: list[Callable[[str], None]] = []
"""Functions that get each event as a line of JSON, too, whatever the format on stdout. `make dev` adds its viewer."""


def describe_exception(error: BaseException) -> dict[str, str]:
    """Describe an exception, its causes and its parts by type, message and stack, without the values in them.

    The stack names files and lines, not arguments. Only the first line of a message stays, because Postgres puts the
    offending row into the next lines (`DETAIL: Key (email)=(…) already exists`).
    """
    described = traceback.TracebackException.from_exception(error, capture_locals=False)
    message = _headline(described).partition(": ")[2]
    return {"type": type(error).__qualname__, "message": message, "stack": "\n".join(_stacks(described))}


def _stacks(link: traceback.TracebackException) -> list[str]:
    cause = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    before = _stacks(cause) if cause else []
    parts = [stack for part in link.exceptions or () for stack in _stacks(part)]
    return [*before, "".join(link.stack.format()) + _headline(link), *parts]


def _headline(link: traceback.TracebackException) -> str:
    line = "".join(link.format_exception_only()).partition("\n")[0]
    if line.startswith("asyncpg."):  # the text after a second colon is the value that the statement failed for
        return ": ".join(line.split(": ")[:2])
    return line


def _add_context(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    if current := request_id.get():
        event["request_id"] = current
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format(context.trace_id, "032x")
        event["span_id"] = format(context.span_id, "016x")
    return event


def _add_exception(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["exception"] = describe_exception(error)
    return event


DEEPEST = 20
"""The levels of a nested value that are logged."""


def _to_json(value: Any, above: tuple[int, ...] = ()) -> Any:
    """Convert any value to JSON: cut cycles, and turn other keys, NaN and unknown objects into text."""
    if value is None or isinstance(value, str | bool):
        return value
    if (isinstance(value, float) and math.isfinite(value)) or (isinstance(value, int) and value.bit_length() < 64):
        return value
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        if id(value) in above or len(above) > DEEPEST:
            return "…"
        within = (*above, id(value))
        if isinstance(value, Mapping):
            return {_text(key, str): _to_json(each, within) for key, each in value.items()}
        return [_to_json(each, within) for each in value]
    return _text(value, repr)


def _text(value: Any, convert: Callable[[Any], str]) -> str:
    try:
        return convert(value)
    except Exception as error:
        return f"<{type(value).__qualname__}: {type(error).__qualname__}>"


def _with_fallback(render: Processor) -> Processor:
    """Return a processor that calls `render`, and again with all values converted by `_to_json` if `render` fails."""

    def rendered(logger: WrappedLogger, name: str, event: EventDict) -> Any:
        try:
            return render(logger, name, dict(event))
        except Exception:
            kept = {"exc_info": event["exc_info"]} if "exc_info" in event else {}
            return render(logger, name, {key: _to_json(value) for key, value in event.items()} | kept)

    return rendered


_render_json = _with_fallback(structlog.processors.JSONRenderer(partial(json.dumps, allow_nan=False)))


def _console_renderer() -> Processor:
    """Return a renderer for a terminal. In text of other people it escapes the characters that control a terminal."""

    # Chosen here, because the default is rich if it is installed, which prints every local variable and takes seconds.
    def format_exception(output: TextIO, error: ExcInfo) -> None:
        structlog.dev.plain_traceback(plain := io.StringIO(), error)
        output.write(printable_lines(plain.getvalue()))

    render = structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=format_exception)

    def rendered(logger: WrappedLogger, name: str, event: EventDict) -> Any:
        safe = {key: printable_lines(value) if isinstance(value, str) else value for key, value in event.items()}
        return render(logger, name, safe)

    return rendered


def _copy(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    facts = {key: value for key, value in event.items() if not key.startswith("_")}
    line = str(_render_json(logger, name, _add_exception(logger, name, facts)))
    for copy in copies:
        copy(line)
    return event


def _guard(call: Any) -> Any:
    """Wrap a method of a logger, so that it reports an exception instead of raising it."""

    @wraps(call)
    def logged(*args: Any, **facts: Any) -> Any:
        try:
            return call(*args, **facts)
        except Exception as error:
            return _report_lost(error, *args[1:2])

    @wraps(call)
    async def alogged(*args: Any, **facts: Any) -> None:
        try:
            await call(*args, **facts)
        except Exception as error:
            _report_lost(error, *args[1:2])

    return alogged if inspect.iscoroutinefunction(call) else logged


def _report_lost(error: Exception, event: object = None) -> None:
    line = {"event": "log_line_lost", "level": "error", "lost": _text(event, str), "reason": type(error).__qualname__}
    with suppress(Exception):
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


class _Handler(logging.StreamHandler):
    """Reports a record that cannot be formatted or written. `logging` would print its values to stderr, or raise."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except RecursionError as error:  # the only exception that StreamHandler raises
            _report_lost(error, record.msg)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the name is of `logging`)
        if isinstance(error := sys.exception(), Exception):
            _report_lost(error, record.msg)


class AnswerCut(Exception):
    """The answer fails after a part of it was sent, so the server cuts the connection. The cause is already logged."""


def _is_unlogged(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], AnswerCut))


def configure(*, format: Literal["json", "console"], level: str, service: str) -> None:
    """Send structlog's events, and the events of every library that uses `logging`, to stdout in one format."""

    def add_service(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_context,
        *([_copy] if copies else []),
    ]
    if format == "json":
        shared += [add_service, _add_exception]
        render: Processor = _render_json
    else:
        render = _with_fallback(_console_renderer())
    if isinstance(sys.stdout, io.TextIOWrapper):
        # stdout may be unable to encode a lone surrogate, or an accent in the C locale.
        sys.stdout.reconfigure(errors="backslashreplace")
    logger = structlog.make_filtering_bound_logger(level)
    methods = {name: _guard(method) for name, method in vars(logger).items() if inspect.isfunction(method)}
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=type("Logger", (logger,), methods),
        logger_factory=structlog.PrintLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").addFilter(_is_unlogged)
    # At level info, HTTPX2 logs every URL that it calls, with the query string.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
