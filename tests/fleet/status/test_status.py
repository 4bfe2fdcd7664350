"""`fleet status`: its findings for each service, its cache, and that no service can stop the others."""

import json
import os
import shutil
import subprocess
import time
import zlib
from collections.abc import Callable, Generator, Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from click.testing import CliRunner

from fleet.check import standing as standing_module
from fleet.check.standing import Standing, judge
from fleet.conventions import Convention, Problem, conventions
from fleet.errors import DiskFull, FleetError
from fleet.git import remote
from fleet.judges import tools
from fleet.judges.batch import compute_together
from fleet.main import app, main
from fleet.processes.parallel import Failure, in_processes, in_threads
from fleet.service.fleet_toml import Member
from fleet.service.mirror import Commit, mirror_of, newest
from fleet.service.service import Service
from fleet.service.waivers import today
from fleet.status import show as overview
from fleet.status import status as status_module
from fleet.status.status import status
from fleet.template import release as template_module
from fleet.template.answers import Answers
from fleet.template.rendering import Rendered
from fleet.template.template import Template
from tests.fleet.command_line import completed
from tests.fleet.services import Born, commit, waive
from tests.support.commands import git

pytestmark = pytest.mark.slow

Judged = list[str]


@pytest.fixture(autouse=True)
def renders(rendered_once: dict[str, Rendered]) -> None:
    """Most tests have a cache of their own, and their subject is not the renderer."""


