"""docs/how-to/publish-the-chassis.md is true: the test runs its commands, against a package index with a password."""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from chassis.dev import embedded

from fleet.conventions.code import Layers
from fleet.conventions.packages import WithinRanges
from fleet.service.service import Service
from tests.support import pypi
from tests.support.commands import git, service_environment
from tests.support.needs import PYPISERVER
from tests.support.paths import ROOT
from tests.support.quick_copier import run_quick_copier
from tests.support.services import lend_packages

PAGE = (ROOT / "docs/how-to/publish-the-chassis.md").read_text()
START_SECONDS = 60
# htpasswd -nbm platform s3cret
ACCOUNT = "platform:$apr1$V3ZeYXR3$qeLgGz.7yBWwSafzwDMpT/\n"
# A module that is added to the chassis, and that files outside of the chassis import.
NEWER = "src/chassis/newer.py"

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("published-chassis")]


def commands(heading: str) -> str:
    """Return the shell block of a section of the page."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return block


@dataclass(frozen=True)
class Platform:
    """Template and index with the names on the page, and the environment of a person who may read both."""

    template: Path
    index: str
    environment: dict[str, str]

    def run(self, script: str, cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
        script = script.replace("https://git.example.com/platform/slipway.git", f"file://{self.template}")
        script = script.replace("https://packages.example.com/", self.index)
        shell = ["bash", "-e", "-c", script]
        environment = self.environment | extra
        return subprocess.run(shell, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)

    def succeed(self, script: str, cwd: Path, **extra: str) -> str:
        done = self.run(script, cwd, **extra)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a package index that requires the password."""
    folder = tmp_path_factory.mktemp("index")
    (folder / "packages").mkdir()
    (folder / "accounts").write_text(ACCOUNT)
    port = embedded.free_port()
    server = [str(pypi.programs(PYPISERVER) / "pypi-server"), "run", "--interface", "127.0.0.1", "--port", str(port)]
    rules = ["--authenticate", "update,list,download", "--passwords", str(folder / "accounts"), "--disable-fallback"]
    with (folder / "log").open("w") as log:
        process = embedded.spawn(
            [*server, *rules, "--server", "wsgiref", str(folder / "packages")],
            stop_signal=signal.SIGTERM,
            stdout=log,
            stderr=log,
        )
        try:
            address = f"http://127.0.0.1:{port}/"
            deadline = time.monotonic() + START_SECONDS
            while status(f"{address}simple/") != 401:
                if process.child.poll() is not None or time.monotonic() > deadline:
                    pytest.fail((folder / "log").read_text())
                time.sleep(0.05)
            yield address
        finally:
            process.stop()


def status(url: str, **headers: str) -> int | None:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


