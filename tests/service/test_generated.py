"""A newly generated service passes its own gates."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.answers import VARIANTS
from tests.support.commands import git, make, service_environment
from tests.support.interpreters import interpreters
from tests.support.paths import ROOT
from tests.support.services import Birth, Render

INSTALLED = ("short", "many-words", "every-type", "queues-nats", "both-rabbitmq")
"""Variants that together have every style, broker, type of field, rule and part. `default` is the style without messages."""


@pytest.mark.slow
def test_a_newborn_service_passes_all_its_gates_on_servers_of_its_own_and_leaves_git_clean(birth: Birth) -> None:
    passes_all_its_gates(birth(**VARIANTS["default"]))


@pytest.mark.slow
@pytest.mark.parametrize("variant", INSTALLED)
def test_a_newborn_service_passes_all_its_gates_and_leaves_git_clean(
    birth: Birth, variant: str, postgres_url: str
) -> None:
    passes_all_its_gates(birth(**VARIANTS[variant]), f"DATABASE_URL={postgres_url}")


def passes_all_its_gates(service: Path, *settings: str) -> None:
    checked = make(service, "check", *settings)
    assert "All gates passed." in checked.stdout
    assert " passed" in checked.stdout
    assert git(service, "status", "--porcelain") == ""


@pytest.mark.slow
@pytest.mark.parametrize("variant", sorted(VARIANTS.keys() - {"default", *INSTALLED}))
def test_a_newborn_service_with_other_names_passes_its_gates_with_packages_that_the_tests_lend(
    render: Render, variant: str, tmp_path: Path, postgres_url: str
) -> None:
    """These variants combine answers in other ways. INSTALLED has all of their packages, fields and documents."""
    service = Path(shutil.copytree(render(**VARIANTS[variant]), tmp_path / "service"))
    (service / ".venv").mkdir()
    for path in ("uv.lock", ".venv/.ready"):
        (service / path).touch()
    programs = ROOT / ".venv"
    lent = [f"RUN={programs}/bin/", f"VIRTUAL_ENV={programs}", "PYTHONPATH=src:chassis/src", "ARGS=-p no:schemathesis"]
    gates = "format-check lint types layers test"
    checked = make(service, "check", f"GATES={gates}", f"DATABASE_URL={postgres_url}", *lent)
    assert "All gates passed." in checked.stdout
    assert " passed" in checked.stdout


@pytest.mark.slow
@pytest.mark.parametrize("version", sorted(interpreters().keys() - {"{}.{}".format(*sys.version_info)}))
def test_a_newborn_service_passes_all_its_gates_on_every_other_python_of_this_machine(
    birth: Birth, version: str, tmp_path: Path, postgres_url: str
) -> None:
    ignored = shutil.ignore_patterns(".venv", ".dev", "*_cache", "__pycache__")
    service = shutil.copytree(birth(**VARIANTS["every-type"]), tmp_path / "service", ignore=ignored)
    environment = service_environment(UV_PYTHON=interpreters()[version], DATABASE_URL=postgres_url)
    ran = subprocess.run(
        ["make", "setup", "check"], cwd=service, env=environment, capture_output=True, text=True, timeout=600
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "All gates passed." in ran.stdout
    used = subprocess.check_output([service / ".venv/bin/python", "--version"], text=True)
    assert used.startswith(f"Python {version}.")
    # A test on another Python than production's prints a warning.
    production = (service / ".python-version").read_text().strip()
    told = f"This environment has {used.strip()}; production and CI run Python {production}"
    assert (told in ran.stdout) == (not production.startswith(f"{version}."))


@pytest.fixture
def shown(render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`shown()`: the Python that `make` lets uv use, on a machine with only these programs."""
    (tmp_path / "Makefile").write_text((render() / "Makefile").read_text())
    (tmp_path / ".python-version").write_text("3.14.8\n")
    (tmp_path / "local.mk").write_text('show:\n\t@printf "%s" "$$UV_PYTHON"\n')
    (tmp_path / "bin").mkdir()
    for name in ("sh", "git", "cat", "sed", "uv"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or "")

    def shown(*programs: tuple[str, str], **environment: str) -> str:
        for name, script in programs:
            (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / "bin" / name).chmod(0o755)
        env = {"PATH": str(tmp_path / "bin"), **environment}
        done = subprocess.run(
            ["/usr/bin/env", shutil.which("make"), "show"], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return shown


PYENV = 'test "$PYENV_DIR" = / || { echo "pyenv: version 3.14.8 is not installed" >&2; exit 1; }; echo /opt/3.12/python'


def test_a_laptop_uses_the_python_of_production_if_installed(shown: Any) -> None:
    has = [("python3", "echo /usr/bin/python3.12"), ("python3.14", "echo /opt/python3.14")]
    assert shown(*has) == "/opt/python3.14"


@pytest.mark.parametrize(
    ("script", "taken"),
    [
        ("echo '/opt/our $(pythons)/python3.12'", "/opt/our $(pythons)/python3.12"),
        (PYENV, "/opt/3.12/python"),
        ("exit 1", "3.14.8"),  # older than 3.11, or a version that pyenv lacks: uv fetches production's
    ],
)
def test_a_laptop_without_the_python_of_production_uses_another_python(shown: Any, script: str, taken: str) -> None:
    assert shown(("python3", script), ("python3.14", "exit 127")) == taken


@pytest.mark.parametrize("forge", ["GITHUB_ACTIONS", "GITLAB_CI"])
def test_ci_takes_the_python_of_production_alone(shown: Any, forge: str) -> None:
    assert shown(("python3", "echo /usr/bin/python3.12"), **{forge: "true"}) == "3.14.8"


def test_a_python_that_is_named_is_taken(shown: Any) -> None:
    assert shown(("python3", "echo /usr/bin/python3.12"), UV_PYTHON="3.13", GITHUB_ACTIONS="true") == "3.13"


@pytest.mark.slow
def test_its_tests_pass_in_parallel_workers_too(birth: Birth) -> None:
    tested = make(birth(**VARIANTS["default"]), "test", "ARGS=-n 2")
    assert " passed" in tested.stdout


@pytest.mark.slow
def test_a_new_column_becomes_a_migration_that_the_gate_accepts(birth: Birth) -> None:
    service = birth(**VARIANTS["default"])
    table = service / "src/billing/persistence/invoices.py"
    try:
        before = '    sa.Column("status", sa.String(16), nullable=False),\n'
        table.write_text(
            table.read_text().replace(before, f'    sa.Column("memo", sa.Text, nullable=True),\n{before}', 1)
        )
        assert make(service, "migrations", check=False).returncode != 0
        written = make(service, "migration", "m=add memo")
        assert "0002_add_memo.py" in written.stdout
        make(service, "migrations", "format-check", "lint")
    finally:
        git(service, "checkout", "--quiet", ".")
        git(service, "clean", "--quiet", "--force", "src")
