"""Services rendered from this working tree: as files only, or installed and committed."""

import fcntl
import gc
import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from pytest_copie.plugin import Copie

from tests.support import http_clients, leftovers, reporting
from tests.support.commands import git, make
from tests.support.paths import ROOT
from tests.support.quick_copier import COMPILED, take_shortcuts
from tests.support.services import Birth, Render, lend_packages
from tests.support.tools import KINGFISHER_RULES, made_once

SERVERS = {"postgres_url", "run"}
"""The fixtures that start a server: PostgreSQL, a broker. A test that uses one, also through others, is marked `server`."""

SLOW_TIMEOUT_SECONDS = 900
"""The time limit of slow tests: some install packages, and some run all gates of a service, on a busy machine."""


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGTERM and SIGHUP end the run as Ctrl-C does, so that started processes are stopped. Clean up after any end.

    The handlers also let the programs that tests start receive SIGINT and SIGHUP, which a background job and nohup
    would make these programs ignore.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        under_nohup = number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
        signal.signal(number, _go_on if under_nohup else signal.default_int_handler)
    http_clients.prepare()
    config.pluginmanager.register(reporting.Report())
    gc.disable()
    if "PYTEST_XDIST_WORKER" not in os.environ:
        leftovers.clean_up_after_this_process()


def pytest_collection_finish() -> None:
    """Exclude the tests and their modules from garbage collection: it takes a third of the time of collecting tests."""
    gc.freeze()
    gc.enable()


def _go_on(*_: object) -> None:
    """Ignore a signal: the user has logged out, and wants the run to continue."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests that use a server."""
    if not SERVERS.isdisjoint(getattr(item, "fixturenames", ())):
        item.add_marker("server")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests more time, and make xdist_group work, which pytest-xdist 3.8 and pytest 9.2 together do not."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_SECONDS))
        if grouped := vars(item).get("_nodeid"):
            item._id = type(item.id).parse(grouped)
    # Quick tests come last, so that no core is idle at the end. Quick tests on servers come after all others: the processor
    # time of a server counts for the folder of the last test in the server's process.
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(
            key=lambda item: (item.get_closest_marker("slow") is None, item.get_closest_marker("server") is not None)
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that is skipped on CI: the machine of CI has, or may install, everything that the tests need."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} is skipped on CI, where every test has to run. {reason}"
    return report


@pytest.fixture(scope="session")
def quick_copier() -> Generator[None]:
    """Let Copier take shortcuts in this process."""
    with pytest.MonkeyPatch.context() as patch:
        take_shortcuts(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def settings_of_tools(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Compile Kingfisher's rules and the texts of the template once, and hide the user's settings of Copier."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KF_RULE_CACHE_DIR", str(KINGFISHER_RULES))
        patch.setenv(COMPILED, str(folder_of_the_run(tmp_path_factory) / "compiled"))
        settings = tmp_path_factory.mktemp("copier") / "settings.yml"
        settings.write_text("{}\n")
        patch.setenv("COPIER_SETTINGS_PATH", str(settings))
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The temporary folder that all test processes of this run share."""
    return folder_of_the_run(tmp_path_factory)


def folder_of_the_run(factory: pytest.TempPathFactory) -> Path:
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def fleet_cache(shared: Path) -> Path:
    """A folder for FLEET_CACHE_DIR, so that tests do not use the cache of the user."""
    return shared / "fleet-cache"


@pytest.fixture(scope="session")
def template(shared: Path) -> Path:
    """The template of this working tree with its uncommitted changes, without Git: Copier copies it unchanged."""

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
    """`render(**answers)`: the files of a service, for reading. Equal answers are rendered once."""

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
def birth(render: Render, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Birth:
    """`birth(**answers)`: a service that is installed and committed, as after its team's first commit.

    Tests that change the service work in a Git checkout and clean up after themselves. The first test process installs
    the service; the others copy it, because most of an installation is the compiling of packages.
    """
    born: dict[str, Path] = {}

    def install(service: Path, **answers: Any) -> None:
        shutil.copytree(render(**answers), service)
        if installed := next(service.parent.glob("*.installed"), None):
            lend_packages(installed.with_suffix(""), service)
        make(service, "setup")
        git(service, "init", "--quiet", "--initial-branch", "main")
        git(service, "add", "--all")
        git(service, "commit", "--quiet", "--message", "Start")

    def birth(**answers: Any) -> Path:
        key = hashlib.sha256(json.dumps(answers, sort_keys=True).encode()).hexdigest()[:16]
        if key not in born:
            first = shared / "installed" / key
            first.parent.mkdir(exist_ok=True)
            with first.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not first.with_suffix(".installed").exists():
                    shutil.rmtree(first, ignore_errors=True)
                    install(first, **answers)
                    first.with_suffix(".installed").touch()
            born[key] = tmp_path_factory.mktemp("born") / "service"
            shutil.copytree(first, born[key], symlinks=True, ignore=shutil.ignore_patterns(".venv"))
            lend_packages(first, born[key])
            make(born[key], "setup")
        return born[key]

    return birth
