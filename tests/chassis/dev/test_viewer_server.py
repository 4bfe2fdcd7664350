"""The viewer answers only its own page and the programs of this user, and survives whatever they send."""

import gzip
import json
import socket
import sqlite3
import stat
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from chassis.dev.viewer import exchange
from chassis.dev.viewer import server as viewer
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue

from tests.chassis.dev.sent_spans import CLIENT, TRACE, export, gauges, span
from tests.chassis.dev.viewer_requests import ask
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Generator[viewer.Viewer]:
    with viewer.running(tmp_path_factory.mktemp("viewer")) as running:
        yield running


def entries(shown: viewer.Viewer, trace: str = TRACE) -> list[dict[str, Any]]:
    status, content, _ = ask(shown, f"traces/{trace}")
    assert status == 200, content
    return json.loads(content)["entries"]


def test_a_trace_is_served_as_a_tree_with_its_sql(shown: viewer.Viewer) -> None:
    statement = "SELECT 1 FROM billing.invoices"
    sent = [
        span(2, parent=1, kind=CLIENT, name="SELECT billing.invoices", db__query__text=statement),
        span(1, name="GET /x"),
    ]
    assert ask(shown, "v1/traces", gzip.compress(export(sent)), Content_Encoding="gzip")[0] == 200
    root, query = entries(shown)
    assert (root["name"], root["depth"], root["offset"], root["service"]) == ("GET /x", 0, 0, "billing")
    assert (query["depth"], query["offset"], query["duration"]) == (1, 10**6, 10**6)
    assert query["attributes"]["db.query.text"] == statement
    _, text, _ = ask(shown, f"traces/{TRACE}.txt")
    assert text.splitlines()[1].split() == ["SELECT", "billing.invoices", "billing", "1.0", "ms", *statement.split()]


def test_a_page_asks_again_only_for_a_trace_that_has_changed(shown: viewer.Viewer) -> None:
    trace = "1" * 32
    ask(shown, "v1/traces", export([span(1, trace=trace)]))
    tag = ask(shown, f"traces/{trace}")[2]["ETag"]
    assert ask(shown, f"traces/{trace}", If_None_Match=tag)[0] == 304
    ask(shown, "v1/traces", export([span(2, trace=trace)]))
    assert ask(shown, f"traces/{trace}", If_None_Match=tag)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1.evil.example:{port}", ""]
)
def test_a_name_that_leads_to_this_machine_is_refused(shown: viewer.Viewer, host: str) -> None:
    named = host.format(port=urlsplit(shown.url).port)
    assert ask(shown, "traces", Host=named)[0] == 403
    assert ask(shown, "v1/traces", export([span(1)]), Host=named)[0] == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_another_website_is_refused(shown: viewer.Viewer, origin: str) -> None:
    assert ask(shown, "traces", Origin=origin)[0] == 403
    assert ask(shown, "logs", b"{}", Origin=origin)[0] == 403
    assert ask(shown, "traces", Origin=shown.url.rpartition("/")[0].rpartition("/")[0])[0] == 200


@pytest.mark.parametrize(
    "path", ["/", "/traces", "/wrong/traces", "//traces", "x", "/é/".encode().decode("latin-1"), "http://[/"]
)
def test_without_the_token_nothing_is_shown_or_taken(shown: viewer.Viewer, path: str) -> None:
    for body in (None, export([span(1)])):
        # Written by hand, because http.client refuses some of these paths.
        with socket.create_connection(("127.0.0.1", urlsplit(shown.url).port)) as connection:
            method = "GET" if body is None else "POST"
            head = f"{method} {path} HTTP/1.0\r\nHost: {urlsplit(shown.url).netloc}\r\nContent-Length: 0\r\n\r\n"
            connection.sendall(head.encode("latin-1"))
            assert b" 404 " in connection.makefile("rb").readline()


