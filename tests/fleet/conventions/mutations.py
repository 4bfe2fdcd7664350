"""Break a service in one way, and expect that exactly one convention reports it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.check.checks import kept
from fleet.check.findings import Finding
from fleet.conventions import conventions
from fleet.service.service import Service
from tests.support.commands import git

Broken = Callable[[Path], object]

# By what is broken: the convention that sees it, the change that breaks it, what the finding says.
Mutations = dict[str, tuple[str, Broken, str]]


def violations(service: Path, ref: str | None = None) -> list[Finding]:
    """What the conventions have to say."""
    return list(kept(Service(service, ref)))


def told(service: Path, convention: str) -> list[str]:
    """What that convention alone says: for further parts of a rule, where `only` would take ten times as long."""
    (one,) = (each for each in conventions() if each.id == convention)
    return [problem.what for problem in one.check(Service(service))]


def edit(path: str, old: str, new: str, times: int = 1) -> Broken:
    """Replace the first `old`, or more; fails if there is none, so that no mutation goes stale."""

    def apply(service: Path) -> None:
        text = (service / path).read_text()
        assert old in text, f"{path} no longer holds {old!r}: mend this mutation"
        (service / path).write_text(text.replace(old, new, times))

    return apply


def everywhere(path: str, old: str, new: str) -> Broken:
    """As `edit`, for all that there are."""
    return edit(path, old, new, -1)


def append(path: str, text: str) -> Broken:
    """Write behind what is there, or a new file."""

    def apply(service: Path) -> None:
        (service / path).parent.mkdir(parents=True, exist_ok=True)
        with (service / path).open("a") as file:
            file.write(text)

    return apply


def remove(path: str) -> Broken:
    return lambda service: (service / path).unlink()


def change_json(path: str, change: Callable[[Any], object]) -> Broken:
    """Change what a JSON file holds, and write it as `make specs` does."""

    def apply(service: Path) -> None:
        content = json.loads((service / path).read_text())
        change(content)
        (service / path).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    return apply


def both(*changes: Broken) -> Broken:
    return lambda service: [change(service) for change in changes]


def from_a_secret(variable: str, secret: str, key: str, name: str = "") -> str:
    """The end of an overlay that gives the variable to its Deployments, or to the Deployment of that name."""
    target = f"kind: Deployment, name: {name}" if name else "kind: Deployment"
    return f"""
  - target: {{{target}}}
    patch: |
      - op: add
        path: /spec/template/spec/containers/0/env/-
        value: {{name: {variable}, valueFrom: {{secretKeyRef: {{name: {secret}, key: {key}}}}}}}
"""


def each_alone(mutations: Mutations) -> Callable[..., None]:
    """A test of each: the service is broken in that one way, and `only` that convention says so."""

    @pytest.mark.slow
    @pytest.mark.xdist_group("conventions")
    @pytest.mark.parametrize(("convention", "broken", "says"), mutations.values(), ids=mutations)
    def test(
        all_broken: dict[pytest.Item, Path], request: pytest.FixtureRequest, convention: str, broken: Broken, says: str
    ) -> None:
        only(all_broken[request.node], convention, says)

    return test


def only(service: Path, convention: str, says: str) -> None:
    """Exactly that convention is violated, and its finding says what is wrong, why, and what to do."""
    found = violations(service)
    assert {finding.id for finding in found} == {convention}, found
    assert any(says in finding.reason for finding in found), found
    assert all(finding.why and finding.remedy for finding in found)
    # A commit without a checkout is judged alike.
    git(service, "add", "--all")
    git(service, "commit", "--quiet", "--allow-empty", "--message", "Break it")
    bare = service.with_suffix(".git")
    subprocess.run(["git", "clone", "--quiet", "--bare", service, bare], check=True)
    git(bare, "update-ref", "refs/remotes/origin/main", git(service, "rev-parse", "origin/main").strip())
    assert {finding.id for finding in violations(bare, "HEAD")} == {convention}
