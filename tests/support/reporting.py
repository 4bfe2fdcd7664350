"""The report at the end of a run: the test that was interrupted, and the time of each folder with its budget."""

import os
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

BUDGET_MINUTES = 25
"""The budget of `make test` on an idle machine with two cores, with empty caches too."""

BUDGETS = {
    "tests/template": 160,
    "tests/service": 520,
    "tests/chassis": 320,
    "tests/fleet": 850,
    "tests/delivery": 175,
    "tests/repository": 55,
}
"""Seconds of processor time for each folder, of the tests and of the programs that they wait for.

The budgets are for authors of tests to look at. A busy machine fails no test by them.
"""

QUICK_SECONDS = 2
"""The processor time after which a test without the mark `slow` is listed. The mark is for a quarter of a second, but the
first test of a process that renders the template compiles the template too, and a busy machine makes each test slower."""


class Report:
    """Measure processor time in each worker. The process that the user started adds it up, and prints the report."""

    def __init__(self) -> None:
        self._counted = 0.0
        self._running: set[str] = set()
        self._spent: Counter[str] = Counter()
        self._unmarked: dict[str, float] = {}

    def pytest_collection_finish(self) -> None:
        self._counted = _processor_seconds()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        now = _processor_seconds()
        report.processor_seconds, self._counted = now - self._counted, now
        return report

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running.add(nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.discard(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        folder = "/".join(Path(report.nodeid.partition("::")[0]).parts[:-1][:2])
        self._spent[folder] += (seconds := getattr(report, "processor_seconds", 0))
        if report.when == "call" and seconds > QUICK_SECONDS and "slow" not in report.keywords:
            self._unmarked[report.nodeid] = seconds

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._running:
            terminalreporter.section("interrupted while these tests were running")
            for nodeid in sorted(self._running):
                terminalreporter.write_line(nodeid)
        terminalreporter.section(f"processor time; the whole run has {BUDGET_MINUTES} minutes on two idle cores")
        for folder, seconds in sorted(self._spent.items()):
            budget = f"budget {BUDGETS[folder]} s" if folder in BUDGETS else "no budget"
            exceeded = ", exceeded: find a cheaper way" if seconds > BUDGETS.get(folder, seconds) else ""
            terminalreporter.write_line(f"{seconds:7.0f} s  {folder} ({budget}{exceeded})")
        if self._unmarked:
            terminalreporter.section("mark these tests `slow`, or make them cheaper (seconds of processor time)")
            for nodeid, seconds in sorted(self._unmarked.items()):
                terminalreporter.write_line(f"{seconds:7.1f} s  {nodeid}")


def _processor_seconds() -> float:
    """Return the processor time of this process and of the children that it has waited for."""
    return sum(os.times()[:4])
