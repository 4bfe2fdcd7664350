"""The memory of `fleet up` between its runs, and its lines for people."""

import json
import os
import socket
import sqlite3
import stat
from pathlib import Path

import pytest
from chassis.dev.embedded import free_port

from fleet.errors import FleetError
from fleet.processes import programs
from fleet.up import control
from fleet.up import memory as memory_module
from fleet.up.memory import Memory, write_private
from fleet.up.output import MAX_LINE_BYTES, SHOWN_CHARACTERS, SHOWN_LINES, Output, readable


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    memory = Memory(tmp_path / ".fleet")
    os.close(memory.lock())
    return memory


def again(memory: Memory) -> Memory:
    """Return the memory of the next run."""
    later = Memory(memory.folder)
    os.close(later.lock())
    return later


def test_ports_and_passwords_stay_the_same_and_are_private(memory: Memory) -> None:
    port, password = memory.port("orders"), memory.secret("databases", "orders")
    memory.remember("migrations", "orders", "digest")
    assert memory.port("billing") != port
    assert (again(memory).port("orders"), again(memory).secret("databases", "orders")) == (port, password)
    assert again(memory).applied("orders") == "digest"
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (memory.folder, memory.folder / "memory.json")]
    assert modes == [0o700, 0o600]
    assert (memory.folder / ".gitignore").read_text() == "*\n"


def test_a_port_that_another_program_has_taken_is_replaced(memory: Memory) -> None:
    port = memory.port("orders")
    with socket.create_server(("127.0.0.1", port)):
        assert memory.port("orders", is_ours=False) == port
        assert (new := memory.port("orders")) != port
    assert again(memory).port("orders") == new


def test_a_second_run_on_the_same_folder_is_refused(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "STOP_SECONDS", 0.05)
    lock = memory.lock()
    with pytest.raises(FleetError, match=r"another `fleet up` runs on .*: `fleet down` ends it"):
        Memory(memory.folder).lock()
    monkeypatch.setattr(programs, "STOP_SECONDS", 1000)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        write_private(memory.control, {"port": listener.getsockname()[1], "token": "x"})
        with pytest.raises(FleetError, match="another `fleet up` runs on"):
            Memory(memory.folder).lock()
    os.close(lock)


def test_another_program_at_the_port_of_a_run_that_was_killed_is_no_run(memory: Memory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        write_private(memory.control, {"port": listener.getsockname()[1], "token": "x"})
        with pytest.raises(FleetError, match="no `fleet up` runs on"):
            control.tell(memory, "down")
        os.close(memory.lock())


@pytest.mark.parametrize("content", ["", "[]", "[" * 9999])
def test_a_damaged_memory_is_forgotten(memory: Memory, content: str) -> None:
    (memory.folder / "memory.json").write_text(content)
    assert again(memory).applied("orders") == ""


def test_a_folder_that_somebody_has_made_becomes_private(tmp_path: Path) -> None:
    (tmp_path / ".fleet").mkdir(mode=0o755)
    os.close(Memory(tmp_path / ".fleet").lock())
    assert stat.S_IMODE((tmp_path / ".fleet").stat().st_mode) == 0o700


@pytest.mark.parametrize("content", ["", "[]", '{"port": "x"}', '{"port": PORT}'])
def test_a_control_file_of_a_run_that_was_killed_is_no_run(memory: Memory, content: str) -> None:
    memory.control.write_text(content.replace("PORT", str(free_port())))
    assert memory.running() is None


def test_a_fresh_start_deletes_only_the_data_of_earlier_runs(memory: Memory) -> None:
    port, password = memory.port("orders"), memory.secret("databases", "orders")
    for name in ("postgres", "nats", "logs"):
        (memory.folder / name).mkdir()
        (memory.folder / name / "data").touch()
    (memory.folder / "notes").mkdir()  # of a person
    memory.forget()
    assert sorted(path.name for path in memory.folder.iterdir()) == [".gitignore", "lock", "memory.json", "notes"]
    assert again(memory).port("orders") == port
    assert again(memory).secret("databases", "orders") != password


def test_a_long_log_is_set_aside(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "LOG_BYTES", 3)
    for word in (b"old", b"older", b"new"):
        with memory_module.open_log(memory.log("orders")) as log:
            log.write(word)
    assert memory.log("orders").read_bytes() == b"new"
    assert (memory.folder / "logs/orders.old.log").read_bytes() == b"oldolder"


def test_a_log_does_not_grow_without_end_within_a_run(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "LOG_BYTES", 3)
    output = Output(memory.log("orders"), lambda _: None)
    for word in (b"old", b"er", b"new"):
        output.take(word)
    output.close()
    assert memory.log("orders").read_bytes() == b"new"
    assert (memory.folder / "logs/orders.old.log").read_bytes() == b"older"


def test_a_full_disk_does_not_end_the_reading_of_the_output(tmp_path: Path) -> None:
    def refuse(_: list[bytes]) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    output = Output(tmp_path / "logs/orders.log", refuse)
    output.take(b"first\n")
    output.take(b"second\n")
    output.close()
    assert output.tail() == "first\nsecond"


def test_output_is_forwarded_as_lines_and_shortened_to_the_last_traceback(tmp_path: Path) -> None:
    lines: list[bytes] = []
    output = Output(tmp_path / "logs/orders.log", lines.extend)
    output.take(b'{"event": "started"}\nTraceback (most recent call last):\n  first')
    output.take(b"\nKeyError\nTraceback (most recent call last):\n" + b"  frame\n" * 40 + b"      ^^^\nSyntax")
    output.end()
    output.close()
    assert lines[:3] == [b'{"event": "started"}', b"Traceback (most recent call last):", b"  first"]
    assert output.tail().splitlines() == ["  frame"] * (SHOWN_LINES - 2) + ["      ^^^", "Syntax"]
    assert b"KeyError\n" in (tmp_path / "logs/orders.log").read_bytes()


def test_a_line_without_an_end_takes_bounded_memory(tmp_path: Path) -> None:
    lines: list[bytes] = []
    output = Output(tmp_path / "logs/orders.log", lines.extend)
    for _ in range(5):
        output.take(b"x" * MAX_LINE_BYTES)
    assert [len(line) for line in lines] == [2 * MAX_LINE_BYTES] * 2
    assert len(output.tail()) == 2 * SHOWN_CHARACTERS + len("\n")


def test_lines_of_json_are_written_for_people() -> None:
    facts = {"timestamp": "2027-01-31T12:00:00.123456Z", "level": "error", "event": "request_failed", "status": 500}
    written = [
        json.dumps(facts | {"trace_id": "a", "exception": "Traceback\nKeyError"}),
        "plain",
        "[1]",
        "[" * 5000,
        "",
        '{"level": null, "event": ["odd"], "timestamp": 1}',
    ]
    assert list(readable(line.encode() for line in written)) == [
        "12:00:00.123 error   request_failed status=500",
        "Traceback",
        "KeyError",
        "plain",
        "[1]",
        "[" * 5000,
        " None    ['odd']",
    ]
