"""The seeds of every variant keep the conventions."""

import subprocess
import sys
from pathlib import Path

import pytest

from fleet.conventions import MODULES, Convention, conventions
from fleet.conventions.committed_secrets import NoSecrets
from fleet.service.service import Service
from tests.fleet.services import Born
from tests.support.answers import VARIANTS
from tests.support.commands import git

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("conventions")]

# The empty tree, which Git knows in every repository.
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

# Run `make specs` for many services in one process, with the tests' own packages, without installing a service.
WRITE = """
import os, sys
from importlib import import_module
from chassis.commands import main
for argument in sys.argv[1:]:
    folder, _, package = argument.partition("=")
    os.chdir(folder)
    sys.path.insert(0, os.path.abspath("src"))
    main(import_module(f"{package}.main").SERVICE, ["specs"])
"""


NEW = {"auth": "oidc", "chassis_parts": "[idempotency]"}
"""Answers that a new service has by default. `born` makes services with the defaults of an existing service."""


@pytest.fixture(scope="module")
def variants(born: Born) -> dict[str, Path]:
    services = {name: born(**NEW | answers) for name, answers in VARIANTS.items()}
    packages = {name: str(answers["service_name"]).replace("-", "_") for name, answers in VARIANTS.items()}
    arguments = [f"{folder}={packages[name]}" for name, folder in services.items()]
    subprocess.run([sys.executable, "-c", WRITE, *arguments], check=True, timeout=300)
    NoSecrets().prepare([Service(service) for service in services.values()])
    return services


def of(*modules: str) -> list[Convention]:
    return [one for one in conventions() if type(one).__module__ in [f"fleet.conventions.{name}" for name in modules]]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_keeps_the_conventions(variants: dict[str, Path], name: str) -> None:
    service = Service(variants[name])
    assert service.json("specs/openapi.json")
    # `make layers` checks the layers by the same tool; a lock file exists only after `make setup`.
    wanted = [one for one in of(*MODULES) if one.id not in ("code-layers", "supply-locked")]
    assert [problem for one in wanted for problem in one.check(service)] == []


@pytest.mark.parametrize("name", ["every-type", "many-words", "both-rabbitmq"])
def test_migrations_that_the_template_seeds_are_safe(variants: dict[str, Path], name: str) -> None:
    nothing = git(variants[name], "commit-tree", EMPTY_TREE, "-m", "Nothing").strip()
    service = Service(variants[name], base=nothing)
    assert [problem for one in of("migrations") for problem in one.check(service)] == []
    assert service.base is not None
    assert service.base.tree == {}
