"""`fleet status --record --page`, and the nightly job of the how-to, run as written."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.history.days import parse, write
from fleet.service.waivers import today
from tests.fleet.command_line import run
from tests.fleet.services import Born
from tests.support.commands import git
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs/how-to/show-progress.md"


def block(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n\n```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def shell(folder: Path, script: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_nightly_job_of_the_how_to_keeps_the_history_on_a_branch(tmp_path: Path) -> None:
    origin, work = tmp_path / "origin.git", tmp_path / "work"
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch", "main", str(origin))
    git(tmp_path, "clone", "--quiet", str(origin), str(work))
    (work / "fleet.toml").write_text('[[service]]\npath = "gone"\n')
    git(work, "add", "--all")
    git(work, "commit", "--quiet", "--message", "Start")
    git(work, "push", "--quiet", "origin", "HEAD:main")
    shell(work, block("once"))
    for night in ("first", "second"):
        git(tmp_path, "clone", "--quiet", "--branch", "main", str(origin), night)
        shell(tmp_path / night, block("nightly"))
        assert (tmp_path / night / "site/index.html").exists()
    (line,) = git(origin, "show", "fleet-history:history.jsonl").splitlines()
    assert json.loads(line) == {"day": str(today()), "releases": {}, "services": {"gone": {"state": "unreadable"}}}
    assert git(origin, "log", "--format=%s", "fleet-history").splitlines() == [
        "Record the fleet",
        "Start the history of the fleet",
    ]


def test_the_line_in_the_how_to_is_a_line_that_fleet_reads() -> None:
    (line,) = re.findall(r"```json\n(.*)\n```", PAGE.read_text())
    assert json.loads(write(parse(line))) == json.loads(line)


def test_one_run_writes_the_report_the_history_and_the_pages(
    born: Born, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_OFFLINE", "")  # the command line sets the variable until the process ends
    for module in ("check.checks", "status.status"):
        monkeypatch.setattr(f"fleet.{module}.conventions", lambda: ())
    service = born(owner="shop", domain="commerce")
    config = tmp_path / "fleet.toml"
    config.write_text(f'[[service]]\npath = "{service}"\n\n[[service]]\npath = "gone"\n')
    history = tmp_path / "history.jsonl"
    day = {"day": "2026-01-01", "services": {"billing": {"state": "in order", "version": "v1.0.0"}}}
    history.write_text(f"{json.dumps(day)}\nnonsense\n")
    (tmp_path / "policy.toml").write_text('[[campaign]]\nname = "newest"\nversion = "v1.3.0"\nby = 2027-03-01\n')
    command = ["status", "--config", str(config), "--record", str(history), "--page", str(tmp_path / "site")]
    shown = run(*command, "--format", "json", "--boundaries", status=1)
    assert f"{history}, line 2 is skipped: the line is not JSON" in shown
    assert '"owner": "shop"' in shown
    line = json.loads(history.read_text().splitlines()[-1])
    assert line["services"]["billing"]["version"] == "v1.0.0"
    assert list(line["releases"]) == ["v1.3.0"]
    index = (tmp_path / "site/index.html").read_text()
    assert "line 2 is skipped" in index
    assert "Since <time" in index
    assert "0 of 2 services done, 1 open, 1 unreadable" in index
    assert "0 questions about 1 service from" in index
    assert len(list((tmp_path / "site").glob("team-*.html"))) == 2
    (page,) = (tmp_path / "site").glob("team-shop-*.html")
    assert "0 of 1 service done, 1 open" in page.read_text()
    refusal = "--boundaries adds a section to the page: add --page or --format html, or ask `fleet map`"
    assert run("status", "--config", str(config), "--boundaries", status=1) == refusal
    lines = history.read_text()
    assert "gets no line for today" in run(*command, "--offline", status=1)
    assert history.read_text() == lines
