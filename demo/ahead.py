"""Make the packages and the empty database of a service while Copier writes its files."""

import shutil

from demo.background import Background
from demo.service import ROOT, DemoService

PACKAGES = ROOT / "build" / "demo" / "packages"
"""A project without code, whose packages are the packages of a new service."""

CHASSIS = ROOT / "template" / "chassis"
EXTRAS = ("dev", "nats", "oidc")
"""The packages that the answers of billing add to the packages of the chassis. `uv sync` in the service corrects a difference."""


class Ahead(Background):
    """Install packages into the service's environment, compile their modules, and make the database of `make dev`."""

    def __init__(self, service: DemoService) -> None:
        PACKAGES.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHASSIS / "pyproject.toml", PACKAGES)
        venv = service.folder / ".venv"
        super().__init__(
            "the packages and the database were",
            ["uv", "sync", "--quiet", "--no-install-project", "--project", PACKAGES, *(f"--extra={e}" for e in EXTRAS)],
            [venv / "bin" / "python", ROOT / "demo" / "first_start.py", service.folder / ".dev" / "postgres"],
            UV_PROJECT_ENVIRONMENT=str(venv),
            PYTHONPATH=str(CHASSIS / "src"),
        )