def test_the_page_may_load_and_call_nothing_but_the_viewer(shown: viewer.Viewer) -> None:
    for path, kind in (
        ("", "text/html"),
        *((f"{name}.css", "text/css") for name in ("page", "lists", "panels")),
        *((f"{name}.js", "text/javascript") for name in ("page", "rows", "map", "layout", "waterfall")),
    ):
        status, content, headers = ask(shown, path)
        assert (status, headers["Content-Type"].partition(";")[0]) == (200, kind)
        assert content
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
    for path in ("../server.py", "page/page.js", "page.html/", "schema.py"):
        assert ask(shown, path)[0] == 404


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"\xff\xfe garbage", {}, 400),
        (export([span(1)])[:-3], {}, 400),
        (b"no gzip", {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(bytes(exchange.MAX_BODY_BYTES + 1)), {"Content_Encoding": "gzip"}, 413),
        (b"", {"Content_Length": str(exchange.MAX_BODY_BYTES + 1)}, 413),
        (b"", {"Content_Length": "9" * 5000}, 411),
        (b"", {"Content_Length": "-1"}, 411),
        (b"", {"Transfer_Encoding": "chunked"}, 411),
    ],
    ids=["garbage", "cut off", "no gzip", "bomb", "large", "longest", "negative", "no length"],
)
def test_a_wrong_export_is_refused_and_the_next_one_is_taken(
    shown: viewer.Viewer, body: bytes, headers: dict[str, str], status: int
) -> None:
    refused, reason, _ = ask(shown, "v1/traces", body, **headers)
    assert (refused, reason[-2:]) == (status, ".\n")
    assert ask(shown, "v1/traces", export([span(1)]))[0] == 200


def test_the_newest_gauges_of_messages_are_kept_and_no_other_metric(shown: viewer.Viewer) -> None:
    for body in (
        gauges("billing", {"messaging.outbox.messages": 7}),
        gauges("billing", {"messaging.outbox.messages": 3}),
        gauges("billing", {"messaging.parked.messages": 1, "process.memory.usage": 1e9}),
        gauges("billing", {"messaging.outbox.oldest.age": float("nan"), "messaging.outbox.messages": float("inf")}),
    ):
        assert ask(shown, "v1/metrics", body)[0] == 200
    assert json.loads(ask(shown, "gauges")[1]) == {"billing": {"waiting": 3, "parked": 1}}
    assert ask(shown, "v1/metrics", b"anything")[0] == 400
    assert ask(shown, "v1/unknown", b"anything")[0] == 404


def test_values_that_a_browser_cannot_read_become_texts(shown: viewer.Viewer) -> None:
    trace = "2" * 32
    nested = AnyValue(array_value=ArrayValue(values=[AnyValue(double_value=float("inf")), AnyValue()]))
    hostile = span(
        1, trace=trace, nan=float("nan"), large=2**62, raw=b"\x00\xff", nested=nested, nul="a\0b", long="x" * 10**6
    )
    hostile.kind = 77
    hostile.status.code = 77
    assert ask(shown, "v1/traces", export([hostile]))[0] == 200
    (entry,) = entries(shown, trace)
    assert entry["kind"] == "INTERNAL"
    assert not entry["failed"]
    found = entry["attributes"]
    assert (found["nan"], found["large"], found["raw"]) == ("nan", str(2**62), "00ff")
    assert (found["nested"], found["nul"]) == (["inf", None], "a\0b")
    assert found["long"].endswith("x… (983616 more characters)")


def test_a_long_name_of_a_service_is_not_kept_with_each_span(shown: viewer.Viewer) -> None:
    trace = "8" * 32
    assert ask(shown, "v1/traces", export([span(1, trace=trace)], service="x" * 10**6))[0] == 200
    (entry,) = entries(shown, trace)
    assert entry["service"] == "x" * 200


def test_spans_without_valid_ids_are_left_out_and_impossible_times_are_shown(shown: viewer.Viewer) -> None:
    trace = "3" * 32
    no_id, short = span(1, trace=trace), span(2, trace=trace)
    no_id.span_id, short.trace_id = b"", b"\x03"
    last = 2**64 - 1
    backwards = span(3, trace=trace, start=last, end_time_unix_nano=0)
    assert ask(shown, "v1/traces", export([no_id, short, backwards, span(4, trace=trace, start=0)]))[0] == 200
    assert [entry["id"][-1] for entry in entries(shown, trace)] == ["4", "3"]
    assert ask(shown, f"traces/{trace}.txt")[0] == 200
    assert ask(shown, "traces")[0] == 200


