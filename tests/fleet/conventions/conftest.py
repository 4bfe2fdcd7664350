"""A service with every kind of thing that a convention is about, installed once, to be broken in one way at a time."""

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from fleet.conventions import conventions
from fleet.service.service import Service
from tests.fleet.services import Born, commit
from tests.support.commands import make


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
