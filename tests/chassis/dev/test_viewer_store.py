"""The viewer keeps the newest spans and log lines, finds them, and does the same work for each batch."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from chassis.dev.viewer import log_lines, otlp, store
from chassis.dev.viewer.store import Store

from tests.chassis.dev.sent_spans import MIDNIGHT, TRACE, export, span


@pytest.fixture
def kept(tmp_path: Path) -> Generator[Store]:
    opened = Store(tmp_path / "viewer.db", max_spans=100, max_lines=100)
    yield opened
    opened.close()


def add(kept: Store, *sent: Any, service: str = "billing") -> None:
    kept.add_spans([each for _, spans in otlp.batches(export(sent, service)) for each in spans])


def log(kept: Store, *lines: dict[str, Any] | bytes) -> None:
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    kept.add_lines([log_lines.read(line, "billing") for line in raw])


def names(found: dict[str, Any]) -> list[str]:
    return [trace["name"] for trace in found["traces"]]


def trace_id(number: int) -> str:
    return f"{number:032x}"


def test_a_trace_is_named_by_its_root_in_any_order_of_arrival(kept: Store) -> None:
    add(kept, span(3, parent=2, name="SELECT"))
    add(kept, span(2, parent=1, name="later"), span(4, parent=1, name="handled", failed=True))
    (trace,) = kept.traces()["traces"]
    assert (trace["name"], trace["spans"], trace["failed"]) == ("later", 3, True)
    add(kept, span(9, name="POST /x", http__response__status_code=201, url__path="/x"))
    add(kept, span(1, parent=77, name="earlier, but not the root"))
    (trace,) = kept.traces()["traces"]
    assert (trace["name"], trace["status"], trace["path"], trace["spans"]) == ("POST /x", 201, "/x", 5)
    assert trace["start"] == "2027-01-15T08:00:00.009000000Z"
    assert trace["duration"] == 10**6


def test_a_batch_that_an_exporter_sends_again_counts_once(kept: Store) -> None:
    for _ in range(2):
        add(kept, span(1), span(2, parent=1))
    assert kept.traces()["traces"][0]["spans"] == 2
    assert len(kept.entries(TRACE)) == 2


def test_traces_are_found_by_each_filter(kept: Store) -> None:
    add(kept, span(1, trace=trace_id(1), name="GET /a", http__response__status_code=200, url__path="/a?100%"))
    add(kept, span(2, trace=trace_id(2), name="GET /b", http__response__status_code=404))
    slow = span(3, trace=trace_id(3), name="POST /b", http__response__status_code=500, failed=True)
    slow.end_time_unix_nano += 10**9
    add(kept, slow, service="shipping")
    assert names(kept.traces()) == ["POST /b", "GET /b", "GET /a"]
    assert names(kept.traces(text="/B")) == ["POST /b", "GET /b"]
    assert names(kept.traces(text="100%")) == ["GET /a"]
    assert names(kept.traces(text="%")) == ["GET /a"]
    assert names(kept.traces(text=trace_id(2))) == ["GET /b"]
    assert names(kept.traces(status="4")) == ["GET /b"]
    assert names(kept.traces(status="5*' OR 1")) == []
    assert names(kept.traces(service="shipping")) == ["POST /b"]
    assert names(kept.traces(at_least=10**9)) == ["POST /b"]
    assert names(kept.traces(failed=True)) == ["POST /b"]
    assert kept.traces(text="/b")["count"] == 2


def test_a_trace_through_several_services_is_found_by_each_service(kept: Store) -> None:
    add(kept, span(1, name="POST /orders"), service="orders")
    add(kept, span(2, parent=1, failed=True), span(3, parent=1), service="payments")
    (trace,) = kept.traces(service="payments")["traces"]
    assert (trace["name"], trace["service"]) == ("POST /orders", "orders")
    assert trace["services"] == [["payments", 2, 1], ["orders", 1, 0]]
    assert kept.traces(service="billing")["count"] == 0
    log(kept, {"event": "mail_sent", "service": "mail"}, {"event": "mail_lost", "service": "mail", "level": "error"})
    assert kept.services() == ["mail", "orders", "payments"]
    assert [line["event"] for line in kept.lines(service="mail", level="error")] == ["mail_lost"]


def test_the_names_of_services_are_bounded(kept: Store) -> None:
    for number in range(store.MOST_SERVICES + 50):
        add(kept, span(1, trace=trace_id(1)), service=f"service-{number}")
        log(kept, {"event": "x", "service": f"logging-{number}"})
    assert len(kept.services()) <= store.MOST_SERVICES + 1


def test_the_oldest_traces_make_room(kept: Store) -> None:
    for number in range(1, 61):
        add(kept, span(2 * number, trace=trace_id(number)), span(2 * number + 1, trace=trace_id(number)))
        assert sum(trace["spans"] for trace in kept.traces()["traces"]) <= 100
    oldest = kept.traces()["traces"][-1]["id"]
    assert int(oldest, 16) > 10
    assert kept.traces()["count"] >= 45
    assert kept.entries(trace_id(1)) == []
    assert kept.trace_of(trace_id(1)) is None
    for table in ("span", "hop", "part"):
        assert kept._all(f"SELECT count(DISTINCT trace) FROM {table}")[0][0] == kept.traces()["count"]


def test_large_spans_make_room_earlier(kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_BYTES", 50_000)
    for number in range(1, 11):
        add(kept, span(number, trace=trace_id(number), text="x" * 10_000))
    assert 3 <= kept.traces()["count"] <= 4


def test_the_oldest_lines_make_room(kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(250):
        log(kept, {"event": f"line_{number}"})
    found = [line["event"] for line in kept.lines()]
    assert 95 <= len(found) <= 100
    assert found[0] == "line_249"
    monkeypatch.setattr(store, "MAX_BYTES", 50_000)
    for number in range(20):
        log(kept, {"event": f"large_{number}", "text": "x" * 5_000})
    found = [line["event"] for line in kept.lines()]
    assert found[0] == "large_19"
    assert len(found) < 10


def test_one_more_span_takes_the_same_work_in_a_large_trace(tmp_path: Path) -> None:
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    opened = Store(tmp_path / "viewer.db")
    work = []
    opened._database.set_progress_handler(count, 10)
    for number in range(1, 2001, 200):
        steps = 0
        for each in range(number, number + 200):
            add(opened, span(each, parent=each // 2))
        work.append(steps)
    opened.close()
    assert work[-1] < 1.5 * work[1]


LINE = {
    "event": "payment_refused",
    "level": "warning",
    "timestamp": "2027-01-15T08:00:00.123456Z",
    "trace_id": TRACE,
    "span_id": f"{1:016x}",
    "request_id": "my-request",
    "amount": 12,
    "reason": "größer",
}


def test_a_line_stands_below_its_span_and_is_found_by_level_text_trace_and_request(kept: Store) -> None:
    add(kept, span(1))
    log(kept, LINE, {"event": "worker_started", "level": "info"})
    _, entry = kept.entries(TRACE)
    assert (entry.parent_id, entry.start_ns) == (f"{1:016x}", MIDNIGHT + 123_456_000)
    found = {
        "by level": kept.lines(level="warning"),
        "by text": kept.lines(text="größer"),
        "by event": kept.lines(text="Payment"),
        "by trace": kept.lines(trace=TRACE),
    }
    for how, lines in found.items():
        assert [line["event"] for line in lines] == ["payment_refused"], how
    assert found["by level"][0]["facts"] == {"amount": 12, "reason": "größer"}
    assert found["by level"][0]["time"] == "2027-01-15T08:00:00.123456000Z"
    assert len(kept.lines()) == 2
    assert kept.trace_of("my-request") == TRACE
    assert kept.trace_of(TRACE) == TRACE
    assert kept.trace_of("") is None
    assert kept.trace_of("other") is None


@pytest.mark.parametrize(
    ("line", "event", "level"),
    [
        (b"Traceback (most recent call last):", "Traceback (most recent call last):", "info"),
        (b"\xff\xfe", "\ufffd\ufffd", "info"),
        (b"[" * 100_000, "[" * 100, "info"),
        (b"[1]", "[1]", "info"),
        (b"9" * 5000, "9" * 100, "info"),
        (b'{"event": "\\ud800", "level": "loud", "\\ud800": "\\ud800"}', "?", "info"),
        (b'{"event": {"a": 1}, "level": ["error"], "timestamp": "soon", "trace_id": 7, "span_id": null}', "{'a': 1}", "info"),
        (b'{"event": "x", "level": "error", "n": NaN, "big": 1e999, "timestamp": "9999-12-31T23:59:59Z"}', "x", "error"),
        (b'{"event": "x", "timestamp": "0001-01-01T00:00:00", "service": "\\ud800"}', "x", "info"),
    ],
)  # fmt: skip
def test_any_line_is_shown(kept: Store, line: bytes, event: str, level: str) -> None:
    log(kept, line)
    (found,) = kept.lines()
    assert (found["event"][:100], found["level"], found["trace"]) == (event, level, "")
    json.dumps(found, allow_nan=False).encode()


@pytest.mark.parametrize("depth", [500, 800, 990, 20_000])
def test_a_line_of_any_depth_is_shown(kept: Store, depth: int) -> None:
    for name in ("a", "event", "level"):
        log(kept, f'{{"{name}": {"[" * depth}{"]" * depth}}}'.encode())
    assert len(kept.lines()) == 3
