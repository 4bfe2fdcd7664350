"""Run git, make and Copier in a service as its team does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run_copier(command: str, *arguments: str | Path, **answers: str) -> None:
    """Run `copier copy` or `copier update` as a team does: the real command, without --trust."""
    data = [part for name, answer in answers.items() for part in ("--data", f"{name}={answer}")]
    run = [sys.executable, "-m", "copier", command, "--defaults", "--quiet", *data, *map(str, arguments)]
    done = subprocess.run(run, env=service_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def make(service: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run make in a service as its team does."""
    result = subprocess.run(
        ["make", *arguments], cwd=service, env=service_environment(), capture_output=True, text=True
    )
    if check and result.returncode != 0:
        pytest.fail(f"make {' '.join(arguments)} failed\n{result.stdout}\n{result.stderr}")
    return result


def service_environment(**extra: str) -> dict[str, str]:
    """Return the environment of a service's team: ours without the variables of make, pytest and uv."""
    ours = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VIRTUAL_ENV", "DATABASE_URL", "CI", "ARGS", "BASE", "JOBS"}
    kept = {name: value for name, value in os.environ.items() if name not in ours and not name.startswith("PYTEST_")}
    return kept | extra


def git(service: Path, *arguments: str) -> str:
    """Run Git with an identity of its own, because a fresh machine has none."""
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
    result = subprocess.run(["git", *identity, *arguments], cwd=service, check=True, capture_output=True, text=True)
    return result.stdout
