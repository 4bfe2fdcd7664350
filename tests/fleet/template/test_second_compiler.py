"""The second process that compiles the files of a template in the first run."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.template.second_compiler import second_compiler
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="there is no second process on macOS")


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(threading, "active_count", lambda: 1)


def write(file: Path) -> Callable[[], None]:
    """A function that writes its process id, and then hangs."""

    def work() -> None:
        file.write_text(str(os.getpid()))
        threading.Event().wait(600)

    return work


@pytest.mark.usefixtures("two_cores")
def test_a_second_process_works_until_the_block_ends_even_if_the_block_fails(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def fail_late() -> None:
        with second_compiler(tmp_path / "compiled", write(file)):
            wait_until(lambda: file.exists() and file.read_text())
            assert int(file.read_text()) != os.getpid()
            raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        fail_late()
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("work", [lambda: sys.exit(1), lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: None])
def test_a_second_process_that_ends_disturbs_nothing(tmp_path: Path, work: Callable[[], None]) -> None:
    with second_compiler(tmp_path / "compiled", work):
        pass


def test_there_is_no_second_process_with_compiled_files_with_threads_or_on_one_core(
    tmp_path: Path, two_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a second process was started"))
    with second_compiler(tmp_path, lambda: None):
        pass
    for module, name, number in ((threading, "active_count", 2), (os, "cpu_count", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, lambda number=number: number)
            with second_compiler(tmp_path / "compiled", lambda: None):
                pass


@pytest.mark.usefixtures("two_cores")
def test_the_block_runs_alone_at_the_limit_of_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    ran = []
    with second_compiler(tmp_path / "compiled", lambda: None):
        ran.append(True)
    assert ran


@pytest.mark.usefixtures("two_cores")
def test_there_is_no_second_process_whose_id_another_program_may_get(tmp_path: Path) -> None:
    file = tmp_path / "started"
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with second_compiler(tmp_path / "compiled", write(file)):
            pass
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert not file.exists()
