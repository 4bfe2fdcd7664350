"""Chatty pairs are found in recorded traces, which may be of any size and content."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fleet.boundaries import traces
from fleet.boundaries.traces import Traffic, chatty, read
from fleet.errors import FleetError
from tests.fleet.boundaries.spans import batch, span, spans_of
from tests.fleet.command_line import run

Node = dict[str, Any]


def recorded(file: Path, *batches: Node) -> Traffic:
    file.write_text("".join(f"{json.dumps(one)}\n" for one in batches))
    return read(file)


def asked(traffic: Traffic) -> list[str]:
    return [one.what for one in chatty(traffic, {})]


def test_many_calls_in_one_request_are_chatty(tmp_path: Path) -> None:
    [what] = asked(recorded(tmp_path / "t", *(batch(f"t{at}", "one", "other", 5) for at in range(20))))
    assert what == "one called other in 20 of 20 requests, half of them with 5 calls or more, and at most 5"


def test_a_neighbour_that_nearly_each_request_needs_is_asked_about(tmp_path: Path) -> None:
    some = [batch(f"t{at}", "one", "other", int(at % 5 > 0)) for at in range(100)]
    assert len(asked(recorded(tmp_path / "t", *some))) == 1
    fewer = [batch(f"t{at}", "one", "other", int(at % 5 > 1)) for at in range(100)]
    assert asked(recorded(tmp_path / "t", *fewer)) == []


def test_few_requests_say_nothing(tmp_path: Path) -> None:
    assert asked(recorded(tmp_path / "t", *(batch(f"t{at}", "one", "other", 9) for at in range(19)))) == []


def test_calls_of_several_requests_in_one_trace_are_counted_apart(tmp_path: Path) -> None:
    requests = []
    for at in range(30):
        ours = [span("t", f"r{at}", "", 2), span("t", f"in{at}", f"r{at}", 1), span("t", f"c{at}", f"in{at}", 3)]
        requests.append(
            {"resourceSpans": [spans_of("one", ours), spans_of("other", [span("t", f"s{at}", f"c{at}", 2)])]}
        )
    traffic = recorded(tmp_path / "t", *requests, requests[0])  # a batch that was sent again counts once
    assert traffic.requests == {"one": 30, "other": 30}
    assert set(traffic.calls["one", "other"].values()) == {1}


def test_spans_that_are_each_others_parents_end_somewhere(tmp_path: Path) -> None:
    ours = [span("t", "a", "b", 1), span("t", "b", "a", 1), span("t", "c", "a", 3)]
    loop = {"resourceSpans": [spans_of("one", ours), spans_of("other", [span("t", "d", "c", 2)])]}
    assert recorded(tmp_path / "t", loop).calls.keys() == {("one", "other")}


def test_the_store_of_fleet_up_is_read(tmp_path: Path) -> None:
    file = tmp_path / "viewer.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE span (trace TEXT, id TEXT, parent TEXT, start INTEGER, content TEXT)")
        for at in range(25):
            for id_, parent, service, kind in (
                ("r", "", "one", "SERVER"),
                ("c", "r", "one", "CLIENT"),
                ("s", "c", "other", "SERVER"),
            ):
                content = json.dumps({"service": service, "kind": kind})
                database.execute("INSERT INTO span VALUES (?, ?, ?, 0, ?)", (f"t{at}", id_, parent, content))
        database.commit()
    assert len(asked(read(file))) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no spans"),
        (b"\x00\xff", "line 1 is not OTLP in JSON"),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{}]}]}]}', "line 1 is not OTLP in JSON"),
        (b'{"resourceSpans": 5}', "line 1 is not OTLP in JSON"),
        (b"[" * 100_000, "line 1 is not OTLP in JSON"),
        (b"{\n}", "line 1 is not OTLP in JSON"),
        (b"SQLite format 3\0 and no more", "is not the store of `fleet up`"),
    ],
)
def test_a_file_without_traces_is_refused_with_the_remedy(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "traces"
    file.write_bytes(content)
    with pytest.raises(FleetError, match=said):
        read(file)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = batch("t", "one", "other", 5)
    for limit, most, said in (
        ("MOST_SPANS", 3, "more than 3 spans"),
        ("MOST_LINE_BYTES", 99, "line 1 has more than"),
        ("MOST_FILE_BYTES", 99, "fleet reads traces of up to"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(traces, limit, most)
            with pytest.raises(FleetError, match=said):
                recorded(tmp_path / "t", one)


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    assert "add --boundaries" in run("map", "--traces", "x", str(tmp_path), status=1)
    assert "neither --around nor --calls" in run("map", "--boundaries", "--around", "x", str(tmp_path), status=1)
    assert "cannot be read" in run("map", "--boundaries", "--traces", str(tmp_path / "none"), str(tmp_path), status=1)
