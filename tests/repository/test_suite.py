"""The promises of the tests themselves: no test hangs, is skipped unnoticed, or leaves a process behind."""

import ast
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import httpx2
import psutil
import pytest

from tests.support import needs, reporting
from tests.support.paths import ROOT
from tests.support.waiting import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.slow

LIMIT_SECONDS = 120

EXAMPLES = """
import time
import pytest

def test_skipped():
    pytest.skip("there is no java")

@pytest.mark.skipif(True, reason="only on the moon")
def test_skipped_by_a_mark():
    pass

@pytest.mark.xfail
def test_expected_to_fail():
    assert False

def test_hanging():
    time.sleep(600)
"""

LEAVING = """
import os, subprocess, tempfile, time
from pathlib import Path

def test_in_the_middle():
    shell = subprocess.Popen(["sh", "-c", "sleep 600 & wait"], start_new_session=True)
    Path(os.environ["NOTE"] + ".new").write_text(f"{shell.pid} {tempfile.mkdtemp()}")
    os.rename(os.environ["NOTE"] + ".new", os.environ["NOTE"])
    time.sleep(600)
"""

LIMITS = """
import gc
import pytest

def test_no_module_of_the_tests_is_examined_for_garbage():
    assert gc.isenabled()
    assert gc.get_freeze_count() > 10_000

@pytest.mark.slow
def test_slow(request):
    assert request.node.get_closest_marker("timeout").args == (900,)

def test_quick(request):
    assert request.config.getini("timeout") == "180"
    assert request.node.get_closest_marker("timeout") is None
    assert request.node.get_closest_marker("server") is None

@pytest.fixture
def postgres_url():
    return "a server"

@pytest.fixture
def database(postgres_url):
    return postgres_url

def test_on_a_server(request, database):
    assert request.node.get_closest_marker("server")
"""

ENDINGS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]


