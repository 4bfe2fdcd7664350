"""Docker Compose, which judges a file without an engine: this machine's, else the one of Debian, fetched once."""

import shutil
import subprocess
from pathlib import Path

from tests.support import debian
from tests.support.base_image import SUITE


def command() -> list[str]:
    """What `docker compose` is here. Skips where it neither is nor can be fetched."""
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0:
        return [docker, "compose"]
    return [str(plugin())]


def plugin() -> Path:
    """The program, of the base image's Debian: this machine's may have none since Compose was written anew."""
    return debian.unpacked("docker-compose", SUITE) / "usr/libexec/docker/cli-plugins/docker-compose"
