"""Services rendered from this working tree, as tests need them: text only, or installed and committed."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from pytest_copie.plugin import Copie

from fleet.template.rendering import CompilingOnce
from tests.support import leftovers, reporting
from tests.support.paths import ROOT
from tests.support.tools import KINGFISHER_RULES, made_once

SLOW_TIMEOUT_SECONDS = 900
"""Some install what they need, and some run all gates of a service, on a machine that may be busy."""

Render = Callable[..., Path]
Birth = Callable[..., Path]


def pytest_configure(config: pytest.Config) -> None:
    """End by SIGTERM and SIGHUP as by Ctrl-C, which stops what was started, and have the rest stopped however this ends.

    A handler is also what lets the programs that tests start receive SIGINT and SIGHUP, which a background job and nohup
    make them ignore.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        under_nohup = number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
        signal.signal(number, _go_on if under_nohup else signal.default_int_handler)
    config.pluginmanager.register(reporting.Report())
    if "PYTEST_XDIST_WORKER" not in os.environ:
        leftovers.clean_up_after_this_process()


def _go_on(*_: object) -> None:
    """The user has logged out, and wants the run to go on."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests more time. And make xdist_group work: pytest-xdist 3.8 writes a group where pytest 9.2 does not look."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_SECONDS))
        if grouped := vars(item).get("_nodeid"):
            item._id = type(item.id).parse(grouped)
    if "PYTEST_XDIST_WORKER" in os.environ:  # the quick ones last: no core is idle while another one ends a long test
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that is skipped on CI: its machine has, or may install, all that the tests need."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} is skipped on CI, where every test has to run. {reason}"
    return report


@pytest.fixture(scope="session")
def quick_copier() -> Generator[None]:
    """Let Copier, in this process, do once what it does for each render, for tests that render much and look at it.

    It compiles every file, and every part of every path, once. And it does not ask git about each file that is written,
    for an answer that matters only where core.fileMode is off. What plain Copier does is tested by `run_copier`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("copier._main.SandboxedEnvironment", CompilingOnce)
        patch.setattr("copier._main.Worker._sync_git_index_executable_bit", lambda *_: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def settings_of_tools(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Kingfisher's rules are compiled once, and the settings that the user of this machine has for Copier stay out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KF_RULE_CACHE_DIR", str(KINGFISHER_RULES))
        settings = tmp_path_factory.mktemp("copier") / "settings.yml"
        settings.write_text("{}\n")
        patch.setenv("COPIER_SETTINGS_PATH", str(settings))
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder of all processes of this run."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def fleet_cache(shared: Path) -> Path:
    """For FLEET_CACHE_DIR: nothing of what whoever runs the tests has there."""
    return shared / "fleet-cache"


@pytest.fixture(scope="session")
def template(shared: Path) -> Path:
    """The template as this working tree has it, uncommitted changes included, without git: Copier copies it as it is."""

    def snapshot(folder: Path) -> None:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)

    return made_once(shared / "template", snapshot)


@pytest.fixture(scope="session")
def render(template: Path, shared: Path, quick_copier: None, tmp_path_factory: pytest.TempPathFactory) -> Render:
    """`render(**answers)`: a service's files, to look at. Equal answers are rendered once."""

    def render(**answers: Any) -> Path:
        answers = {"service_name": "billing", **answers}

        def copy(scratch: Path) -> None:
            copie = Copie(template, tmp_path_factory.mktemp("copie"), config_file=template / "copier.yml")
            result = copie.copy(answers)
            if result.exception:
                raise result.exception
            assert result.project_dir
            result.project_dir.rename(scratch / "service")

        digest = hashlib.sha256(json.dumps(answers, sort_keys=True).encode()).hexdigest()[:16]
        return made_once(shared / "rendered" / digest, copy) / "service"

    return render


@pytest.fixture(scope="session")
def birth(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Birth:
    """`birth(**answers)`: a service that is installed and committed, as its team's first commit has it.

    Tests that change it work in a git checkout and clean up after themselves.
    """
    born: dict[str, Path] = {}

    def birth(**answers: Any) -> Path:
        key = json.dumps(answers, sort_keys=True)
        if key not in born:
            service = tmp_path_factory.mktemp("born") / "service"
            shutil.copytree(render(**answers), service)
            if born:
                lend_packages(next(iter(born.values())), service)
            make(service, "setup")
            git(service, "init", "--quiet", "--initial-branch", "main")
            git(service, "add", "--all")
            git(service, "commit", "--quiet", "--message", "Start")
            born[key] = service
        return born[key]

    return birth


def lend_packages(born: Path, service: Path) -> None:
    """Begin with the environment of another service: `make setup` mends what differs. Python has compiled it already."""
    source, target = born / ".venv", service / ".venv"
    shutil.copytree(
        source, target, symlinks=True, copy_function=os.link, ignore=lambda folder, names: {".ready"} & set(names)
    )
    for script in (target / "bin").iterdir():
        if not script.is_symlink() and (text := script.read_bytes()).startswith(b"#!"):  # it names its Python
            mode = script.stat().st_mode
            script.unlink()
            script.write_bytes(text.replace(bytes(source), bytes(target)))
            script.chmod(mode)


def run_copier(command: str, *arguments: str | Path, **answers: str) -> None:
    """Run `copier copy` or `copier update` as a team does: the real command, without trust."""
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
    """The environment of a service's team: ours without what make, pytest and uv put there for us."""
    ours = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VIRTUAL_ENV", "DATABASE_URL", "CI", "ARGS", "BASE", "JOBS"}
    kept = {name: value for name, value in os.environ.items() if name not in ours and not name.startswith("PYTEST_")}
    return kept | extra


def git(service: Path, *arguments: str) -> str:
    """Run git with an identity of its own: a fresh machine has none."""
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
    result = subprocess.run(["git", *identity, *arguments], cwd=service, check=True, capture_output=True, text=True)
    return result.stdout
