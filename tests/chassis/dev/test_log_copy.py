"""The service copies its log lines to the viewer, and goes on without one."""

import json
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from chassis.dev.viewer import log_copy
from chassis.dev.viewer import server as viewer

from tests.chassis.processes import environment
from tests.support.paths import ROOT
from tests.support.waiting import wait_until

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

PROGRAM = f"""
import logging, pathlib, sys
import structlog
from chassis.dev.viewer import log_copy
from chassis.telemetry import logs
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext

log_copy.start()
logs.configure(format=sys.argv[1], level="info", service="billing")
log = structlog.get_logger()
with trace.use_span(NonRecordingSpan(SpanContext(0x{TRACE}, 0x{SPAN}, is_remote=False))):
    log.info("invoice_issued", amount=12, odd=float("nan"), path=pathlib.PurePosixPath("x"))
    logging.getLogger("asyncpg").warning("a library %s", "warns")
    log.debug("too_low")
try:
    raise ValueError("wrong")
except ValueError:
    log.exception("request_failed")
    logging.getLogger("uvicorn.error").exception("failed")
"""


def run(format: str, **settings: str) -> subprocess.CompletedProcess[str]:
    env = environment() | settings
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, format], env=env, cwd=ROOT, capture_output=True, text=True, check=True
    )


def without_times(stdout: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "", stdout)


@pytest.fixture
def shown(tmp_path: Path) -> Generator[viewer.Viewer]:
    with viewer.running(tmp_path / "viewer") as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("format", ["console", "json"])
def test_each_line_is_shown_with_its_facts_and_its_trace(shown: viewer.Viewer, format: str) -> None:
    result = run(format, **{log_copy.ADDRESS: f"{shown.url}logs?service=billing"})
    assert without_times(result.stdout) == without_times(run(format).stdout)
    assert result.stderr == ""
    wait_until(lambda: len(shown.store.lines()) == 4, seconds=30)
    issued, library, failed, foreign = shown.store.lines()[::-1]
    assert (issued["event"], issued["service"], issued["trace"]) == ("invoice_issued", "billing", TRACE)
    assert issued["facts"] == {"amount": 12, "odd": "nan", "path": "PurePosixPath('x')"}
    assert (library["event"], library["level"], library["trace"]) == ("a library warns", "warning", TRACE)
    assert failed["facts"]["exception"]["message"] == "wrong"
    assert foreign["facts"]["exception"]["type"] == "ValueError"
    assert {entry.parent_id for entry in shown.store.entries(TRACE)} == {SPAN}
    json.dumps(shown.store.lines(), allow_nan=False)


def test_without_a_viewer_lines_stay_on_stdout_and_one_sentence_tells_why(tmp_path: Path) -> None:
    with viewer.running(tmp_path) as ended:
        pass
    result = run("json", **{log_copy.ADDRESS: f"{ended.url}logs"})
    assert len(result.stdout.splitlines()) == 4
    assert result.stderr.count("gets no more log lines") == 1
