"""Programs of services that `fleet update-all` runs."""

import os
from pathlib import Path

import psutil
import pytest

from fleet.processes import programs
from fleet.processes.programs import TIMED_OUT, Programs


@pytest.mark.timeout(60)
def test_a_program_that_does_not_end_is_stopped_with_its_children_and_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "PROGRAM_SECONDS", 0.3)
    # The shell ends by itself with status 0 when it is asked to end, and its child ignores the signal.
    script = "trap 'exit 0' TERM; (trap '' TERM; sleep 1000) & echo $! > child; wait"
    lock, log = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR), tmp_path / "log"
    with Programs(lock) as running, log.open("ab") as output:
        assert running.run(["/bin/sh", "-c", script], log=output, cwd=tmp_path, environment=os.environ) == TIMED_OUT
    os.close(lock)
    assert log.read_text() == "fleet has stopped `/bin/sh` after 0 minutes\n"
    child = int((tmp_path / "child").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_the_status_and_the_output_of_a_program_are_kept(tmp_path: Path) -> None:
    lock, log = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR), tmp_path / "log"
    with Programs(lock) as running, log.open("ab") as output:
        status = running.run(["/bin/sh", "-c", "echo here; exit 3"], log=output, cwd=tmp_path, environment=os.environ)
    os.close(lock)
    assert (status, log.read_text()) == (3, "here\n")