@pytest.fixture(scope="module")
def platform(template: Path, index: str, fleet_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """The releases 1.4.0 (this working tree) and 1.5.0, both published as on the page."""
    folder = tmp_path_factory.mktemp("platform")
    (folder / "bin").mkdir()
    (folder / "bin/fleet").symlink_to(Path(sys.executable).with_name("fleet"))
    (folder / ".netrc").write_text("machine 127.0.0.1 login platform password s3cret\n")
    (folder / ".netrc").chmod(0o600)
    environment = service_environment(
        PATH=f"{folder / 'bin'}:{os.environ['PATH']}",
        NETRC=str(folder / ".netrc"),
        UV_PYTHON=sys.executable,  # uv alone would fetch the version in .python-version
        FLEET_CACHE_DIR=str(fleet_cache),
        FLEET_TEMPLATE=str(folder / "slipway"),
        **{f"GIT_{who}_{what}": "test@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    )
    repository = folder / "slipway"
    shutil.copytree(template, repository)
    git(repository, "init", "--quiet", "--initial-branch", "main")
    release(repository, "v1.4.0")
    (repository / "template/chassis" / NEWER).write_text('"""What only the newer chassis has."""\n')
    (repository / "template/platform.txt.jinja").write_text("Of {{ service_name }}.\n")
    release(repository, "v1.5.0")

    made = Platform(repository, index, environment)
    for version in ("1.4.0", "1.5.0"):
        (folder / version).mkdir()
        account = {"UV_PUBLISH_USERNAME": "platform", "UV_PUBLISH_PASSWORD": "s3cret"}
        made.succeed(commands("Publish each release").replace("1.4.0", version), folder / version, **account)
    return made


def release(repository: Path, version: str) -> None:
    git(repository, "add", "--all", "--force")
    git(repository, "commit", "--quiet", "--message", version)
    git(repository, "tag", version)


@pytest.fixture(scope="module")
def vendored(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service of the first release, with its chassis in a folder, locked and committed."""
    service = tmp_path_factory.mktemp("vendored") / "billing"
    run_quick_copier("copy", "--vcs-ref", "v1.4.0", platform.template, service, service_name="billing", ci="both")
    platform.succeed("git init --quiet --initial-branch main; uv lock; git add --all; git commit -qm Start", service)
    return service


@pytest.fixture(scope="module")
def graduated(platform: Platform, vendored: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service after the page's commands, including `make check`."""
    service = tmp_path_factory.mktemp("graduated") / "billing"
    git(service.parent, "clone", "--quiet", str(vendored), str(service))
    git(service, "remote", "remove", "origin")
    platform.succeed(commands("Let a service graduate").replace("-d ", "--to v1.4.0 -d "), service)
    return service


def copy(service: Path, into: Path) -> Path:
    """Copy a service with its repository and its environment."""
    copied = into / service.name
    git(into, "clone", "--quiet", str(service), str(copied))
    lend_packages(service, copied)
    return copied


def installed(service: Path) -> str:
    """Return version and place of the chassis that the service imports."""
    ask = "import chassis, importlib.metadata as m; print(m.version('slipway-chassis'), chassis.__file__)"
    python = [service / ".venv/bin/python", "-c", ask]
    version, _, file = subprocess.check_output(python, cwd=service, text=True).partition(" ")
    return version if "site-packages" in file else f"{version} vendored"


def findings(platform: Platform, service: Path, *options: str) -> set[tuple[str, str]]:
    """Return the findings of `fleet check`, without the notice of a newer version."""
    done = platform.run(f"fleet check --format json {' '.join(options)}", service)
    found = {(one["id"], one["path"]) for one in json.loads(done.stdout)["findings"]}
    return {(kind, path) for kind, path in found if kind != "template-lag"}


def test_the_index_gives_nothing_without_the_password(platform: Platform) -> None:
    simple = f"{platform.index}simple/slipway-chassis/"
    assert status(simple) == 401
    assert status(simple, Authorization=f"Basic {base64.b64encode(b'platform:s3cret').decode()}") == 200


def test_a_service_graduates_by_the_commands_of_the_page(platform: Platform, graduated: Path) -> None:
    assert installed(graduated) == "1.4.0"
    assert not (graduated / "chassis").exists()
    assert git(graduated, "status", "--porcelain") == ""
    shown = re.search(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert shown
    for part in shown[1].replace("https://packages.example.com/", platform.index).split("\n\n"):
        assert part.strip() in (graduated / "pyproject.toml").read_text()
    assert "s3cret" not in git(graduated, "grep", "-h", "", "HEAD")
    platform.succeed(".venv/bin/python -m billing specs --check", graduated)


def test_nothing_is_drift_and_conventions_judge_the_service_as_with_the_folder(
    platform: Platform, graduated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert findings(platform, graduated) == set()
    pyproject, late = graduated / "pyproject.toml", graduated / "src/billing/domain/late.py"
    monkeypatch.setenv("FLEET_CACHE_DIR", platform.environment["FLEET_CACHE_DIR"])
    late.write_text("import chassis.http\n")
    pyproject.write_text(pyproject.read_text() + '\n[tool.uv]\noverride-dependencies = ["fastapi<1"]\n')
    try:
        found = [problem.path for rule in (Layers(), WithinRanges()) for problem in rule.check(Service(graduated))]
        assert found == ["src/billing/domain/late.py", "pyproject.toml"]
    finally:
        late.unlink()
        git(graduated, "checkout", "--quiet", ".")


def test_an_update_by_fleet_brings_the_chassis_of_the_new_release(
    platform: Platform, graduated: Path, tmp_path: Path
) -> None:
    service = copy(graduated, tmp_path)
    # The last commands of the page were tested when the service graduated.
    platform.succeed("fleet update --no-finish; make setup specs-check", service)
    assert (service / "platform.txt").exists()
    assert not (service / "chassis").exists()
    assert installed(service) == "1.5.0"
    platform.succeed(".venv/bin/python -c 'import chassis.newer'; git commit -qam Lock", service)
    assert findings(platform, service, "--drift") == set()


def test_an_update_by_copier_alone_does_so_with_make_setup(platform: Platform, graduated: Path, tmp_path: Path) -> None:
    service = copy(graduated, tmp_path)
    run_quick_copier("update", service)
    assert (service / "platform.txt").exists()
    assert not (service / "chassis").exists()
    stale = platform.run("make setup", service, UV_LOCKED="1")
    assert stale.returncode != 0
    assert "needs to be updated" in stale.stderr
    # The new version comes into pyproject.toml only with the next setup.
    assert "slipway-chassis==1.4.0" in (service / "pyproject.toml").read_text()
    platform.succeed("make setup", service)
    assert installed(service) == "1.5.0"


def test_the_published_chassis_brings_the_client_of_the_answered_broker_and_no_other(
    platform: Platform, graduated: Path, tmp_path: Path
) -> None:
    service = copy(graduated, tmp_path)
    for answers, requirement, client in (
        ("-d messaging_style=events -d broker=kafka", "slipway-chassis[kafka,oidc]==1.4.0", {"aiokafka"}),
        ("-d broker=nats", "slipway-chassis[nats,oidc]==1.4.0", {"nats"}),
        ("-d messaging_style=sync", "slipway-chassis[oidc]==1.4.0", set()),
    ):
        update = f"fleet update --no-finish --to v1.4.0 {answers}"
        platform.succeed(f"{update}; make setup; git add --all; git commit -qm Lock", service)
        assert f'"{requirement}"' in (service / "pyproject.toml").read_text()
        packages = {path.name for path in service.glob(".venv/lib/*/site-packages/*")}
        assert packages & {"aiokafka", "aiormq", "nats"} == client
        assert findings(platform, service, "--drift") == set()


def test_the_way_back_brings_the_folder_back(
    platform: Platform, vendored: Path, graduated: Path, tmp_path: Path
) -> None:
    service = copy(graduated, tmp_path)
    back = commands("Go back").replace("-d ", "--to v1.4.0 -d ").replace(" check\n", " specs-check\n")
    platform.succeed(back, service)
    assert installed(service) == "1.0.0 vendored"
    pyproject = service / "pyproject.toml"
    pyproject.write_text(re.sub(r"\[\[tool\.uv\.index\]\]\n(.+\n)+\n", "", pyproject.read_text()))
    platform.succeed("make setup; git add --all; git commit -qm Back", service)
    assert (service / "uv.lock").read_text() == (vendored / "uv.lock").read_text()
    assert findings(platform, service, "--drift") == set()


def test_a_version_that_was_not_published_is_named(platform: Platform, graduated: Path, tmp_path: Path) -> None:
    service = copy(graduated, tmp_path)
    answers = service / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace("_commit: v1.4.0", "_commit: v1.9.0"))
    refused = platform.run("make setup", service)
    assert refused.returncode != 0
    said = re.search(
        r"\*(no version of \S+) … (found on) (\S+ but not at the requested version)\*", " ".join(PAGE.split())
    )
    assert said
    assert said[1] in refused.stderr
    assert said[3].replace("https://packages.example.com/", platform.index) in refused.stderr


def test_the_image_needs_no_folder_and_gets_the_password_as_a_secret(
    platform: Platform, graduated: Path, tmp_path: Path
) -> None:
    """Run the build's step with its copied and mounted files. That an engine mounts secrets is not our promise."""
    dockerfile = (graduated / "Dockerfile").read_text()
    assert "chassis/" not in dockerfile
    step = re.search(r"^COPY (.+) \./\nRUN (.+) \\\n +(uv sync .+)$", dockerfile, re.MULTILINE)
    assert step is not None
    copied, mounts, install = step.groups()
    assert "--mount=type=secret,id=netrc,target=/root/.netrc" in mounts.split()
    for name in copied.split():
        shutil.copy(graduated / name, tmp_path)
    empty = {"UV_CACHE_DIR": str(tmp_path / "cache")}
    refused = platform.run(install, tmp_path, NETRC="/dev/null", **empty)
    assert refused.returncode != 0
    assert "401" in refused.stderr
    platform.succeed(install, tmp_path)
    assert (tmp_path / ".venv/bin/uvicorn").exists()
    (tmp_path / "docker").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "docker").chmod(0o755)
    played = {"PATH": f"{tmp_path}:{platform.environment['PATH']}"}
    makes = platform.succeed("make image", graduated, **played)
    assert f"--secret id=netrc,src={platform.environment['NETRC']}" in makes
    assert "--secret" not in platform.succeed("make image", graduated, NETRC="/nowhere", **played)


def test_the_pipeline_signs_in_before_installing_and_has_no_findings(graduated: Path) -> None:
    jobs = (graduated / ".github/workflows/ci.yaml").read_text()
    assert jobs.count("secrets.NETRC") == 4
    zizmor = [Path(sys.executable).with_name("zizmor"), "--offline", "--quiet", "--persona", "auditor", "."]
    done = subprocess.run(zizmor, cwd=graduated / ".github", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
