"""What the tests promise about themselves: none hangs for ever, and none is left out without anybody noticing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

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


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the examples under this repository's configuration, in a process of their own."""
    (folder / "test_examples.py").write_text(EXAMPLES)
    kept = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", *arguments]
    return subprocess.run(
        [*command, str(folder / "test_examples.py")],
        cwd=ROOT,
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_skip_is_shown_with_its_reason_and_fails_on_ci(tmp_path: Path) -> None:
    here = run(tmp_path, "-k", "not hanging")
    assert here.returncode == 0
    assert "there is no java" in here.stdout
    assert "only on the moon" in here.stdout
    on_ci = run(tmp_path, "-k", "not hanging", CI="true")
    assert on_ci.returncode == 1
    assert "1 failed, 1 deselected, 1 xfailed, 1 error" in on_ci.stdout
    assert "is skipped on CI, where every test has to run" in on_ci.stdout
    assert "there is no java" in on_ci.stdout


def test_a_test_that_hangs_fails_and_shows_where_it_stood(tmp_path: Path) -> None:
    done = run(tmp_path, "-k", "hanging", "-o", "timeout=2")
    assert done.returncode == 1
    assert "time.sleep(600)" in done.stdout
    assert "Timeout" in done.stdout
