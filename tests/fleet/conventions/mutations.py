"""Break a service in one way, and expect that exactly one convention reports it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.check import checks
from fleet.check.findings import Finding
from fleet.conventions import Convention, conventions
from fleet.service.service import Service
from tests.support.commands import git

Broken = Callable[[Path], object]

# Maps the name of a broken part to the convention that notices it, the change that breaks it, the text of the finding.
Mutations = dict[str, tuple[str, Broken, str]]


OF_PROGRAMS = {"supply-no-secrets", "code-layers"}
"""The conventions that start a program on all files of each changed service, which takes a second."""


def violations(service: Path, ref: str | None = None, *, by_programs: bool = False) -> list[Finding]:
    """Return the findings of all conventions; of OF_PROGRAMS only if that is asked for."""
    conventions_now = checks.conventions
    with pytest.MonkeyPatch.context() as patch:
        if not by_programs:
            plain = tuple(one for one in conventions_now() if one.id not in OF_PROGRAMS)
            patch.setattr(checks, "conventions", lambda: plain)
        return list(checks.check_conventions(Service(service, ref)))


def texts_of(service: Path, convention: str) -> list[str]:
    """Return the texts of one convention's findings, ten times as fast as `only`. Use it for further parts of a rule."""
    return [problem.what for problem in _named(convention).check(Service(service))]


def _named(convention: str) -> Convention:
    (one,) = (each for each in conventions() if each.id == convention)
    return one


def edit(path: str, old: str, new: str, times: int = 1) -> Broken:
    """Replace the first `times` occurrences of `old`. Fails without an occurrence, so that no mutation becomes stale."""

    def apply(service: Path) -> None:
        text = (service / path).read_text()
        assert old in text, f"{path} no longer holds {old!r}: mend this mutation"
        (service / path).write_text(text.replace(old, new, times))

    return apply


def everywhere(path: str, old: str, new: str) -> Broken:
    """Replace every `old`."""
    return edit(path, old, new, -1)


def append(path: str, text: str) -> Broken:
    """Append to a file, or write a new file."""

    def apply(service: Path) -> None:
        (service / path).parent.mkdir(parents=True, exist_ok=True)
        with (service / path).open("a") as file:
            file.write(text)

    return apply


def remove(path: str) -> Broken:
    return lambda service: (service / path).unlink()


def change_json(path: str, change: Callable[[Any], object]) -> Broken:
    """Change the content of a JSON file, and write it as `make specs` does."""

    def apply(service: Path) -> None:
        content = json.loads((service / path).read_text())
        change(content)
        (service / path).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    return apply


def both(*changes: Broken) -> Broken:
    return lambda service: [change(service) for change in changes]


def from_a_secret(variable: str, secret: str, key: str, name: str = "") -> str:
    """Return a patch for the end of an overlay: its Deployments, or the Deployment `name`, get the variable from a Secret."""
    target = f"kind: Deployment, name: {name}" if name else "kind: Deployment"
    return f"""
  - target: {{{target}}}
    patch: |
      - op: add
        path: /spec/template/spec/containers/0/env/-
        value: {{name: {variable}, valueFrom: {{secretKeyRef: {{name: {secret}, key: {key}}}}}}}
"""


def each_alone(mutations: Mutations) -> Callable[..., None]:
    """Make a test of each mutation: only that convention has a finding in the broken service.

    All conventions also judge a commit with the first mutation of each convention.
    """
    first: dict[str, str] = {}
    for name, (convention, _, _) in mutations.items():
        first.setdefault(convention, name)
    cases = [(*mutation, first[mutation[0]] == name) for name, mutation in mutations.items()]

    @pytest.mark.slow
    @pytest.mark.xdist_group("conventions")
    @pytest.mark.parametrize(("convention", "broken", "says", "is_first"), cases, ids=mutations)
    def test(
        all_broken: dict[pytest.Item, Path],
        request: pytest.FixtureRequest,
        convention: str,
        broken: Broken,
        says: str,
        is_first: bool,
    ) -> None:
        only(all_broken[request.node], convention, says, by_programs=True)
        if is_first:
            found = violations(committed(all_broken[request.node]), "HEAD", by_programs=True)
            assert {finding.id for finding in found} == {convention}
            assert any(says in finding.reason for finding in found), found

    return test


def only(service: Path, convention: str, says: str, *, by_programs: bool = False) -> None:
    """Check that only that convention is violated, and that its finding has the problem, the reason and the remedy."""
    found = violations(service, by_programs=by_programs)
    assert {finding.id for finding in found} == {convention}, found
    assert any(says in finding.reason for finding in found), found
    assert all(finding.why and finding.remedy for finding in found)


def committed(service: Path) -> Path:
    """Commit the service, and return a clone without a checkout."""
    git(service, "add", "--all")
    git(service, "commit", "--quiet", "--allow-empty", "--message", "Break it")
    bare = service.with_suffix(".git")
    subprocess.run(["git", "clone", "--quiet", "--bare", service, bare], check=True)
    git(bare, "update-ref", "refs/remotes/origin/main", git(service, "rev-parse", "origin/main").strip())
    return bare
