"""`make compatible` of a generated service, and the commit that it compares with on a laptop and in each pipeline."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.commands import git, service_environment
from tests.support.pipelines import Event, GitHub
from tests.support.services import Render

pytestmark = pytest.mark.slow

GONE = "billing.gone.v1"


@pytest.fixture
def service(render: Render, tmp_path: Path) -> Path:
    """A service whose code lacks a message that main has published. The tests' own packages run it."""
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
    """Stand in for `make setup`."""
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


def test_without_a_remote_the_command_reports_that_there_is_no_base(service: Path) -> None:
    done = compatible(service)
    assert done.returncode == 0
    assert done.stdout == "compatible: there is no origin/main here to compare messages with (make compatible BASE=…)\n"


@pytest.mark.parametrize("base", ["nowhere", ""])
def test_a_base_that_was_asked_for_must_be_there(service: Path, base: str) -> None:
    done = compatible(service, BASE=base)
    assert done.returncode != 0
    assert "Cannot compare the messages with" in done.stderr
    assert "compatible failed." in done.stdout


def test_a_laptop_compares_with_the_fetched_branch(service: Path) -> None:
    git(service, "update-ref", "refs/remotes/origin/main", "HEAD")
    assert refuses(compatible(service))
    (service / "specs/retired.txt").write_text(f"{GONE} nobody listens\n")
    assert not refuses(compatible(service))


def test_a_pull_request_on_github_is_compared_with_its_target_branch(service: Path, tmp_path: Path) -> None:
    (job,) = (job for name, job in _yaml(service / ".github/workflows/ci.yaml")["jobs"].items() if name == "check")
    (checkout,) = (step["with"] for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@"))
    (base,) = (step["env"]["BASE"] for step in job["steps"] if step.get("run") == "make check")
    pull_request = GitHub(service, Event(pull_request=True))
    assert pull_request.evaluate(base) == "HEAD^1"
    git(service, "checkout", "--quiet", "-b", "work")
    git(service, "rm", "--quiet", "-r", "specs/messages")
    commit(service)
    (service / "work.txt").touch()
    commit(service)
    git(service, "checkout", "--quiet", "main")
    git(service, "merge", "--quiet", "--no-ff", "--no-edit", "work")

    pipeline = tmp_path / "pipeline"
    git(
        tmp_path,
        "clone",
        "--quiet",
        "--depth",
        pull_request.evaluate(checkout["fetch-depth"]),
        service.as_uri(),
        str(pipeline),
    )
    install(pipeline)

    assert refuses(compatible(pipeline, BASE="HEAD^1"))
    assert not refuses(compatible(pipeline, BASE="HEAD"))


def test_a_merge_request_on_gitlab_is_compared_with_its_merge_base(service: Path) -> None:
    job = _yaml(service / ".gitlab-ci.yml")["check"]
    of_merge_requests, _ = job["rules"]
    assert of_merge_requests == {
        "if": '$CI_PIPELINE_SOURCE == "merge_request_event"',
        "variables": {"BASE": "$CI_MERGE_REQUEST_DIFF_BASE_SHA"},
    }
    assert job["variables"]["GIT_DEPTH"] == "0"
    branched_off = git(service, "rev-parse", "HEAD").strip()
    git(service, "rm", "--quiet", "-r", "specs/messages")
    commit(service)

    assert refuses(compatible(service, BASE=branched_off))
    assert not refuses(compatible(service, BASE="HEAD"))


CONTRACT = "src/billing/messaging/invoices.py"
PARTS = """

class Part(StrEnum):
    DOOR = "door"


class InvoiceIssuedV1(Contract):
    parts: dict[Part, int] = Field(default_factory=dict)
    pair: tuple[int, str] = (1, "a")
"""
CHANGES = {
    "a key more of a mapping": (
        '    DOOR = "door"\n',
        '    DOOR = "door"\n    ROOF = "roof"\n',
        "parts.<name>: may also be",
    ),
    "another type in a pair": ("tuple[int, str]", "tuple[int, str | int]", "pair[1]: is string or integer, was string"),
    "a field less": ("    invoice_id: fields.Identifier\n", "", "invoice_id: was removed"),
}


@pytest.fixture(scope="module")
def publisher(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service that publishes an event with a mapping and a pair in it. main has its schema."""
    folder = tmp_path_factory.mktemp("publisher")
    service = Path(shutil.copytree(render(messaging_style="events", broker="nats"), folder / "billing"))
    contract = service / CONTRACT
    text = contract.read_text().replace("\n\nclass InvoiceIssuedV1(Contract):\n", PARTS, 1)
    contract.write_text(text.replace("from typing", "from enum import StrEnum\nfrom typing", 1))
    git(service, "init", "--quiet", "--initial-branch", "main")
    install(service)
    subprocess.run([service / ".venv/bin/python", "-m", "billing", "specs"], cwd=service, check=True, timeout=60)
    commit(service)
    git(service, "update-ref", "refs/remotes/origin/main", "HEAD")
    return service


def test_each_change_that_gives_a_contract_another_meaning_is_refused(publisher: Path) -> None:
    contract = publisher / CONTRACT
    text = changed = contract.read_text()
    for old, new, _ in CHANGES.values():
        assert old in changed
        changed = changed.replace(old, new, 1)
    try:
        contract.write_text(changed)
        done = compatible(publisher)
    finally:
        contract.write_text(text)
    assert done.returncode != 0
    assert {name for name, (*_, told) in CHANGES.items() if told not in done.stderr} == set(), done.stderr
    assert "publish InvoiceIssuedV2 in addition to InvoiceIssuedV1" in done.stderr


def test_a_contract_whose_parts_have_other_names_and_descriptions_passes(publisher: Path) -> None:
    contract = publisher / CONTRACT
    text = contract.read_text()
    try:
        contract.write_text(text.replace("Part(", "Piece(").replace("[Part,", "[Piece,"))
        done = compatible(publisher)
    finally:
        contract.write_text(text)
    assert done.returncode == 0, done.stderr


def _yaml(path: Path) -> dict:
    return yaml.safe_load(path.read_text())
