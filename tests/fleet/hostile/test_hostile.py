"""A hand-made repository that attacks users of `fleet`: nothing of it runs or leaves its folder."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from fleet.errors import FleetError
from fleet.git import remote
from fleet.service.fleet_toml import Member
from fleet.service.service import Service
from fleet.status.status import status
from fleet.template.trust import refuse_untrusted, trust
from fleet.update.generated import finish
from tests.fleet.command_line import run
from tests.fleet.hostile.trees import HARMFUL, with_path
from tests.fleet.services import Born, commit
from tests.support.commands import git

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("path", HARMFUL)
def test_a_path_that_leaves_the_folder_is_refused(born: Born, path: str) -> None:
    hostile = born()
    with_path(hostile, path, b"")
    with pytest.raises(FleetError, match="leaves its folder"):
        _ = Service(hostile, "HEAD").tree


@pytest.mark.usefixtures("in_this_process")
def test_status_writes_nothing_outside_of_its_folders(
    born: Born, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile, good = born(), born()
    with_path(hostile, HARMFUL[0], b"print('run')\n")
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    # The folder of temporary checkouts: four levels up is still inside of the folder that the test checks.
    (tmp_path / "a/b/c/d").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a/b/c/d"))
    members = [
        Member("local", str(hostile), is_local=True),
        Member("remote", f"file://{hostile}"),
        Member("good", str(good), is_local=True),
    ]
    found = status(members, jobs=1)
    assert [bool(one.unreadable) for one in found] == [True, True, False]
    assert list(tmp_path.rglob("escaped.py")) == []


def test_fetched_objects_are_checked_before_storage(born: Born, tmp_path: Path) -> None:
    hostile = born()
    with_path(hostile, "zz/../../escaped.py", b"")
    clone = ("clone", "--quiet", "--no-checkout", f"file://{hostile}", str(tmp_path / "clone"))
    with pytest.raises(FleetError, match="hasDotdot"):
        remote.exchange(tmp_path, *clone)
    # Git alone accepts the clone, so the refusal above is the work of `fleet`.
    subprocess.run(["git", *clone], check=True, cwd=tmp_path, capture_output=True)


HOOK = """import os, pathlib
pathlib.Path(os.environ.get("HOME", "/"), "hook-ran").write_text(str(dict(os.environ)))
"""


@pytest.fixture
def chooses_its_template(born: Born, history: Path, tmp_path: Path) -> Path:
    """A service that records a template of its own, whose newest release has a hook."""
    theirs, service = tmp_path / "theirs", born("v1.3.0")
    git(tmp_path, "clone", "--quiet", str(history), str(theirs))
    (theirs / "hooks/migrations/9.0.0.py").write_text(HOOK)
    commit(theirs)
    git(theirs, "tag", "v9.0.0")
    answers = service / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace(str(history), str(theirs)))
    commit(service)
    return service


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("command", ["update", "check", "status", "update-all"])
def test_a_service_does_not_choose_the_template_that_runs(
    chooses_its_template: Path,
    born: Born,
    history: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    (tmp_path / "fleet.toml").write_text(
        f'template = "{history}"\n[[service]]\npath = "{chooses_its_template}"\nname = "evil"\n'
        f'[[service]]\npath = "{born("v1.3.0")}"\n'
    )
    # The recorded template is not even read: without .git, an attempt to read it would end in another error.
    shutil.rmtree(tmp_path / "theirs/.git")
    for name, value in (("HOME", str(tmp_path)), ("FLEET_CACHE_DIR", str(tmp_path / "cache")), ("COLUMNS", "1000")):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    of_fleet = {"status": ["status"], "update-all": ["update-all", "--no-test"]}
    told = run(*of_fleet.get(command, [command, str(chooses_its_template)]), status=1)
    assert f"the recorded template {tmp_path / 'theirs'} is not the platform's" in told
    assert not (tmp_path / "hook-ran").exists()
    if command in of_fleet:
        # The other finding is about the good service: every service without specs has such a finding.
        assert "1 breach, 1 unreadable" in told or "1 need nothing, 1 failed" in told


def test_a_template_that_is_named_is_trusted_from_then_on(
    chooses_its_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    run("update", str(chooses_its_template), "--no-finish", "--template", str(tmp_path / "theirs"))
    assert (tmp_path / "hook-ran").exists()


TRUSTED = "https://git.example.com/platform/slipway.git"


@pytest.mark.parametrize(
    "address",
    [
        TRUSTED,
        "https://git.example.com/platform/slipway",
        "https://robot:token@git.example.com/platform/slipway.git",
        "git+https://GIT.example.com/platform/slipway.git/",
        "git@git.example.com:platform/slipway.git",
        "ssh://git@git.example.com/platform/slipway.git",
    ],
)
def test_a_template_is_the_same_by_each_of_its_addresses(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("FLEET_TRUSTED_TEMPLATES", "")
    trust([TRUSTED, "gh:acme/slipway"])
    refuse_untrusted(address)
    refuse_untrusted("https://github.com/acme/slipway.git")


@pytest.mark.parametrize("address", ["git+file:///srv/slipway", "file:///srv/slipway", "/srv/slipway"])
def test_a_template_on_this_machine_is_the_same_by_its_path_and_by_its_url(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("FLEET_TRUSTED_TEMPLATES", "")
    trust(["/srv/slipway"])
    refuse_untrusted(address)


@pytest.mark.parametrize(
    "address",
    [
        "https://git.example.com/platform/slipway.git/../../evil/slipway",
        "https://git.example.com@evil.example.com/platform/slipway.git",
        "https://evil.example.com?@git.example.com/platform/slipway.git",
        "https://evil.example.com#@git.example.com/platform/slipway.git",
        "https://git.example.com/platform/Slipway.git",
        "https://git.example.com/platform/slipway.git?x",
        "http://git.example.com/platform/slipway.git",
        "git.example.com/platform/slipway",
        "ext::sh -c touch% x git.example.com/platform/slipway.git",
        "gh:evil/slipway",
        "~/platform/slipway",
        "",
    ],
)
def test_an_address_that_looks_like_the_templates_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("FLEET_TRUSTED_TEMPLATES", "")
    trust([TRUSTED])
    with pytest.raises(FleetError, match="not the platform's"):
        refuse_untrusted(address)


def test_a_services_own_code_gets_no_secret_of_the_updating_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Makefile").write_text("specs:\n\tenv > specs\n")
    (tmp_path / "uv.lock").touch()
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    secrets = (
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "SSH_AUTH_SOCK",
        "DATABASE_URL",
        "UV_PUBLISH_TOKEN",
        "GIT_ASKPASS",
    )
    for name in secrets:
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("UV_INDEX_ACME_PASSWORD", "needed")
    assert finish(tmp_path) == ""
    given = (tmp_path / "specs").read_text()
    assert "UV_INDEX_ACME_PASSWORD=needed" in given
    assert not [name for name in secrets if f"{name}=" in given]
