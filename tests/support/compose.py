"""Docker Compose, which checks a file without an engine: this machine's program, or else Debian's, fetched once."""

import shutil
import subprocess
from pathlib import Path

from tests.support import debian
from tests.support.base_image import SUITE


def command() -> list[str]:
    """Return the command for `docker compose`. Skips the test if Compose can neither be found nor fetched."""
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0:
        return [docker, "compose"]
    return [str(plugin())]


def plugin() -> Path:
    """Fetch Compose from the base image's release of Debian, because this machine's release may have no Compose 2."""
    return debian.unpacked("docker-compose", SUITE) / "usr/libexec/docker/cli-plugins/docker-compose"