def field(number: int, content: bytes) -> bytes:
    """Encode a field of a protobuf message by hand: protobuf itself makes no value of 200 levels."""
    length, varint = len(content), b""
    while length > 0x7F:
        varint += bytes([length & 0x7F | 0x80])
        length >>= 7
    return bytes([number << 3 | 2]) + varint + bytes([length]) + content


@pytest.mark.parametrize(("levels", "status"), [(30, 200), (200, 400)])
def test_a_value_has_levels_up_to_the_limit_of_protobuf(shown: viewer.Viewer, levels: int, status: int) -> None:
    trace = f"{levels:032}"
    value = field(1, b"core")
    for _ in range(levels):
        value = field(5, field(1, value))
    sent = span(1, trace=trace).SerializeToString() + field(9, field(1, b"deep") + field(2, value))
    assert ask(shown, "v1/traces", field(1, field(2, field(2, sent))))[0] == status
    if status == 200:
        assert str(entries(shown, trace)[0]["attributes"]["deep"]).count("[") == levels


def test_changes_are_told_to_the_page(shown: viewer.Viewer) -> None:
    parts = urlsplit(shown.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(f"GET {parts.path}events HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
        received = connection.makefile("rb")
        while received.readline().strip():
            pass
        now = int(received.readline().removeprefix(b"data: "))
        assert received.readline() == b"\n"
        ask(shown, "v1/traces", export([span(99, trace="4" * 32)]))
        assert int(received.readline().removeprefix(b"data: ")) > now


def test_data_is_only_for_its_owner_and_new_at_each_start(tmp_path: Path) -> None:
    folder = tmp_path / ".dev/viewer"
    urls = []
    for _ in range(2):
        with viewer.running(folder) as running:
            urls.append(running.url)
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert json.loads(ask(running, "traces")[1]) == {"count": 0, "traces": []}
            ask(running, "v1/traces", export([span(1)]))
            assert json.loads(ask(running, "traces")[1])["count"] == 1
        assert list(folder.iterdir()) == []
        (folder / "viewer.db").write_bytes(b"left by kill -9")
    assert len({urlsplit(url).path for url in urls}) == 2


def test_kept_data_is_there_at_the_next_start_and_an_unreadable_file_is_replaced(
    tmp_path: Path,
) -> None:
    for number in (1, 2):
        with viewer.running(tmp_path, keep=True) as running:
            ask(running, "v1/traces", export([span(1, trace=f"{number:032}")]))
            running.add_lines("billing", [b"a line"])
            assert json.loads(ask(running, "traces")[1])["count"] == number
            assert len(json.loads(ask(running, "logs")[1])["lines"]) == number
            assert running.store._spans == running.store._lines == number
    (tmp_path / "viewer.db").write_bytes(b"no database")
    with viewer.running(tmp_path, keep=True) as running:
        assert json.loads(ask(running, "traces")[1])["count"] == 0
    with sqlite3.connect(tmp_path / "viewer.db") as older:
        older.execute("PRAGMA user_version = 0")
    with viewer.running(tmp_path, keep=True) as running:
        ask(running, "v1/traces", export([span(1)]))
        assert json.loads(ask(running, "traces")[1])["count"] == 1


def test_a_port_that_another_program_has_is_replaced_by_a_free_port(tmp_path: Path) -> None:
    with viewer.running(tmp_path / "1") as first:
        taken = urlsplit(first.url).port or 0
        with viewer.running(tmp_path / "2", port=taken) as second:
            assert urlsplit(second.url).port != taken
            assert ask(second, "traces")[0] == 200
    with viewer.running(tmp_path / "3", port=taken) as third:
        assert urlsplit(third.url).port == taken


def test_an_open_page_does_not_delay_the_stop(tmp_path: Path) -> None:
    with viewer.running(tmp_path) as running:
        parts = urlsplit(running.url)
        connection = socket.create_connection((parts.hostname, parts.port), timeout=30)
        connection.sendall(f"GET {parts.path}events HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
        assert connection.recv(10)
    with connection:
        while connection.recv(65536):
            pass
    wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", parts.port)) != 0, seconds=30)
