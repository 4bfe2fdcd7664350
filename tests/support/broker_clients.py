"""The clients of the brokers, and which of them a pyproject.toml asks for."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

CLIENTS = {"nats": "nats-py", "kafka": "aiokafka", "rabbitmq": "aiormq"}


def asked_for(pyproject: Path) -> set[str]:
    """The packages that a pyproject.toml asks for, extras included."""
    project = tomllib.loads(pyproject.read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    return {Requirement(text).name for texts in (project["dependencies"], *extras) for text in texts}
