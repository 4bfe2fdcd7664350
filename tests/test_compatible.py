"""`make compatible` of a generated service: what it compares with on a laptop and in each pipeline."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import Render, git, service_environment

pytestmark = pytest.mark.slow

GONE = "billing.gone.v1"


@pytest.fixture
def service(render: Render, tmp_path: Path) -> Path:
    """A service that once published what its code no longer has, as main knows it; the tests' own packages run it."""
    service = Path(shutil.copytree(render(ci="both"), tmp_path / "billing"))
    schema = {"title": "GoneV1", "x-kind": "event", "type": "object", "properties": {}}
    (service / "specs/messages").mkdir(parents=True)
    (service / f"specs/messages/{GONE}.json").write_text(json.dumps(schema))
    git(service, "init", "--quiet", "--initial-branch", "main")
    commit(service)
    install(service)
    return service


def commit(service: Path) -> None:
    git(service, "add", "--all")
    git(service, "commit", "--quiet", "--message", "Change")


def install(service: Path) -> None:
    """Stands in for `make setup`."""
    python = service / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH=src exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (service / ".tools/bin").mkdir(parents=True)
    (service / ".tools/bin/uv").touch()
    (service / "uv.lock").touch()
    (service / ".venv/.ready").touch()


def compatible(service: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "compatible"],
        cwd=service,
        env=service_environment(**environment),
        capture_output=True,
        text=True,
        timeout=300,
    )


def refuses(done: subprocess.CompletedProcess[str]) -> bool:
    assert (done.returncode == 0) is (f"{GONE} is gone" not in done.stderr), done.stdout + done.stderr
    return done.returncode != 0


def test_without_a_remote_it_says_that_there_is_no_base(service: Path) -> None:
    done = compatible(service)
    assert done.returncode == 0
    assert done.stdout == "compatible: there is no origin/main here to compare messages with (make compatible BASE=…)\n"


@pytest.mark.parametrize("base", ["nowhere", ""])
def test_a_base_that_was_asked_for_must_be_there(service: Path, base: str) -> None:
    done = compatible(service, BASE=base)
    assert done.returncode != 0
    assert "Cannot compare the messages with" in done.stderr
    assert "compatible failed." in done.stdout


def test_a_laptop_compares_with_what_it_fetched(service: Path) -> None:
    git(service, "update-ref", "refs/remotes/origin/main", "HEAD")
    assert refuses(compatible(service))
    (service / "specs/retired.txt").write_text(f"{GONE} nobody listens\n")
    assert not refuses(compatible(service))


def test_a_pull_request_on_github_is_compared_with_what_it_goes_into(service: Path, tmp_path: Path) -> None:
    (job,) = (job for name, job in _yaml(service / ".github/workflows/ci.yaml")["jobs"].items() if name == "check")
    (checkout,) = (step["with"] for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@"))
    (base,) = (step["env"]["BASE"] for step in job["steps"] if step.get("run") == "make check")
    assert base == "${{ github.event_name == 'pull_request' && 'HEAD^1' || 'HEAD' }}"
    git(service, "checkout", "--quiet", "-b", "work")
    git(service, "rm", "--quiet", "-r", "specs/messages")
    commit(service)
    (service / "work.txt").touch()
    commit(service)
    git(service, "checkout", "--quiet", "main")
    git(service, "merge", "--quiet", "--no-ff", "--no-edit", "work")

    pipeline = tmp_path / "pipeline"
    git(tmp_path, "clone", "--quiet", "--depth", str(checkout["fetch-depth"]), service.as_uri(), str(pipeline))
    install(pipeline)

    assert refuses(compatible(pipeline, BASE="HEAD^1"))
    assert not refuses(compatible(pipeline, BASE="HEAD"))


def test_a_merge_request_on_gitlab_is_compared_with_where_it_branched_off(service: Path) -> None:
    job = _yaml(service / ".gitlab-ci.yml")["check"]
    of_merge_requests, otherwise = job["rules"]
    assert of_merge_requests == {
        "if": '$CI_PIPELINE_SOURCE == "merge_request_event"',
        "variables": {"BASE": "$CI_MERGE_REQUEST_DIFF_BASE_SHA"},
    }
    assert otherwise == {"variables": {"BASE": "HEAD"}}
    assert job["variables"]["GIT_DEPTH"] == "0"
    branched_off = git(service, "rev-parse", "HEAD").strip()
    git(service, "rm", "--quiet", "-r", "specs/messages")
    commit(service)

    assert refuses(compatible(service, BASE=branched_off))
    assert not refuses(compatible(service, BASE="HEAD"))


def _yaml(path: Path) -> dict:
    return yaml.safe_load(path.read_text())
