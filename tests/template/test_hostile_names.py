"""Names that people, git and pipelines give reach every command as text: neither make nor a shell expands them."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import debian, stand_ins
from tests.support.answers import VARIANTS
from tests.support.commands import git
from tests.support.paths import ROOT
from tests.support.pipelines import METADATA
from tests.support.services import Render
from tests.support.stand_ins import DIGEST, Machine

# A program that expands one of these makes a file called x. Git accepts the first two as tags; the third has each kind of expansion.
TAG = "v1$(touch${IFS}x)"
OLDER = "v1`touch${IFS}x`"
EVERYTHING = f"""{TAG}{OLDER};touch${{IFS}}x;"touch x";';touch${{IFS}}x;'$(shell touch x) $$(touch x) & touch x"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine whose uv and Python also record their calls, because the service's own are not installed."""
    machine = stand_ins.machine(tmp_path)
    for name in ("uv", "python3"):
        shutil.copy2(tmp_path / "bin/docker", tmp_path / "bin" / name)
    return machine


@pytest.fixture
def service(render: Render, machine: Machine, tmp_path: Path) -> Path:
    """A service in a folder of an unusual name; the programs of its environment record their arguments."""
    folder = tmp_path / 'it\'s $(touch x) "ours"'
    shutil.copytree(render(**VARIANTS["default"]), folder)
    (folder / ".venv/bin").mkdir(parents=True)
    for name in ("python", "ruff", "ty", "lint-imports"):
        shutil.copy2(machine.folder / "bin/docker", folder / ".venv/bin" / name)
    (folder / "uv.lock").touch()
    (folder / ".venv/.ready").touch()
    # The files that earlier jobs of a pipeline leave for `make sign`.
    (folder / "build").mkdir(exist_ok=True)
    (folder / METADATA).write_text('{"predicate": {}}')
    return folder


@pytest.fixture(autouse=True)
def nothing_was_run(tmp_path: Path):
    yield
    assert [path for path in tmp_path.rglob("*") if path.name == "x"] == []


def said(machine: Machine) -> str:
    return json.dumps(machine.calls())


COMMANDS = {
    "make image": {"VERSION"},
    "make push REPOSITORY=ghcr.io/acme/billing": {"VERSION"},
    "make sign": {"IMAGE"},
    "make smoke URL=https://billing.example.com": {"VERSION"},
    "make smoke VERSION=v1": {"URL"},
    "make compatible": {"BASE"},
    "make conventions": {"BASE", "FORMAT"},
    "make migration": {"m"},
}
NAMED = [(command, name) for command, names in COMMANDS.items() for name in sorted(names)]


@pytest.mark.parametrize(("command", "name"), NAMED, ids=[f"{command} {name}" for command, name in NAMED])
@pytest.mark.parametrize("given", ["in the environment", "to make"])
def test_a_name_reaches_the_command_unchanged(
    service: Path, machine: Machine, command: str, name: str, given: str
) -> None:
    recorded = service / ".copier-answers.yml"
    recorded.write_text("_commit: v1.0.0\n_src_path: https://git.example.com/slipway\n")
    if given == "to make":
        done = machine.run(f'{command} {name}="$TEXT"', service, TEXT=EVERYTHING)
    else:
        done = machine.run(command, service, **{name: EVERYTHING})
    assert done.returncode == 0, done.stderr
    assert json.dumps(EVERYTHING)[1:-1] in said(machine)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "calls"),
    [("make image VERSION", "docker"), ("make compatible BASE", "python"), ("make -k check m", "ty")],
)
def test_a_newer_make_does_not_expand_a_name_either(service: Path, machine: Machine, command: str, calls: str) -> None:
    debian.with_its_own_libc("make", "make", "trixie", machine.folder / "bin")
    done = machine.run(f'{command}="$TEXT"', service, TEXT=EVERYTHING)
    assert done.returncode == 0, done.stderr
    assert calls in [call[0] for call in machine.calls()]


@pytest.mark.parametrize("name", ["REPOSITORY", "OVERLAY", "IMAGE"])
def test_a_name_that_nothing_can_have_is_refused_before_anything_is_called(
    service: Path, machine: Machine, name: str
) -> None:
    command = "make push" if name == "REPOSITORY" else f"make deploy IMAGE=registry.example.com/billing@{DIGEST}"
    for given in (f'{command} {name}="$TEXT"', f'{name}="$TEXT" {command.replace("IMAGE=", "IGNORED=")}'):
        assert machine.run(given, service, TEXT=EVERYTHING).returncode != 0
    assert [call[0] for call in machine.calls() if call[0] != "python3"] == []


@pytest.mark.parametrize(
    "command", ["make image", "make push REPOSITORY=ghcr.io/acme/billing", "make smoke URL=https://x"]
)
def test_the_tag_of_the_commit_is_text(service: Path, machine: Machine, command: str) -> None:
    git(service, "init", "--quiet", "--initial-branch", "main")
    git(service, "commit", "--quiet", "--allow-empty", "--message", "Start")
    git(service, "tag", "--annotate", "--message", "Release", TAG)
    assert machine.run(command, service).returncode == 0
    assert TAG in said(machine)


@pytest.mark.parametrize("command", ["make conventions", "make update"])
@pytest.mark.parametrize("address", [f"https://git.example.com/{TAG}{OLDER}", f"'/srv/\";touch x;\"{TAG}'"])
def test_values_of_the_answers_file_are_text(service: Path, machine: Machine, command: str, address: str) -> None:
    (service / ".copier-answers.yml").write_text(f"_commit: {TAG}{OLDER}\n_src_path: {address}\n")
    shutil.copy2(machine.folder / "bin/docker", machine.folder / "bin/git")
    assert machine.run(command, service).returncode == 0
    (asked,) = (call for call in machine.calls() if call[0] == "uv")
    assert TAG in asked[asked.index("--from") + 1]


@pytest.mark.slow
def test_the_answers_of_a_service_with_an_index_are_text(render: Render, machine: Machine, tmp_path: Path) -> None:
    service = tmp_path / "billing"
    shutil.copytree(render(chassis_index="https://packages.example.com/simple/"), service)
    (service / ".copier-answers.yml").write_text(
        "_commit: v1$(touch${IFS}x)\n_src_path: https://git.example.com/slipway\n"
    )
    (service / ".netrc").touch()
    assert machine.run("make uv.lock NETRC='.netrc'; make image NETRC=\"$TEXT\"", service, TEXT="$(touch x)").returncode
    assert "slipway-chassis[oidc]==1$(touch${IFS}x)" in said(machine)


@pytest.mark.slow
def test_a_branch_or_a_title_in_the_environment_of_a_job_is_text(service: Path, machine: Machine) -> None:
    named = ("CI_COMMIT_REF_NAME", "CI_COMMIT_TAG", "CI_COMMIT_TITLE", "CI_MERGE_REQUEST_TITLE", "GITHUB_HEAD_REF")
    every = dict.fromkeys(named, EVERYTHING)
    for command in ("make image", "make push REPOSITORY=ghcr.io/acme/billing", "make compatible", "make help"):
        assert machine.run(command, service, **every).returncode == 0


def test_the_make_of_this_repository_expands_no_path(tmp_path: Path) -> None:
    env = {**os.environ, "PATH": f"{tmp_path}/$(touch x)$(shell touch x):{os.environ['PATH']}"}
    shutil.copy2(ROOT / "Makefile", tmp_path / "Makefile")
    shown = subprocess.run(["make", "help"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stderr
