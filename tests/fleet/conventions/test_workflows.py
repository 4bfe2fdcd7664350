"""Workflows of the team that a stranger could use."""

from pathlib import Path

import pytest

from tests.fleet.conventions.conftest import Broken, append, only, violations

OURS = ".github/workflows/ours.yaml"
PIN = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1"
WORKFLOW = f"""name: ours
on: push
permissions: {{}}
jobs:
  lint:
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    steps:
      - uses: {PIN} # v7.0.1
        with:
          persist-credentials: false
      - run: make lint
"""

MUTATIONS: dict[str, tuple[str, Broken, str]] = {
    "an action by its tag": (
        "workflow-pinned",
        append(OURS, WORKFLOW.replace(PIN, "actions/checkout@v7")),
        "not pinned to a hash",
    ),
    "an image by no version": (
        "workflow-pinned",
        append(".gitlab/team.yml", "lint:\n  image: python\n  timeout: 5 minutes\n  script: [make lint]\n"),
        "lint runs in python",
    ),
    "every permission": (
        "workflow-least-privilege",
        append(OURS, WORKFLOW.replace("permissions: {}", "permissions: write-all")),
        "overly broad permissions",
    ),
    "credentials that stay": (
        "workflow-least-privilege",
        append(OURS, WORKFLOW.replace("persist-credentials: false", "fetch-depth: 1")),
        "credential persistence",
    ),
    "a title that becomes a command": (
        "workflow-safe",
        append(OURS, WORKFLOW.replace("make lint", "echo ${{ github.event.issue.title }}")),
        "code injection",
    ),
    "a job without an end": (
        "workflow-timeouts",
        append(OURS, WORKFLOW.replace("    timeout-minutes: 5\n", "")),
        "lint may run for ever",
    ),
    "a job without an end on GitLab": (
        "workflow-timeouts",
        append(".gitlab/team.yml", "lint:\n  image: python:3.13\n  script: [make lint]\n"),
        "lint may run for as long as the project allows",
    ),
}


@pytest.mark.slow
@pytest.mark.xdist_group("conventions")
@pytest.mark.parametrize(("convention", "broken", "says"), MUTATIONS.values(), ids=MUTATIONS)
def test_only_the_convention_that_is_broken_fails(service: Path, convention: str, broken: Broken, says: str) -> None:
    broken(service)
    only(service, convention, says)


@pytest.mark.slow
@pytest.mark.xdist_group("conventions")
def test_a_workflow_as_it_should_be_is_fine(service: Path) -> None:
    append(OURS, WORKFLOW)(service)
    append(".gitlab/team.yml", "lint:\n  image: python:3.13\n  timeout: 5 minutes\n  script: [make lint]\n")(service)
    assert violations(service) == []
