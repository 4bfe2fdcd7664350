"""Workflows of the team that a stranger could abuse."""

from pathlib import Path

import pytest

from tests.fleet.conventions.mutations import Mutations, append, each_alone, texts_of, violations

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("conventions")]

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

MUTATIONS: Mutations = {
    "an action by its tag": (
        "workflow-pinned",
        append(OURS, WORKFLOW.replace(PIN, "actions/checkout@v7")),
        "not pinned to a hash",
    ),
    "an action by its tag with a comment that would have it passed over": (
        "workflow-pinned",
        append(OURS, WORKFLOW.replace(f"{PIN} #", "actions/checkout@v7 # zizmor: ignore[unpinned-uses]")),
        "not pinned to a hash",
    ),
    "an action by its tag in an action": (
        "workflow-pinned",
        append(
            ".github/actions/setup/action.yaml",
            "name: s\ndescription: d\nruns:\n  using: composite\n  steps:\n    - uses: actions/setup-node@v5\n",
        ),
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
        "lint has no time limit",
    ),
    "a job without an end on GitLab": (
        "workflow-timeouts",
        append(".gitlab/team.yml", "lint:\n  image: python:3.13\n  script: [make lint]\n"),
        "lint may run for as long as the project allows",
    ),
}


test_only_the_convention_that_is_broken_fails = each_alone(MUTATIONS)


def test_a_correct_workflow_has_no_finding(service: Path) -> None:
    append(OURS, WORKFLOW)(service)
    append(".gitlab/team.yml", "lint:\n  image: python:3.13\n  timeout: 5 minutes\n  script: [make lint]\n")(service)
    assert violations(service) == []


def test_an_unreadable_workflow_does_not_hide_behind_a_readable_workflow(service: Path) -> None:
    append(OURS, WORKFLOW)(service)
    append(".github/workflows/theirs.yaml", "name: theirs\non: push\njobs: 3\n")(service)
    found = violations(service)
    assert {finding.id for finding in found} == {"workflow-pinned", "workflow-least-privilege", "workflow-safe"}
    assert all("theirs.yaml" in finding.reason and "backtrace" not in finding.reason for finding in found), found


def test_a_pipeline_of_gitlab_is_judged_with_all_that_its_jobs_take_over(service: Path) -> None:
    sha = "3d3c42e5aac5ba805825da76410c181273ba90b1"
    append(
        ".gitlab/team.yml",
        f"""
include:
  - {{project: acme/ci, file: lint.yml, ref: {sha}}}
  - {{remote: "https://example.com/a.yml", integrity: sha256-x}}
  - component: gitlab.com/acme/scan@1.2.0
  - local: .gitlab/more.yml
.limited:
  timeout: 5 minutes
lint:
  extends: [.uv, .limited]
  script:
    - !reference [check, script]
again:
  extends: lint
down:
  trigger: acme/other
""",
    )(service)
    assert texts_of(service, "workflow-timeouts") == []
    assert texts_of(service, "workflow-pinned") == []
    append(
        ".gitlab/more.yml",
        """
include:
  - {project: acme/ci, file: lint.yml, ref: main}
  - https://example.com/a.yml
  - component: gitlab.com/acme/scan@~latest
default:
  image: python
.slow:
  image: {name: node}
  services: [postgres:18, {name: redis:latest}]
scan:
  extends: .slow
""",
    )(service)
    assert texts_of(service, "workflow-timeouts") == ["scan may run for as long as the project allows"]
    floating = [what.partition(",")[0] for what in texts_of(service, "workflow-pinned")]
    assert floating == [
        "default runs in python",
        ".slow runs in node",
        ".slow runs in redis:latest",
        "the pipeline includes acme/ci",
        "the pipeline includes https://example.com/a.yml",
        "the pipeline includes gitlab.com/acme/scan",
    ]
