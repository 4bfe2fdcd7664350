"""Docker Compose, which judges a file without an engine: this machine's, else the one of Debian, fetched once."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests import base_image
from tests.tools import TOOLS, call, one_at_a_time


def command() -> list[str]:
    """What `docker compose` is here. Skips where it neither is nor can be fetched."""
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0:
        return [docker, "compose"]
    return [str(plugin())]


def plugin() -> Path:
    """The program, of the base image's Debian: this machine's may have none since Compose was written anew."""
    program = TOOLS / "docker-compose"
    with one_at_a_time("docker-compose"):
        if not program.exists():
            if shutil.which("apt-get") is None:
                pytest.skip("Docker Compose is not here, and only Debian brings it along: install Docker")
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "sources.list").write_text(f"deb {base_image.mirror()} {base_image.SUITE} main\n")
                Path(folder, "lists/partial").mkdir(parents=True)
                places = {"Dir::Etc::SourceList": f"{folder}/sources.list", "Dir::Etc::SourceParts": "/dev/null"}
                places |= {"Dir::State::Lists": f"{folder}/lists", "Dir::Cache": folder, "APT::Sandbox::User": "root"}
                apt = ["env", f"--chdir={folder}", "apt-get", *(f"-o{name}={value}" for name, value in places.items())]
                call(*apt, "update")
                call(*apt, "download", "docker-compose")
                (package,) = Path(folder).glob("docker-compose_*.deb")
                call("dpkg-deb", "--extract", str(package), f"{folder}/package")
                shutil.move(f"{folder}/package/usr/libexec/docker/cli-plugins/docker-compose", program)
    return program
