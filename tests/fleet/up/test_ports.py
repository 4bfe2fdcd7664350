"""Reserved ports: a port that one run of `fleet up` has reserved is taken for other runs."""

import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chassis.dev.embedded import free_port

from fleet.up.memory import Memory
from fleet.up.ports import is_free, reserve
from tests.support.commands import service_environment
from tests.support.paths import ROOT

ANOTHER_RUN = """
import sys
from fleet.up.ports import reserve
print(reserve(int(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@contextmanager
def another_run(port: int) -> Generator[str]:
    """Reserve the port in another process, which listens nowhere, and yield whether the process has got the port."""
    with subprocess.Popen(
        [sys.executable, "-c", ANOTHER_RUN, str(port)],
        env=service_environment(PYTHONPATH=str(ROOT)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        yield process.stdout.readline().strip()


def test_a_port_that_another_run_has_reserved_is_taken_until_the_run_ends(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    port = free_port()
    memory.remember("ports", "orders", port)
    with another_run(port) as got:
        assert got == "True"
        assert is_free(port), "nothing listens"
        assert not reserve(port)
        assert memory.port("orders") != port
    memory.remember("ports", "orders", port)
    assert memory.port("orders") == port
    with another_run(port) as got:
        assert got == "False"


def test_a_port_at_which_a_program_listens_is_not_reserved() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert not reserve(port)
    with another_run(port) as got:
        assert got == "True"


def test_a_reservation_is_made_without_a_folder_for_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fleet.up import ports

    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "not" / "here"))
    ports._reservations.cache_clear()
    try:
        assert reserve(free_port())
    finally:
        ports._reservations.cache_clear()
