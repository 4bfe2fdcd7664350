"""A service with every part that a convention checks, installed once. Each test breaks it in one way."""

import shutil
import subprocess
from pathlib import Path

import pytest

from fleet.service.service import Service
from fleet.status.status import _prepare
from tests.fleet.services import Born, Installed, commit


@pytest.fixture(scope="module", autouse=True)
def renders(rendered_once: object) -> None:
    """Render each version once for each set of answers: the subject of these tests is not the renderer."""


@pytest.fixture(scope="session")
def sound(born: Born, installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service on main after the first hour, with specs and lock file, and without findings. Only for reading."""
    service = born(ci="both", messaging_style="events-and-queues", broker="nats")
    installed(service)
    commit(service, "Start")
    clone = tmp_path_factory.mktemp("sound") / "billing"
    subprocess.run(["git", "clone", "--quiet", service, clone], check=True)
    return clone


@pytest.fixture
def service(sound: Path, tmp_path: Path) -> Path:
    """A copy to break. origin/main is its state before."""
    return Path(shutil.copytree(sound, tmp_path / "billing", symlinks=True))


@pytest.fixture(scope="session")
def all_broken(
    sound: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[pytest.Item, Path]:
    """For each test of `each_alone` in this run: a copy of the service that is broken in one way.

    Each tool judges all copies in one run, as in `fleet status`, because most tools take longer to start than to judge.
    """
    copies = {}
    for item in request.session.items:
        if "all_broken" in getattr(item, "fixturenames", ()):
            copies[item] = tmp_path_factory.mktemp("broken") / "billing"
            shutil.copytree(sound, copies[item], symlinks=True)
            vars(item)["callspec"].params["broken"](copies[item])
    _prepare([Service(copy) for copy in copies.values()])
    return copies
