"""A history of the template for these tests, and services of its versions.

Version 1.0.0 is this working tree. history.py has the changes of later versions.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.template.answers import Answers
from fleet.template.release import NOT_RENDERED, Release
from fleet.template.rendering import Rendered
from fleet.template.template import Template
from tests.fleet.services import Born, Installed, commit
from tests.fleet.template_history import HANDED_OVER, release_first_version, release_later_versions, release_that_claims
from tests.support.commands import git
from tests.support.services import install
from tests.support.tools import made_once

HISTORY = Path("history/slipway")
"""The place below the folder that all processes of a run share."""


@pytest.fixture(scope="session", autouse=True)
def environment(fleet_cache: Path, shared: Path) -> Iterator[None]:
    """A cache for the tests; Git with an identity; the command line trusts the template of `history`."""
    identity = {"GIT_AUTHOR_NAME": "Test", "GIT_COMMITTER_NAME": "Test"}
    identity |= {name.replace("NAME", "EMAIL"): "test@example.com" for name in identity}
    settings = {"FLEET_CACHE_DIR": str(fleet_cache), "FLEET_TEMPLATE": str(shared / HISTORY)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (identity | settings).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(autouse=True)
def trust() -> Iterator[None]:
    """Reset the trusted templates, the policy and the day, which last until a command's process ends: here more tests follow."""
    yield
    for name in ("FLEET_TRUSTED_TEMPLATES", "FLEET_POLICY", "FLEET_TODAY"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def history(template: Path, shared: Path) -> Path:
    """The template's repository with v1.0.0, v1.1.0, v1.2.0, v1.3.0."""

    def release(scratch: Path) -> None:
        shutil.copytree(template, scratch / "slipway")
        # these are half of the files; fleet/ stays, because `make conventions` installs fleet from here
        for folder in set(NOT_RENDERED) - {"fleet/"}:
            shutil.rmtree(scratch / "slipway" / folder)
        release_first_version(scratch / "slipway")
        release_later_versions(scratch / "slipway")

    return made_once((shared / HISTORY).parent, release) / "slipway"


@pytest.fixture(scope="session")
def born(history: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Born:
    """`born(**answers)`: a fresh, committed copy of a service at v1.0.0."""

    def born(version: str = "v1.0.0", **answers: Any) -> Path:
        recorded = {"_commit": version, "_src_path": str(history), "service_name": "billing", **answers}
        text = yaml.safe_dump(recorded).encode()

        def start(scratch: Path) -> None:
            Template(str(history)).at(version).render(Answers.parse(text), scratch)
            git(scratch, "init", "--quiet", "--initial-branch", "main")
            git(scratch, "add", "--all")
            git(scratch, "commit", "--quiet", "--message", "Start")
            # a copy of one pack takes less time than a copy of 300 objects
            git(scratch, "repack", "-a", "-d", "--quiet")

        service = tmp_path_factory.mktemp("service") / recorded["service_name"]
        first = made_once(shared / "born" / hashlib.sha256(text).hexdigest()[:16], start)
        shutil.copytree(first, service, symlinks=True)
        return service

    return born


@pytest.fixture(scope="session")
def installed(shared: Path) -> Installed:
    """`installed(service)`: install the service, with packages that this run has installed for another service."""
    return partial(install, shared=shared)


@pytest.fixture(scope="module")
def rendered_once() -> Iterator[dict[str, Rendered]]:
    """Render each version once for each set of answers, in tests whose subject is not the renderer. Yield the renders."""
    render = Release.rendered

    def rendered(release: Release, answers: Answers, data: dict[str, Any] | None) -> Rendered:
        key = f"{release.commit} {release.version} {answers.text} {data}"
        if key not in _RENDERED:
            _RENDERED[key] = render(release, answers, data)
        return _RENDERED[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Release, "rendered", rendered)
        yield _RENDERED


_RENDERED: dict[str, Rendered] = {}


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge services in this process, where a test is not about processes: the start of each takes a second."""

    def here(work: Callable[[Any], Any], items: Iterable[Any], *, jobs: int) -> Generator[tuple[Any, Any]]:
        for one in items:
            yield one, work(one)

    for module in ("check.check", "status.status", "map.reader"):
        monkeypatch.setattr(f"fleet.{module}.in_processes", here)


@pytest.fixture
def handed_over(born: Born) -> Path:
    """A service at 1.1.0. Version 1.2.0 hands over files: the team has edited the second and deleted the third."""
    service = born("v1.1.0")
    _, edited, deleted, _ = (service / path for path in HANDED_OVER)
    edited.write_text("# Ours.\n")
    deleted.unlink()
    commit(service)
    return service


@pytest.fixture
def claimed(born: Born, history: Path, tmp_path: Path) -> Path:
    """A service at 1.3.0. Version 1.4.0 claims CODEOWNERS, the edited README.md, and the deleted catalogue entry."""
    service, successor = born("v1.3.0"), tmp_path / "successor"
    git(tmp_path, "clone", "--quiet", str(history), str(successor))
    release_that_claims(successor, "README.md", "CODEOWNERS", "catalog-info.yaml")
    answers = service / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace(str(history), str(successor)))
    (service / "README.md").write_text("# Ours.\n")
    (service / "catalog-info.yaml").unlink()
    commit(service)
    return service
