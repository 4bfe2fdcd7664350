"""A newly generated service passes its own gates."""

import re
import shutil
import subprocess
import sys
from itertools import cycle, islice, repeat
from pathlib import Path
from typing import Any

import pytest

from tests.support.answers import VARIANTS
from tests.support.commands import git, make
from tests.support.interpreters import interpreters
from tests.support.paths import ROOT
from tests.support.services import Birth, Render

INSTALLED = ("many-words", "every-type", "both-rabbitmq", "queues-nats")
"""Variants that together have every broker, kind of messages, type of field, rule and part.

The pipelines in tests/delivery/test_pipelines.py install `default` and run its gates on servers of its own. test_shell.py
installs a service without identity and runs it.
"""
IN_PARALLEL = "both-rabbitmq"
"""The variant whose tests run in two processes."""
OURS = "{}.{}".format(*sys.version_info)


def installations() -> list[tuple[str, str]]:
    """Return a variant for each Python of this machine, and a Python for each variant. The last variants are on ours."""
    others = sorted(interpreters().keys() - {OURS})
    count = max(len(INSTALLED), len(others) + 1)
    return list(zip(islice(cycle(INSTALLED), count), [*others, *repeat(OURS, count - len(others))], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "version"), installations())
def test_a_newborn_service_passes_all_its_gates_on_each_python_of_this_machine_and_leaves_git_clean(
    birth: Birth, render: Render, tmp_path: Path, variant: str, version: str, postgres_url: str
) -> None:
    service = birth(**VARIANTS[variant]) if version == OURS else born_on(version, render(**VARIANTS[variant]), tmp_path)
    parallel = ["ARGS=-n 2"] if variant == IN_PARALLEL else []
    checked = make(service, "check", f"DATABASE_URL={postgres_url}", *parallel)
    assert "All gates passed." in checked.stdout
    assert re.search(r"\d+ passed", checked.stdout)
    assert git(service, "status", "--porcelain") == ""
    used = subprocess.check_output([service / ".venv/bin/python", "--version"], text=True)
    assert used.startswith(f"Python {version}.")
    # A test on another Python than production's prints a warning.
    production = (service / ".python-version").read_text().strip()
    told = f"This environment has {used.strip()}; production and CI run Python {production}"
    assert (told in checked.stdout) == (not production.startswith(f"{version}."))


def born_on(version: str, rendered: Path, folder: Path) -> Path:
    service = Path(shutil.copytree(rendered, folder / "service"))
    make(service, "setup", f"UV_PYTHON={interpreters()[version]}")
    git(service, "init", "--quiet", "--initial-branch", "main")
    git(service, "add", "--all")
    git(service, "commit", "--quiet", "--message", "Start")
    return service


EVENTS_ALONE = VARIANTS["events-rabbitmq"] | {
    "aggregates": f"{VARIANTS['approved']['aggregates']}\n{VARIANTS['events-rabbitmq']['aggregates']}\n"
    "Invoice: {number: string(40), total: money}"
}
"""Answers that no installed variant has: events alone, without identity, with the aggregates of all variants of events."""


@pytest.mark.slow
def test_a_newborn_service_with_events_alone_passes_its_gates_with_packages_that_the_tests_lend(
    render: Render, tmp_path: Path, postgres_url: str
) -> None:
    """tests/template/test_render.py checks the format and the lint rules of every variant."""
    service = Path(shutil.copytree(render(**EVENTS_ALONE), tmp_path / "service"))
    (service / ".venv").mkdir()
    for path in ("uv.lock", ".venv/.ready"):
        (service / path).touch()
    programs = ROOT / ".venv"
    lent = [f"RUN={programs}/bin/", f"VIRTUAL_ENV={programs}", "PYTHONPATH=src:chassis/src", "ARGS=-p no:schemathesis"]
    checked = make(service, "check", "GATES=types layers test", f"DATABASE_URL={postgres_url}", *lent)
    assert "All gates passed." in checked.stdout
    assert re.search(r"\d+ passed", checked.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("style", ["events", "queues", "events-and-queues"])
def test_a_broker_changes_nothing_in_the_code_of_a_service_but_the_name_of_the_broker(
    render: Render, style: str
) -> None:
    """So the gates of a service on one broker prove as much about its code as the gates on each broker."""

    def code(broker: str) -> dict[str, str]:
        service = render(messaging_style=style, broker=broker, auth="none")
        paths = [path for folder in ("src", "tests") for path in (service / folder).rglob("*") if path.is_file()]
        read = {path.relative_to(service).as_posix(): path.read_text() for path in paths}
        assert broker in read["src/billing/main.py"]
        return {name: re.sub(f"(?i){broker}", "broker", text) for name, text in read.items()}

    assert code("nats") == code("kafka") == code("rabbitmq")


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
def test_a_new_column_becomes_a_migration_that_the_gate_accepts(birth: Birth, postgres_url: str) -> None:
    database = f"DATABASE_URL={postgres_url}"
    service = birth(**VARIANTS["default"])
    table = service / "src/billing/persistence/invoices.py"
    try:
        before = '    sa.Column("status", sa.String(16), nullable=False),\n'
        table.write_text(
            table.read_text().replace(before, f'    sa.Column("memo", sa.Text, nullable=True),\n{before}', 1)
        )
        assert make(service, "migrations", database, check=False).returncode != 0
        written = make(service, "migration", "m=add memo", database)
        assert "0002_add_memo.py" in written.stdout
        make(service, "migrations", "format-check", "lint", database)
    finally:
        git(service, "checkout", "--quiet", ".")
        git(service, "clean", "--quiet", "--force", "src")
