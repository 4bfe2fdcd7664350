"""A service with every kind of thing that a convention is about, installed once, to be broken in one way at a time."""

import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fleet.check.checks import kept
from fleet.check.findings import Finding
from fleet.conventions import conventions
from fleet.service.service import Service
from tests.conftest import git, make
from tests.fleet.conftest import Born, commit

Broken = Callable[[Path], object]

# By what is broken: the convention that sees it, the change that breaks it, what the finding says.
Mutations = dict[str, tuple[str, Broken, str]]


@pytest.fixture(scope="session")
def sound(born: Born, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As its team has it on main after the first hour: specs and lock file committed, nothing wrong. Not for writing into."""
    service = born(ci="both", messaging_style="events-and-queues", broker="nats")
    make(service, "setup")
    commit(service, "Start")
    clone = tmp_path_factory.mktemp("sound") / "billing"
    subprocess.run(["git", "clone", "--quiet", service, clone], check=True)
    return clone


@pytest.fixture
def service(sound: Path, tmp_path: Path) -> Path:
    """A copy to break; origin/main is how it was."""
    return Path(shutil.copytree(sound, tmp_path / "billing", symlinks=True))


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


@pytest.fixture(scope="module")
def all_broken(
    sound: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[pytest.Item, Path]:
    """For each test that `each_alone` made in this module: a copy of the service that is broken in its way.

    What is cheaper for all of them together is done now, as by `fleet status`: most tools take longer to start than to judge.
    """
    copies = {}
    for item in request.session.items:
        if item.path == request.path and "all_broken" in getattr(item, "fixturenames", ()):
            copies[item] = tmp_path_factory.mktemp("broken") / "billing"
            shutil.copytree(sound, copies[item], symlinks=True)
            vars(item)["callspec"].params["broken"](copies[item])
    for convention in conventions():
        with suppress(Exception):  # which `check` meets again
            convention.prepare([Service(copy) for copy in copies.values()])
    return copies


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