@pytest.fixture(autouse=True)
def without_conventions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the conventions, which have their own tests, and would take most of the time."""
    for module in ("check.checks", "status.status"):
        monkeypatch.setattr(f"fleet.{module}.conventions", lambda: ())


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Judged:
    """The names of the services that were checked again. This process checks them, which saves the start of another."""
    names: Judged = []

    def here(work: Callable[[Any], Any], items: Iterable[Any], *, jobs: int) -> Generator[tuple[Any, Any]]:
        standing_module._template.cache_clear()
        for batch in items:
            names.extend(member.name for member, _, _ in batch)
            yield batch, work(batch)

    monkeypatch.setattr(status_module, "in_processes", here)
    return names


def local(service: Path, name: str = "", branch: str = "") -> Member:
    return Member(name or service.name, str(service), branch, is_local=True)


def by_url(service: Path, branch: str = "") -> Member:
    return Member(service.name, f"file://{service}", branch)


def stands(service: Path) -> Standing:
    return judge(local(service), Commit(service, git(service, "rev-parse", "HEAD").strip()))


def test_a_mixed_fleet_is_shown_whole_with_the_reason_of_each_unreadable_service(
    born: Born, tmp_path: Path, own_cache: Path, judged: Judged
) -> None:
    drifted, untouched, broken = born(), born(version="v1.3.0"), born()
    (drifted / "ruff.toml").write_text("line-length = 80\n")
    (drifted / "ty.toml").unlink()
    commit(drifted)
    (drifted / "Dockerfile").write_text("not committed, so nobody else has it\n")
    for pack in (broken / ".git/objects").rglob("*"):
        if pack.is_file():
            pack.unlink()
    empty, other = tmp_path / "empty", tmp_path / "other"
    for folder in (empty, other):
        git(tmp_path, "init", "--quiet", str(folder))
    (other / "README.md").write_text("Something else\n")
    commit(other)
    found = status(
        [
            local(drifted, "drifted"),
            local(tmp_path / "gone"),
            local(untouched, "untouched"),
            local(broken, "broken"),
            local(empty),
            local(other),
            local(untouched, "branchless", "release"),
            Member("unreachable", "ssh://git@localhost:1/x.git"),
        ]
    )
    assert judged == ["drifted", "untouched", "broken", "other"]
    assert [one.name for one in found] == [
        *("drifted", "gone", "untouched", "broken", "empty", "other", "branchless", "unreachable")
    ]
    drifting, gone, whole, broke, empty_one, other_one, branchless, unreachable = found
    assert (drifting.version, drifting.newest, drifting.releases_behind) == ("v1.0.0", "v1.3.0", 3)
    assert drifting.drift == {"edited": 1, "deleted": 1}
    assert drifting.level == "error"
    assert (whole.version, whole.releases_behind, whole.drift, whole.unreadable) == ("v1.3.0", 0, {}, "")
    assert (whole.owner, whole.domain, whole.tier, whole.maturity) == ("billing-team", "billing", "", None)
    assert {finding.since for finding in drifting.findings} == {None}
    assert (gone.owner, gone.domain) == ("", "")
    assert "there is no folder" in gone.unreadable
    assert "has lost its last commit" in broke.unreadable
    assert "has no commit yet" in empty_one.unreadable
    assert "not a service of this platform" in other_one.unreadable
    assert "has no branch release" in branchless.unreadable
    assert "git ls-remote failed" in unreachable.unreadable
    assert str(own_cache) not in unreachable.unreadable


def test_each_service_is_judged_by_the_releases_of_its_own_template(
    born: Born, history: Path, tmp_path: Path, own_cache: Path, judged: Judged
) -> None:
    templates = {"moved": tmp_path / "gone", "first": history, "second": tmp_path / "template"}
    subprocess.run(["git", "clone", "--quiet", history, templates["second"]], check=True)
    git(templates["second"], "commit", "--quiet", "--allow-empty", "--message", "Release")
    git(templates["second"], "tag", "v1.4.0")
    members = []
    for name, template in templates.items():
        service = born()
        answers = service / ".copier-answers.yml"
        answers.write_text(answers.read_text().replace(str(history), str(template)))
        commit(service)
        members.append(local(service, name))
    moved, first, second = status(members)
    assert "is not a git repository on this machine" in moved.unreadable
    assert (first.newest, second.newest) == ("v1.3.0", "v1.4.0")
    shutil.rmtree(own_cache / "standings")
    first, second = status(members[1:])
    assert (first.newest, second.newest) == ("v1.3.0", "v1.4.0")
    assert judged == ["first", "second", "first", "second", "second"]


def share_a_database(*services: Path) -> None:
    for service in services:
        file = service / "deploy/overlays/production/shared.yaml"
        file.write_text("env: [{name: DATABASE_URL, value: 'postgresql://db.example.com/shared'}]\n")
        commit(service)


def test_an_error_of_the_map_is_an_error_of_the_services_that_have_to_correct_the_error(
    born: Born, own_cache: Path, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharing = [born(version="v1.3.0", service_name=name) for name in ("billing", "orders")]
    share_a_database(*sharing)
    # In fleet.toml a service may have another name than in its answers.
    members = [local(sharing[0], "first"), local(sharing[1]), local(born(version="v1.3.0", service_name="stock"))]
    found = status(members)
    assert [one.level for one in found] == ["error", "error", None]
    assert [[finding.id for finding in one.neighbours] for one in found] == [["map-database-shared"]] * 2 + [[]]
    assert [overview.word(one) for one in found] == ["breach", "breach", "in order"]
    # A second run draws no map.
    monkeypatch.setattr("fleet.map.reader.read_standings", lambda *_: pytest.fail("drawn again"))
    assert status(members) == found


def test_a_service_that_only_the_map_cannot_read_is_an_error_until_the_map_can(
    born: Born, own_cache: Path, judged: Judged
) -> None:
    service = born(version="v1.3.0")
    catalogue = (service / "catalog-info.yaml").read_text()
    (service / "catalog-info.yaml").write_text("kind: Component\nspec: [1]\n")
    commit(service)
    (found,) = status([local(service)])
    assert (found.level, [finding.id for finding in found.neighbours]) == ("error", ["map-unread"])
    (service / "catalog-info.yaml").write_text(catalogue)
    commit(service)
    assert status([local(service)])[0].level is None


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("shown", ["table", "json", "markdown", "html"])
def test_the_status_of_the_command_is_that_of_the_map_in_every_format(
    born: Born, own_cache: Path, judged: Judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # a narrow table counts findings instead of naming them
    services = [born(version="v1.3.0", service_name=name) for name in ("billing", "orders")]
    (tmp_path / "fleet.toml").write_text("".join(f'[[service]]\npath = "{service}"\n' for service in services))
    command = ["status", "--config", str(tmp_path / "fleet.toml"), "--format", shown]
    assert CliRunner().invoke(app, command).exit_code == 0
    share_a_database(*services)
    done = CliRunner().invoke(app, command)
    assert done.exit_code == CliRunner().invoke(app, ["map", *map(str, services)]).exit_code == 1
    assert "breach" in done.stdout
    assert "map-database-shared" in done.stdout


def test_only_changed_services_are_checked_again(
    born: Born, history: Path, tmp_path: Path, own_cache: Path, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = tmp_path / "template"
    subprocess.run(["git", "clone", "--quiet", history, template], check=True)
    services = [born(), born()]
    for service in services:
        answers = service / ".copier-answers.yml"
        answers.write_text(answers.read_text().replace(str(history), str(template)))
        commit(service)
    members = [local(service, name) for service, name in zip(services, "ab", strict=True)]

    def again() -> tuple[list[str], list[Standing]]:
        judged.clear()
        found = status(members)
        return list(judged), found

    names, first = again()
    assert names == ["a", "b"]
    assert not any(one.unreadable for one in first)
    assert again() == ([], first)

    (services[1] / "ruff.toml").write_text("line-length = 80\n")
    commit(services[1])
    names, second = again()
    assert names == ["b"]
    assert (second[0], second[1].drift) == (first[0], {"edited": 1})

    git(template, "commit", "--quiet", "--allow-empty", "--message", "Release")
    git(template, "tag", "v1.4.0")
    names, third = again()
    assert names == ["a", "b"]
    assert [one.releases_behind for one in third] == [4, 4]

    # Waivers expire overnight.
    monkeypatch.setattr(status_module, "today", lambda: date(2999, 1, 1))
    assert again()[0] == ["a", "b"]
    monkeypatch.setattr(status_module, "version_of_checks", lambda: "another version of the checks")
    assert again()[0] == ["a", "b"]

    # The name in fleet.toml is no result of a check.
    members = [local(services[0], "renamed")]
    names, renamed = again()
    assert (names, renamed[0].name) == ([], "renamed")


def test_a_broken_memory_is_computed_again(born: Born, own_cache: Path, judged: Judged) -> None:
    members = [local(born())]
    first = status(members)
    for file in (own_cache / "standings").iterdir():
        file.write_text("{")
    assert status(members) == first
    assert judged == [members[0].name] * 2


def test_a_url_is_mirrored_without_history_and_later_only_new_commits_are_fetched(
    born: Born, own_cache: Path, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = born()
    commit_all(service, "Second")
    member = by_url(service)
    asked: list[str] = []
    real = remote.exchange

    def recorded(repository: Path, *arguments: str, **options: Any) -> bytes:
        asked.extend(arguments)
        return real(repository, *arguments, **options)

    monkeypatch.setattr("fleet.git.remote.exchange", recorded)
    first = status([member])[0]
    assert (first.unreadable, "fetch" in asked) == ("", True)
    assert git(mirror_of(member), "rev-list", "--count", first.commit).strip() == "1"

    asked.clear()
    assert status([member]) == [first]
    assert ("ls-remote" in asked, "fetch" in asked) == (True, False)

    (service / "ruff.toml").unlink()
    commit(service)
    monkeypatch.setenv("FLEET_OFFLINE", "1")
    asked.clear()
    assert status([member]) == [first]
    assert not {"ls-remote", "fetch"} & set(asked)
    monkeypatch.delenv("FLEET_OFFLINE")
    assert status([member])[0].drift == {"deleted": 1}


def test_offline_a_service_that_was_never_fetched_is_unreadable(
    born: Born, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_OFFLINE", "1")
    assert "was never fetched: run fleet once without --offline" in status([by_url(born())])[0].unreadable


def test_a_branch_is_followed_and_a_rewritten_branch_too(born: Born, own_cache: Path) -> None:
    service = born()
    git(service, "switch", "--quiet", "--create", "release")
    commit_all(service, "On the branch")
    git(service, "switch", "--quiet", "main")
    for member in (by_url(service, "release"), local(service, branch="release")):
        assert newest(member).id == git(service, "rev-parse", "release").strip()
        git(service, "branch", "--quiet", "--force", "release", "main")
        assert newest(member).id == git(service, "rev-parse", "main").strip()
        git(service, "branch", "--quiet", "--force", "release", "release@{1}")


def test_waivers_are_counted_by_validity(born: Born) -> None:
    service = born()
    for path in ("ruff.toml", "ty.toml", "Dockerfile"):
        (service / path).write_text("# other\n")
    soon = (today() + timedelta(days=3)).isoformat()
    waive(service, "ruff.toml")
    live = (service / "conventions.yml").read_text()
    waive(service, "ty.toml", expires=soon)
    expiring = (service / "conventions.yml").read_text()
    waive(service, "Dockerfile", content="0" * 40)
    void = (service / "conventions.yml").read_text()
    malformed = "- path: Makefile\n"
    entries = [text.removeprefix("waivers:\n") for text in (live, expiring, void)]
    (service / "conventions.yml").write_text("waivers:\n" + "".join(entries) + malformed)
    commit(service)
    found = stands(service)
    assert found.waivers == {"live": 2, "expiring": 1, "void": 2}
    assert found.drift == {}
    assert [one.id for one in found.platform if one.level == "error"] == ["waiver-invalid", "waiver-void"]


def test_a_bug_in_a_check_is_a_finding_about_one_service(born: Born, monkeypatch: pytest.MonkeyPatch) -> None:
    def buggy(_service: object) -> list[object]:
        raise ValueError("unexpected")

    monkeypatch.setattr("fleet.check.standing.check_conventions", buggy)
    reason = stands(born()).unreadable
    assert reason.startswith("a check has a bug: ")
    assert reason.endswith("ValueError: unexpected")


def test_a_judged_service_leaves_no_process_of_git_for_a_file_of_one_check(
    born: Born, own_cache: Path, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    services: list[Service] = []

    def read_chassis(service: Service) -> list[object]:
        services.append(service)
        assert service.text("chassis/src/chassis/errors.py")
        return []

    monkeypatch.setattr("fleet.check.standing.check_conventions", read_chassis)
    status([local(born())], jobs=1)
    assert [service._objects._git._process for service in services] == [None]


def test_a_bug_with_one_service_of_many_does_not_hide_the_others() -> None:
    answers, errors = in_threads(lambda divisor: 6 // divisor, [1, 0, 2])
    assert answers == {1: 6, 2: 3}
    assert list(errors) == [0]
    assert str(errors[0]).startswith("fleet has a bug: ")
    assert "ZeroDivisionError" in str(errors[0])


def test_a_refusal_of_the_system_is_no_bug(tmp_path: Path) -> None:
    answers, errors = in_threads(Path.read_text, [tmp_path])
    assert (answers, str(errors[tmp_path])) == ({}, f"cannot use {tmp_path}: Is a directory")


def test_a_standing_survives_being_written_down(born: Born) -> None:
    service = born()
    (service / "ruff.toml").unlink()
    commit(service)
    found = stands(service)
    assert found.findings
    assert Standing.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_first_service_that_the_system_does_not_let_fleet_read_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (Member(name, str(tmp_path / name), is_local=True) for name in ("first", "second"))

    def answers(commit: Commit) -> Answers:
        if commit.repository.name == "first":
            raise PermissionError(13, "Permission denied", "objects")
        return Answers("/srv/template", "v1.0.0", {}, "")

    monkeypatch.setattr(Commit, "answers", answers)
    commits = {member: Commit(tmp_path / member.name, "0" * 40) for member in (first, second)}
    sources, errors = status_module._sources(commits, {}, is_assumed=True)
    assert (sources, [*errors]) == ({second: "/srv/template"}, [first])


def test_a_batch_that_is_lost_is_done_again_one_by_one_and_only_the_culprit_suffers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    culprit = Member("culprit", "/srv/culprit", is_local=True)
    others = [Member(name, f"/srv/{name}", is_local=True) for name in "ab"]
    tried: list[list[str]] = []

    def dying(_work: object, batches: Iterable[Any], *, jobs: int) -> Generator[tuple[Any, Any]]:
        for batch in batches:
            members = [member for member, _, _ in batch]
            tried.append([member.name for member in members])
            yield (
                batch,
                Failure("killed") if culprit in members else [Standing(one.name, one.address) for one in members],
            )

    monkeypatch.setattr(status_module, "in_processes", dying)
    batch = tuple((member, Commit(tmp_path, "0" * 40), "/srv/template") for member in (others[0], culprit, others[1]))
    found = {one.name: standing and standing.unreadable for one, standing in status_module._judged([batch], jobs=2)}
    assert found == {"a": "", "culprit": "killed", "b": ""}
    assert tried == [["a", "culprit", "b"], ["a"], ["culprit"], ["b"]]


def test_facts_of_many_services_equal_the_facts_of_each_service(born: Born, own_cache: Path) -> None:
    (once := born()).joinpath("README.md").write_text("one\n")
    (twice := born()).joinpath("README.md").write_text("two\n")
    services = [Service(once), Service(twice), Service(once)]
    calls: list[int] = []

    def read(folder: Path) -> str:
        return (folder / "README.md").read_text()

    def read_each(folder: Path) -> dict[str, str]:
        calls.append(len(list(folder.iterdir())))
        return {one.name: read(one) for one in folder.iterdir()}

    for _ in range(2):
        compute_together(services, "reader 1", lambda _service: ("README.md",), read_each)
    assert len(calls) == 1
    for service, text in zip(services, ("one\n", "two\n", "one\n"), strict=True):
        assert service.compute_once("reader 1", ("README.md",), never) == text


def never(_folder: Path) -> str:
    pytest.fail("computed once more")


@pytest.mark.xdist_group("conventions")
def test_conventions_that_prepare_for_many_services_find_the_same_as_for_a_single_service(
    born: Born, own_cache: Path
) -> None:
    def remembered() -> set[Path]:
        return set((own_cache / "tools").rglob("*.json"))

    sound, broken = born(), born()
    (broken / "src/billing/domain/invoices.py").write_text("import fastapi\nfrom billing.api import invoices\n")
    (broken / "tests/key.py").write_text(f'KEY = "ghp_{"aB3dE6gH9jK2" * 3}"\n')
    services = [Service(sound), Service(broken)]
    preparing = [one for one in conventions() if type(one).prepare is not Convention.prepare]
    assert {one.id for one in preparing} >= {"supply-no-secrets", "code-layers"}
    for convention in preparing:
        before = remembered()
        convention.prepare(services)
        prepared = remembered() - before
        together = [list(convention.check(service)) for service in services]
        assert remembered() - before == prepared != set()
        for file in prepared:
            file.unlink()
        assert list(convention.check(services[1])) == together[1]
        assert (together[0], bool(together[1])) == ([], True), convention.id


def do(what: str) -> int:
    """Return the result of a function, in a process of its own."""
    if what == "dies":
        os._exit(7)
    if what == "hangs":
        time.sleep(600)
    return len(what)


def test_a_process_that_dies_or_hangs_loses_no_other_work() -> None:
    items = ["a", "dies", "bb", "hangs", "ccc"]
    found = dict(in_processes(do, items, jobs=2, limit_seconds=2))
    assert {what: found[what] for what in ("a", "bb", "ccc")} == {"a": 1, "bb": 2, "ccc": 3}
    assert found["dies"] == Failure("the process that looked at the service ended with status 7")
    assert found["hangs"] == Failure("given up after 2 seconds")


def test_the_command_writes_the_report_shows_progress_elsewhere_and_fails_on_a_breach(
    born: Born, tmp_path: Path, own_cache: Path, judged: Judged
) -> None:
    service, config = born(version="v1.3.0"), tmp_path / "fleet.toml"
    config.write_text(f'[[service]]\npath = "{service}"\n[[service]]\npath = "gone"\n')
    done = completed("status", "--format", "json", "--config", str(config))
    assert done.returncode == 1, done.stderr
    written = json.loads(done.stdout)
    assert written["summary"]["services"] == 2
    assert written["services"][0]["version"] == "v1.3.0"
    assert "there is no folder" in written["services"][1]["unreadable"]
    assert "fetching: 1 of 1" in done.stderr  # the service at a path needs no fetch
    assert "checking: 1 of 1" in done.stderr


def commit_all(service: Path, message: str) -> None:
    git(service, "commit", "--quiet", "--allow-empty", "--message", message)


class Refused(Convention):
    """A convention that this machine cannot check."""

    id = "odd-machine"
    error: Exception = PermissionError(13, "Permission denied", "/opt/tool")

    def check(self, service: Service) -> Generator[Problem]:
        raise self.error
        yield


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> type[Refused]:
    for module in ("check.checks", "status.status"):
        monkeypatch.setattr(f"fleet.{module}.conventions", lambda: (Refused(),))
    return Refused


def test_a_refusal_of_the_machine_is_no_bug_of_a_check_and_is_not_remembered(
    born: Born, own_cache: Path, judged: Judged, refused: type[Refused], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = born(version="v1.3.0")
    (finding,) = status([local(service)])[0].conventions
    assert finding.reason == "cannot be judged on this machine: cannot use /opt/tool: Permission denied"
    monkeypatch.setattr(refused, "check", lambda *_: iter(()))
    assert status([local(service)])[0].conventions == ()
    assert judged == ["billing", "billing"]


@pytest.mark.parametrize(
    ("look", "told"),
    [
        (
            lambda: tools.program("absent"),
            "absent is missing from the environment in which fleet is installed: install fleet again",
        ),
        (lambda: tools.run(["sleep", "60"], cwd=Path("/")), "sleep was given up after 0.1 seconds"),
    ],
)
def test_a_tool_that_this_machine_does_not_run_is_no_finding_that_is_remembered(
    born: Born,
    own_cache: Path,
    judged: Judged,
    refused: type[Refused],
    monkeypatch: pytest.MonkeyPatch,
    look: Callable[[], object],
    told: str,
) -> None:
    monkeypatch.setattr(tools, "TOOL_SECONDS", 0.1)
    monkeypatch.setattr(refused, "check", lambda *_: iter([look()]))
    service = born(version="v1.3.0")
    (finding,) = status([local(service)])[0].conventions
    assert finding.reason == f"cannot be judged on this machine: {told}"
    monkeypatch.setattr(refused, "check", lambda *_: iter(()))
    assert status([local(service)])[0].conventions == ()


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        FleetError("kingfisher failed: No space left on device (os error 28)"),
        FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"),
    ],
)
def test_a_full_disk_ends_the_run_with_its_cause_and_no_result_is_stored(
    born: Born,
    own_cache: Path,
    judged: Judged,
    refused: type[Refused],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    monkeypatch.setattr(refused, "error", error)
    members = [local(born(version="v1.3.0"), name) for name in "abc"]
    with pytest.raises(DiskFull, match=f"a disk is full: make room where {own_cache} "):
        status(members)
    assert not list(own_cache.glob("standings/*"))


def full(_: str) -> None:
    raise DiskFull("a disk is full")


def test_a_full_disk_in_one_process_ends_all_processes() -> None:
    with pytest.raises(DiskFull, match="a disk is full"):
        list(in_processes(full, ["a", "b"], jobs=2))


def test_a_full_disk_while_a_result_is_written_is_told_in_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.main.app", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(SystemExit):
        main()
    assert "a disk is full: make room where" in capsys.readouterr().err


def test_a_version_in_the_cache_that_has_lost_a_file_is_written_anew(
    born: Born, own_cache: Path, rendered_once: dict[str, Rendered]
) -> None:
    rendered_once.clear()
    service = born()
    whole = Service(service).expected
    (versions,) = own_cache.glob("versions/*/")
    for lost in ("template/ruff.toml", "copier.yml", "ownership/service-owned.yml"):
        rendered_once.clear()
        shutil.rmtree(own_cache / "manifests")
        (versions / lost).unlink()
        template_module._COMPLETE.clear()  # as in another process
        assert Service(service).expected == whole
        assert (versions / lost).exists()


@pytest.mark.parametrize("lost", ["objects/pack/*.pack", "HEAD", "objects/[0-9a-f][0-9a-f]/*"])
def test_a_mirror_that_has_lost_a_file_is_fetched_anew(born: Born, own_cache: Path, judged: Judged, lost: str) -> None:
    service = born(version="v1.3.0")
    member = by_url(service)
    (first,) = status([member])
    mirror = mirror_of(member)
    if "[" in lost:  # Git stores small fetches as loose objects
        (pack,) = mirror.glob("objects/pack/*.pack")
        content = pack.read_bytes()
        for file in mirror.glob("objects/pack/*"):
            file.unlink()
        subprocess.run(["git", "-C", mirror, "unpack-objects", "-q"], input=content, check=True)
    for file in mirror.glob(lost):
        file.unlink()
    shutil.rmtree(own_cache / "standings")
    assert status([member]) == [first]


@pytest.mark.parametrize("content", [None, b"evil"], ids=["lost", "damaged"])
def test_a_mirror_in_which_a_single_file_is_not_whole_is_fetched_anew(
    born: Born, own_cache: Path, judged: Judged, content: bytes | None
) -> None:
    service = born(version="v1.3.0")
    member = by_url(service)
    (first,) = status([member])
    mirror = mirror_of(member)
    (pack,) = mirror.glob("objects/pack/*.pack")
    packed = pack.read_bytes()
    for file in mirror.glob("objects/pack/*"):
        file.unlink()
    subprocess.run(["git", "-C", mirror, "unpack-objects", "-q"], input=packed, check=True)
    name = git(service, "rev-parse", "HEAD:src/billing/settings.py").strip()
    kept = mirror / "objects" / name[:2] / name[2:]
    kept.unlink()
    if content is not None:
        kept.write_bytes(zlib.compress(b"blob %d\0" % len(content) + content))
    shutil.rmtree(own_cache / "standings")
    assert status([member]) == [first]
    assert git(mirror, "cat-file", "blob", name) == git(service, "cat-file", "blob", name)


def lose(mirror: Path, lost: str) -> None:
    """Lose files of the mirror; or, for `damaged`, change the content of an object, without a missing file."""
    (pack,) = mirror.glob("objects/pack/*.pack")
    content = pack.read_bytes()
    for file in mirror.glob("objects/pack/*") if "[" in lost or lost == "damaged" else ():
        file.unlink()
    if "[" in lost or lost == "damaged":  # Git stores small fetches as loose objects
        subprocess.run(["git", "-C", mirror, "unpack-objects", "-q"], input=content, check=True)
    if lost == "damaged":
        for file in mirror.glob("objects/[0-9a-f][0-9a-f]/*"):
            kind, _, text = zlib.decompress(file.read_bytes()).partition(b"\0")
            if kind.startswith(b"blob") and text:
                file.chmod(0o644)
                file.write_bytes(zlib.compress(kind + b"\0" + bytes(len(text))))
    for file in mirror.glob(lost):
        file.unlink()


OBJECTS = "objects/[0-9a-f][0-9a-f]/*"


@pytest.mark.parametrize("lost", ["objects/pack/*.pack", "HEAD", "config", "packed-refs", OBJECTS, "damaged"])
def test_a_mirror_of_the_template_that_is_damaged_is_cloned_anew(
    born: Born, history: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    address = "https://git.example.com/slipway.git"
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    git(tmp_path, "config", "--file", "gitconfig", f"url.file://{history}.insteadOf", address)
    git(tmp_path, "init", "--quiet")  # a repository around the cache, as for a person whose home folder is in Git
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "Theirs")
    theirs = git(tmp_path, "for-each-ref")
    template = Template(address)
    whole = template.newest()
    ruff = (whole.folder / "template/ruff.toml").read_bytes()
    assert whole.version == "v1.3.0"
    lose(template.repository, lost)
    shutil.rmtree(own_cache / "versions")
    template_module._COMPLETE.clear()  # as in another process
    again = Template(address)
    again.refresh_if_possible()
    assert git(tmp_path, "for-each-ref") == theirs
    assert again.newest().commit == whole.commit
    assert (again.newest().folder / "template/ruff.toml").read_bytes() == ruff


def test_a_damaged_mirror_of_the_template_stays_while_its_host_is_away(
    history: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "https://git.example.com/slipway.git"
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    git(tmp_path, "config", "--file", "gitconfig", f"url.file://{history}.insteadOf", address)
    mirror = Template(address).repository
    git(tmp_path, "config", "--file", "gitconfig", "--remove-section", f"url.file://{history}")
    git(tmp_path, "config", "--file", "gitconfig", f"url.file://{tmp_path}/away.insteadOf", address)
    lose(mirror, "objects/pack/*.pack")
    with pytest.raises(FleetError):
        _ = Template(address).newest().folder
    assert (mirror / "packed-refs").exists()
