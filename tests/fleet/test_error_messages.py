"""Each mistake in a service or its template has a message of one sentence with a remedy."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from fleet.check import standing as standing_module
from fleet.check.lag import lag_of
from fleet.errors import FleetError, MachineError
from fleet.git import git as git_module
from fleet.git import remote
from fleet.git.environment import OF_A_REPOSITORY
from fleet.git.git import answer
from fleet.service.fleet_toml import Member
from fleet.service.revisions import append_migrations
from fleet.service.service import Service
from fleet.status.status import status
from fleet.template.answers import Answers, aggregates_in
from fleet.template.release import as_version
from fleet.template.template import Template
from fleet.update.conflicts import refuse_conflicts
from fleet.update.update import Options, update
from tests.fleet.services import Born, commit
from tests.support.commands import git
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no .copier-answers.yml: not a service of this platform"),
        (b"a: [\n", "is not YAML, line 2: restore it from git"),
        (b"\xff", "is not YAML: restore it from git"),
        (b"a: 1\nborn: 2027-02-30\n", r"is not YAML, line 2 \(2027-02-30 is no timestamp\): restore it from git"),
        (b"a: !!int ''\n", "is not YAML, line 1 .*: restore it from git"),
        (b"a: 1" + b":1" * 50, r"is not YAML, line 1 \(a number has more than 100 characters\)"),
        (b"a: 1" + b":1" * 50 + b".5", r"is not YAML, line 1 \(a number has more than 100 characters\)"),
        (
            b'_commit: "v1\\0"\n_src_path: /x\n',
            "the value of _commit in .copier-answers.yml contains a NUL character: remove",
        ),
        (b"- a\n", "holds no answers"),
        (b"_commit: v1\n_src_path: /x\n1: x\n", "has an answer to 1, which is no question: remove it"),
        (b"_commit: v1.0.0\n", "has no _src_path"),
        (b"_src_path: /x\n", "has no _commit: the service was copied from a folder without git history"),
    ],
)
def test_a_broken_answers_file(content: bytes | None, message: str) -> None:
    with pytest.raises(FleetError, match=message):
        Answers.parse(content)


def test_an_abbreviated_hash_of_digits_is_a_version_as_written() -> None:
    assert Answers.parse(b"_commit: 0123456\n_src_path: /x\n").version == "0123456"


def test_aggregates_are_read_from_their_block() -> None:
    values = Answers.parse(b"_commit: v1\n_src_path: /x\naggregates: |\n  A:\n    b: text\n  C:\n    d: text?\n").values
    assert aggregates_in(values) == {"A": "A:\n  b: text", "C": "C:\n  d: text?"}


def test_a_relative_template_path() -> None:
    with pytest.raises(FleetError, match="relative path, which depends on the current folder"):
        Template("../slipway")


def test_a_template_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=r"is not a git repository on this machine\. If it has moved, write"):
        _ = Template(str(tmp_path / "gone")).repository


def test_a_template_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(
        FleetError, match=r"gone\.git cannot be fetched: git clone failed: [^\n]*\n(.*\n)*If it has moved"
    ):
        _ = Template("ssh://git@localhost:1/gone.git").repository


@pytest.mark.slow
def test_a_cache_may_be_named_from_where_fleet_is_run(
    history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLEET_CACHE_DIR", "cache")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    git(tmp_path, "config", "--file", "gitconfig", f"url.file://{history}.insteadOf", "https://git.example.com/slipway")
    template = Template("https://git.example.com/slipway")
    assert template.repository.is_relative_to(tmp_path / "cache")
    assert (template.newest().folder / "copier.yml").is_file()


@pytest.mark.slow
def test_a_token_in_the_templates_address_is_not_shown(
    history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    address = "https://robot:secret@localhost:1/slipway.git"
    with pytest.raises(FleetError, match=r"template https://localhost:1/slipway\.git cannot be fetched") as unreachable:
        _ = Template(address).repository
    git(tmp_path, "config", "--file", "gitconfig", f"url.file://{history}.insteadOf", address)
    with pytest.raises(FleetError, match=r"template https://localhost:1/slipway\.git has no version v7") as unknown:
        Template(address).at("v7")
    git(tmp_path, "config", "--file", "gitconfig", "--unset", f"url.file://{history}.insteadOf")
    with pytest.raises(FleetError, match="git fetch failed") as unfetched:
        Template(address).refresh()
    assert "secret" not in f"{unreachable.value} {unknown.value} {unfetched.value}"


@pytest.mark.slow
def test_a_version_that_does_not_exist_is_fetched_once_and_not_at_every_access(
    history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    git(tmp_path, "config", "--file", "gitconfig", f"url.file://{history}.insteadOf", "https://git.example.com/slipway")
    fetches, searches = Mock(wraps=remote.exchange), Mock(wraps=git_module.is_damaged)
    monkeypatch.setattr(remote, "exchange", fetches)
    monkeypatch.setattr(git_module, "is_damaged", searches)
    template = Template("https://git.example.com/slipway")
    for _ in range(3):
        with pytest.raises(FleetError, match="has no version v7"):
            template.at("v7")
    assert (fetches.call_count, searches.call_count) == (2, 0)


@pytest.mark.parametrize("version", [":/.", "HEAD^{/.}", "HEAD@{0}"])
def test_a_version_is_a_name_and_no_search(history: Path, version: str) -> None:
    with pytest.raises(FleetError, match="has no version"):
        Template(str(history)).at(version)


def test_a_failure_of_this_machine_is_not_taken_for_a_missing_version(
    history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = Template(str(history))
    with monkeypatch.context() as patch:
        patch.setattr(git_module, "answer", Mock(side_effect=MachineError("git was given up")))
        with pytest.raises(MachineError, match="git was given up"):
            template.at("v1.0.0")
    assert template.at("v1.0.0").version == "v1.0.0"


def test_the_reason_for_a_missing_version_keeps_no_service_in_memory(history: Path) -> None:
    """An exception keeps all variables of its callers."""
    template = Template(str(history))
    errors = []
    for _ in range(2):
        with pytest.raises(FleetError, match="has no version v7") as raised:
            template.at("v7")
        errors.append(raised.value)
    assert errors[0] is not errors[1]


@pytest.mark.slow
def test_a_template_whose_host_accepts_and_never_answers(
    history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    git(tmp_path, "config", "--file", "gitconfig", f"url.file://{history}.insteadOf", "git://localhost/slipway")
    known = Template("git://localhost/slipway")
    _ = known.repository
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr("fleet.git.git.GIT_SECONDS", 1)
        address = f"git://127.0.0.1:{silent.getsockname()[1]}/slipway"
        with pytest.raises(FleetError, match="cannot be fetched: git clone was given up after 1 seconds"):
            _ = Template(address).repository
        git(tmp_path, "config", "--file", "gitconfig", "--unset", f"url.file://{history}.insteadOf")
        git(tmp_path, "config", "--file", "gitconfig", f"url.{address}.insteadOf", "git://localhost/slipway")
        with pytest.raises(FleetError, match="git fetch was given up after 1 seconds"):
            known.refresh()


@pytest.mark.slow
def test_a_release_is_seen_at_once_and_without_the_host_the_known_releases_count(
    born: Born, history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    template = tmp_path / "template"
    git(tmp_path, "clone", "--quiet", "--bare", str(history), str(template))
    service, address = born("v1.3.0"), "https://git.example.com/slipway.git"
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    git(tmp_path, "config", "--file", "gitconfig", f"url.file://{template}.insteadOf", address)
    answers = service / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace(str(history), address))
    commit(service)
    member = Member("billing", str(service), is_local=True)

    def newest() -> str:
        standing_module._template.cache_clear()
        [standing] = status([member], jobs=1)
        return standing.newest or standing.unreadable

    for module in ("check.checks", "status.status"):
        monkeypatch.setattr(f"fleet.{module}.conventions", lambda: ())
    assert newest() == "v1.3.0"
    git(template, "tag", "v1.3.1", "v1.3.0^{}")
    assert newest() == "v1.3.1"
    template.rename(tmp_path / "away")
    assert newest() == "v1.3.1"
    assert "a release of the last 0.0 hours may be missing here" in capsys.readouterr().err
    assert lag_of(Service(service)).newest == "v1.3.1"


@pytest.mark.slow
def test_a_service_in_a_folder_of_a_repository_is_not_taken_for_the_service_at_its_root(born: Born) -> None:
    outer, inner = born(), born(service_name="refunds")
    shutil.copytree(inner, outer / "services/refunds", ignore=shutil.ignore_patterns(".git"))
    commit(outer)
    before = git(outer, "rev-parse", "HEAD")
    for folder in (outer / "services/refunds", outer / "services/refunds/src"):
        with pytest.raises(FleetError, match="services/refunds is a service in a folder of the repository"):
            update(folder, Options({}))
    assert git(outer, "rev-parse", "HEAD") == before
    assert Service(outer / "src").name == "billing"


def test_a_folder_that_is_no_repository(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="is not a git repository"):
        Service(tmp_path)


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    with pytest.raises(FleetError, match="no commit yet: commit the generated files first"):
        Service(tmp_path)


def test_a_value_that_is_none_is_named_with_its_line(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "Start")
    (tmp_path / "ours.yaml").write_text("a: 1\nb: !!bool perhaps\n")
    with pytest.raises(FleetError, match=r"ours\.yaml is not YAML, line 2 \(perhaps is no bool\)"):
        Service(tmp_path).yaml("ours.yaml")


def test_an_unknown_commit_of_a_service(born: Born) -> None:
    with pytest.raises(FleetError, match="has no commit v7"):
        Service(born(), "v7")


def test_a_migration_that_hides_its_revision() -> None:
    seeds = {"src/a/migrations/versions/0002_create_bs.py": b"revision = '0002'\n"}
    with pytest.raises(FleetError, match=r"0001_a.py does not assign a plain text to revision"):
        append_migrations(seeds, {"src/a/migrations/versions/0001_a.py": b"revision = str(1)\n"})


@pytest.mark.slow
def test_a_template_behind_a_url_is_mirrored_and_asked_again_for_a_version_that_is_not_there(
    history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(history), "slipway.git")
    git(tmp_path, "config", "--file", "gitconfig", f"url.file://{tmp_path}/.insteadOf", "https://git.example.com/")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    assert Template("git+https://git.example.com/slipway.git").newest().version == "v1.3.0"
    for version in ("v1.4.0", "v2.0.0rc1"):
        later = git(tmp_path / "slipway.git", "commit-tree", "v1.3.0^{tree}", "-p", "v1.3.0", "-m", version).strip()
        git(tmp_path / "slipway.git", "tag", version, later)
    template = Template("https://git.example.com/slipway.git")
    assert template.releases[-1] == "v1.3.0"
    assert template.at("v1.4.0").version == "v1.4.0"
    assert (template.at("v1.4.0").folder / "copier.yml").is_file()
    assert Template("https://git.example.com/slipway.git").newest().version == "v1.4.0"
    (tmp_path / "slipway.git").rename(tmp_path / "gone.git")
    # Known versions need no network.
    assert Template("https://git.example.com/slipway.git").at("v1.0.0").version == "v1.0.0"


def test_a_recorded_version_that_the_template_does_not_have(born: Born) -> None:
    service = born()
    answers = service / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace("_commit: v1.0.0", "_commit: v1.0.0-3-gabcdef0"))
    commit(service)
    for command in (lambda: Service(service).release, lambda: update(service, Options({}))):
        with pytest.raises(FleetError, match=r"has no version v1\.0\.0-3-gabcdef0; .*\. _commit of .*git log"):
            command()


@pytest.mark.parametrize(
    ("lower", "higher"), [("v1.2.0", "v1.10.0"), ("v1.2.0", "v1.2.0-3-gabcdef0"), ("1.2.0-3-gabcdef0", "1.2.1")]
)
def test_versions_are_compared_as_versions(lower: str, higher: str) -> None:
    low, high = as_version(lower), as_version(higher)
    assert low is not None
    assert high is not None
    assert low < high


@pytest.mark.slow
def test_an_error_message_has_no_traceback_and_the_exit_status_is_1(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fleet", "check", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"fleet: {tmp_path} is not a git repository\n"


@pytest.mark.slow
def test_a_refusal_of_the_system_is_a_message_too(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    command = [sys.executable, "-m", "fleet", "status", "--output", "taken/report.txt"]
    (tmp_path / "fleet.toml").write_text('[[service]]\npath = "gone"\n')
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == f"fleet: cannot use {tmp_path / 'taken'}: File exists"


def test_without_git_nothing_can_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "--quiet")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FleetError, match="git is not installed"):
        Service(tmp_path)


def test_variables_configure_git_for_fetching_and_select_no_other_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_a_repository = git(tmp_path, "rev-parse", "--local-env-vars").split()
    assert {name for name in of_a_repository if not name.startswith("GIT_CONFIG_")} <= OF_A_REPOSITORY
    git(tmp_path, "init", "--quiet")
    given = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "http.proxy", "GIT_CONFIG_VALUE_0": "proxy.example.com"}
    for name, value in (given | {"GIT_DIR": str(tmp_path / "another")}).items():
        monkeypatch.setenv(name, value)
    assert remote.exchange(tmp_path, "config", "http.proxy") == b"proxy.example.com\n"
    assert answer(tmp_path, "config", "http.proxy") is None
    assert remote.exchange(tmp_path, "rev-parse", "--git-dir") == b".git\n"
    assert answer(tmp_path, "rev-parse", "--git-dir") == str(tmp_path / ".git")


@pytest.mark.slow
def test_settings_of_a_person_do_not_change_the_answers_of_git(
    history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    for setting in ("color.ui=always", "color.grep=always", "clone.defaultRemoteName=upstream"):
        git(tmp_path, "config", "--file", "gitconfig", *setting.split("="))
    git(tmp_path, "init", "--quiet")
    (tmp_path / "notes.md").write_text("<<<<<<< is how a conflict begins\n")
    git(tmp_path, "add", "notes.md")
    refuse_conflicts(tmp_path, "No conflict")
    git(tmp_path, "config", "--file", "gitconfig", f"url.file://{history}.insteadOf", "https://git.example.com/slipway")
    template = Template("https://git.example.com/slipway")
    _ = template.repository
    template.refresh()
    assert git(template.repository, "remote").strip() == "origin"


def test_a_repository_that_git_does_not_read_is_not_taken_for_an_empty_repository(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "Start")
    shutil.rmtree(tmp_path / ".git/objects")
    (tmp_path / ".git/objects").mkdir()
    with pytest.raises(FleetError, match=r"has lost its last commit, \w+: clone it anew"):
        Service(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_repository_of_somebody_else_is_read_because_its_configuration_is_not(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "a").write_text("")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "--quiet", "--message", "Start")
    for path in (tmp_path, tmp_path / ".git"):
        os.chown(path, 12345, 12345)
    assert list(Service(tmp_path).tree) == ["a"]


def test_a_service_that_is_compared_with_itself_is_read_once(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "Start")
    commit = git(tmp_path, "rev-parse", "HEAD").strip()
    service = Service(tmp_path, commit, commit)
    assert service.base is service