def start(folder: Path, tests: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start these tests under this repository's configuration, in a process of their own."""
    (folder / "test_examples.py").write_text(tests)
    kept = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", *arguments]
    return subprocess.Popen(
        [*command, str(folder / "test_examples.py")],
        cwd=ROOT,
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, *arguments: str, tests: str = EXAMPLES, **environment: str) -> tuple[int, str]:
    """Return the exit status and the output of the tests."""
    with start(folder, tests, *arguments, **environment) as process:
        output, _ = process.communicate(timeout=300)
        return process.returncode, output


def test_a_skip_is_shown_with_its_reason_and_fails_on_ci(tmp_path: Path) -> None:
    status, output = run(tmp_path, "-k", "not hanging")
    assert status == 0
    assert "there is no java" in output
    assert "only on the moon" in output
    status, output = run(tmp_path, "-k", "not hanging", CI="true")
    assert status == 1
    assert "1 failed, 1 deselected, 1 xfailed, 1 error" in output
    assert "is skipped on CI, where every test has to run" in output
    assert "there is no java" in output


def test_a_hanging_test_fails_and_shows_the_hanging_line(tmp_path: Path) -> None:
    status, output = run(tmp_path, "-k", "hanging", "-o", "timeout=2")
    assert status == 1
    assert "time.sleep(600)" in output
    assert "Timeout" in output


def test_slow_tests_have_more_time_and_tests_on_servers_have_a_mark(tmp_path: Path) -> None:
    status, output = run(tmp_path, tests=LIMITS)
    assert status == 0, output


def test_programs_for_tests_are_installed_in_a_second_attempt_and_missing_programs_are_named_with_their_tests(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    attempts = []

    def unreliable() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise subprocess.TimeoutExpired("npm install", 1)

    def broken() -> None:
        raise subprocess.CalledProcessError(1, ["go", "install"], stderr="no route to the proxy")

    def absent() -> None:
        pytest.skip("only root can install it")

    monkeypatch.setattr(needs, "PAUSE_SECONDS", 0)
    needs.main(
        [
            needs.Need("Spectral", "the linters", unreliable),
            needs.Need("kustomize", "the manifests", broken),
            needs.Need("Chromium", "the pages", absent),
        ]
    )
    assert len(attempts) == 2
    printed = capsys.readouterr().err
    assert "Spectral" not in printed
    assert "missing: Chromium. Skipped without it: the pages. only root can install it\n" in printed
    assert "missing: kustomize. Skipped without it: the manifests. " in printed
    assert "no route to the proxy" in printed


INSTALLERS = {
    "golang.built",
    "npm.installed",
    "npm.packed",
    "npm.with_node_24",
    "pypi.programs",
    "debian.unpacked",
    "debian.program",
}


def installed_by(file: Path) -> Iterator[tuple[str, str]]:
    """The installers that a file of tests calls, each with the argument that names the program: text, or a constant of `needs`."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and (called := ast.unparse(node.func)) in INSTALLERS:
            installer = called.partition(".")[2]
            program = node.args[names_program(installer)]
            yield installer, getattr(needs, program.id) if isinstance(program, ast.Name) else ast.literal_eval(program)


def names_program(installer: str) -> int:
    """Return the index of the argument that names the program: the last, except for `packed`, where a file comes last."""
    return 0 if installer == "packed" else -1


def test_every_program_that_a_test_installs_is_in_the_list_of_make_test() -> None:
    listed = {
        (installer := need.install.func.__name__, need.install.args[names_program(installer)])
        for need in needs.NEEDS
        if isinstance(need.install, partial)
    }
    files = [file for file in (ROOT / "tests").rglob("*.py") if file.parent.name != "support"]
    called = {(str(file.relative_to(ROOT)), *installed) for file in files for installed in installed_by(file)}
    assert len(called) > 10
    assert {call for call in called if call[1:] not in listed} == set(), "add the program to tests/support/needs.py"


def test_a_run_ends_with_its_processor_time_next_to_the_budgets(tmp_path: Path) -> None:
    _, output = run(tmp_path, "-k", "not hanging", "-n", "1")
    assert f"the whole run has {reporting.BUDGET_MINUTES} minutes on two idle cores" in output
    assert re.search(r"\d s  \S* ?\(no budget\)", output)


def test_a_folder_over_its_budget_and_a_slow_test_without_the_mark_are_named() -> None:
    report, lines = reporting.Report(), []
    for name, keywords in (("unmarked", {}), ("marked", {"slow": True})):
        nodeid = f"tests/chassis/test_x.py::test_{name}"
        report.pytest_runtest_logreport(
            SimpleNamespace(nodeid=nodeid, when="call", processor_seconds=1000, keywords=keywords)
        )
    report.pytest_terminal_summary(SimpleNamespace(section=lines.append, write_line=lines.append))
    assert any("2000 s  tests/chassis (budget" in line and "exceeded" in line for line in lines), lines
    assert [line for line in lines if "test_x" in line] == [" 1000.0 s  tests/chassis/test_x.py::test_unmarked"]


def test_no_program_of_a_run_outlives_any_end_of_the_run(tmp_path: Path) -> None:
    runs = {}
    for ending in ENDINGS:
        folder = tmp_path / ending.name
        folder.mkdir()
        runs[ending] = start(folder, LEAVING, "-n", "1", NOTE=str(folder / "note"))
    try:
        for ending, process in runs.items():
            note = tmp_path / ending.name / "note"
            wait_until(lambda note=note: note.exists(), lambda: "the test does not run")
            process.send_signal(ending)
        for ending, process in runs.items():
            output, _ = process.communicate(timeout=LIMIT_SECONDS)
            shell, folder = (tmp_path / ending.name / "note").read_text().split()
            wait_until(lambda shell=shell: not psutil.pid_exists(int(shell)), lambda: "the shell goes on")
            wait_until(lambda folder=folder: not Path(folder).exists(), lambda: "the folder remains")
            if ending != signal.SIGKILL:
                assert "interrupted while these tests were running" in output
                assert "::test_in_the_middle" in output
    finally:
        for process in runs.values():
            process.kill()


def test_a_client_without_a_limit_of_its_own_waits_for_a_busy_machine() -> None:
    with httpx2.Client() as client, httpx2.Client(timeout=3) as own:
        assert client.timeout == httpx2.Timeout(PATIENCE_SECONDS)
        assert own.timeout == httpx2.Timeout(3)


def test_clients_read_the_certificates_of_the_authorities_once_for_each_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def context() -> object:
        return httpx2.HTTPTransport()._pool._ssl_context

    assert context() is context()
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    other = context()
    monkeypatch.undo()
    assert other is not context()
