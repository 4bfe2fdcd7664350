"""The files for editors: valid, in agreement with the Makefile and the folders of the service, and only by an answer."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from chassis.dev import server

from tests.support.answers import EDITORS, VARIANTS
from tests.support.services import Render

FOLDERS = {".vscode", ".devcontainer"}


@pytest.fixture(scope="module")
def service(render: Render) -> Path:
    return render(**VARIANTS["queues-nats"])


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def commands(service: Path) -> list[str]:
    tasks = [task["command"] for task in read(service / ".vscode/tasks.json")["tasks"]]
    created = read(service / ".devcontainer/devcontainer.json")["postCreateCommand"]
    return [*tasks, *re.findall(r"make \w+", created)]


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITORS)
def test_each_answer_brings_only_its_own_folder(render: Render, name: str) -> None:
    there = {path.name for path in render(**{name: EDITORS[name]}).iterdir()}
    assert there & FOLDERS == {{"editor": ".vscode", "dev_container": ".devcontainer"}[name]}
    assert {path.name for path in render().iterdir()} & FOLDERS == set()


def test_every_make_target_of_the_files_for_editors_exists(service: Path) -> None:
    listed = subprocess.run(["make", "help"], cwd=service, capture_output=True, text=True, check=True).stdout
    targets = {line.split()[0] for line in listed.splitlines()}
    found = {command.split()[1] for command in commands(service)}
    assert found == {"dev", "check", "test", "setup"}
    assert found <= targets


def test_the_editor_attaches_to_the_port_of_make_dev(service: Path) -> None:
    attach, tests = read(service / ".vscode/launch.json")["configurations"]
    assert attach["connect"] == {"host": "127.0.0.1", "port": server.DEBUG_PORT}
    assert tests["module"] == "pytest"


def test_every_python_and_port_of_the_files_for_editors_is_the_services_own(service: Path) -> None:
    assert read(service / ".vscode/settings.json")["python.defaultInterpreterPath"].endswith("/.venv/bin/python")
    container = read(service / ".devcontainer/devcontainer.json")
    assert f"EXPOSE {container['forwardPorts'][0]}" in (service / "Dockerfile").read_text()
    base = re.findall(r"^FROM (\S+)$", (service / ".devcontainer/Dockerfile").read_text(), re.MULTILINE)
    assert base == re.findall(r"^FROM (\S+)$", (service / "Dockerfile").read_text(), re.MULTILINE)


def test_the_image_of_the_dev_container_has_its_user_and_the_user_is_not_root(service: Path) -> None:
    user = read(service / ".devcontainer/devcontainer.json")["remoteUser"]
    dockerfile = (service / ".devcontainer/Dockerfile").read_text()
    assert user != "root"
    assert re.search(rf"useradd .* {user}$", dockerfile, re.MULTILINE)
    assert dockerfile.rstrip().endswith(f"USER {user}")


def test_the_container_installs_the_extensions_that_the_editor_recommends(service: Path) -> None:
    container = read(service / ".devcontainer/devcontainer.json")
    recommended = read(service / ".vscode/extensions.json")["recommendations"]
    assert container["customizations"]["vscode"]["extensions"] == recommended
