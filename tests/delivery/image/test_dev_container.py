"""The dev container of a service: the engine builds its image, and its user is not root and has what `make setup` needs."""

from pathlib import Path

import pytest

from tests.support.base_image import VERSION
from tests.support.engine import Engine

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("image")]

IMAGE = "slipway-test:dev-container"
SHOW = "id -un && python --version && git --version && make --version && python -m venv /home/dev/tools"


def test_the_image_of_the_dev_container_builds_and_has_the_tools_that_setup_needs(engine: Engine, source: Path) -> None:
    engine.docker("build", "--quiet", "--tag", IMAGE, str(source / ".devcontainer"))
    try:
        shown = engine.docker("run", "--rm", "--network", "none", IMAGE, "sh", "-c", SHOW).stdout
    finally:
        engine.docker("image", "rm", "--force", IMAGE)
    user, python, git, make = shown.splitlines()[:4]
    assert user == "dev"
    assert python.startswith(f"Python {VERSION}")
    assert git.startswith("git version")
    assert make.startswith("GNU Make")
