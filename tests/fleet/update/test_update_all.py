"""`fleet update-all` makes branches and reports, even if a service fails or the run is stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from fleet.errors import FleetError
from fleet.service.fleet_toml import Member
from fleet.service.mirror import Commit, newest
from fleet.update import show
from fleet.update.outcomes import Outcome, RunOptions, Verdict
from fleet.update.update_all import update_all
from tests.fleet.command_line import run
from tests.fleet.services import Born, commit, state
from tests.support.commands import git

pytestmark = pytest.mark.slow

BRANCH = "slipway/v1.3.0"

# A stand-in for the service's own `make setup check`, which takes a minute: it counts, fails or waits, by a file.
MAKE = """#!/bin/sh
echo "$PWD $*" >> "@made@"
test ! -e leave || touch left.txt
test ! -e wait || { touch waiting; sleep 600; }
test ! -e fail-with-platform.txt || test ! -e platform.txt || exit 2
test ! -e "@made@.no-setup" || case "$PWD $*" in *.base*setup*) exit 2 ;; esac
test ! -e fail || test "$*" = setup || { echo "a test failed"; exit 2; }
case "$*" in *specs)
    test ! -e fail-specs && test ! -e "@made@.down" && echo locked > uv.lock || exit 2 ;;
esac
"""


@pytest.fixture(autouse=True)
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a stand-in for `make` on PATH. Return the file with its calls, one on each line."""
    program = tmp_path / "bin" / "make"
    program.parent.mkdir()
    program.write_text(MAKE.replace("@made@", str(tmp_path / "made")))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / "made").touch()
    return tmp_path / "made"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "work"


def local(service: Path, name: str = "billing") -> Member:
    return Member(name, str(service), is_local=True)


def one(member: Member, folder: Path, wish: RunOptions | None = None) -> Outcome:
    return update_all([member], folder, wish or RunOptions(), jobs=1)[0]


def version_at(repository: Path, ref: str) -> str:
    return git(repository, "show", f"{ref}:.copier-answers.yml").partition("_commit: ")[2].partition("\n")[0]


def until_it_waits(run: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until the run has come to the service `waits`, whose make waits."""
    deadline = time.monotonic() + 120
    while not list(folder.glob(".fleet-update/waits-*/waiting")):
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def write(service: Path, name: str) -> None:
    """Write a file of the team, which the `make` above looks for."""
    (service / name).touch()
    commit(service, f"Let make {name}")


def test_each_service_gets_a_tested_branch_and_a_failed_service_stops_no_other(
    born: Born, folder: Path, made: Path, tmp_path: Path
) -> None:
    well, failing, current = born(), born(), born(version="v1.3.0")
    write(failing, "fail")
    members = [
        local(failing, "failing"),
        local(well, "well"),
        local(current, "current"),
        local(tmp_path / "gone", "gone"),
    ]
    before = [state(service)[2:] for service in (well, failing, current)]
    failed, updated, nothing, gone = update_all(members, folder, RunOptions(), jobs=2)

    assert (updated.failure, updated.tested, updated.old, updated.new) == ("", True, "v1.0.0", "v1.3.0")
    assert version_at(well, BRANCH) == "v1.3.0"
    assert git(well, "merge-base", BRANCH, "main") == git(well, "rev-parse", "main")
    assert failed.failure == f"`make check` failed, as it did before the update, at {failed.commit[:12]}"
    assert "a test failed" in Path(failed.log).read_text()
    assert version_at(Path(failed.place), BRANCH) == "v1.3.0"
    assert (nothing.failure, nothing.tip) == ("", "")
    assert "there is no folder" in gone.failure
    # No checkout has changed.
    assert [state(service)[2:] for service in (well, failing, current)] == before
    assert git(failing, "branch", "--list", BRANCH) == git(current, "branch", "--list", BRANCH) == ""
    assert made.read_text().count("setup check") == 2
    assert base_runs(made) == ["setup", "check"]

    # A second run repeats only the failed service, from the step that failed.
    log = Path(failed.log).stat().st_size
    again = update_all(members, folder, RunOptions(), jobs=2)
    assert made.read_text().count("setup check") == 3
    assert again[1:3] == [updated, nothing]
    assert Path(failed.log).read_text().count("a test failed") == 2
    assert Path(failed.log).stat().st_size < 2 * log

    # The team repairs the service on its own branch, with a new commit, so the update starts again.
    (failing / "fail").unlink()
    commit(failing)
    mended = update_all(members, folder, RunOptions(), jobs=2)[0]
    assert (mended.failure, version_at(failing, BRANCH)) == ("", "v1.3.0")
    assert git(failing, "merge-base", BRANCH, "main") == git(failing, "rev-parse", "main")


def base_runs(made: Path) -> list[str]:
    """Return the calls of make on the commit before the update."""
    lines = made.read_text().splitlines()
    return [line.rpartition(" ")[2] for line in lines if line.partition(" ")[0].endswith(".base")]


def test_a_failure_before_the_update_is_looked_at_again_because_its_cause_may_be_gone(
    born: Born, folder: Path, made: Path
) -> None:
    service = born()
    write(service, "fail-with-platform.txt")
    down = made.with_name("made.no-setup")
    down.touch()
    first = one(local(service), folder)
    assert first.failure == (
        "`make check` failed, and whether the update broke it is not known, because `make setup` fails before the update, "
        f"at {first.commit[:12]}"
    )
    assert show._done(first) == "failed"
    down.unlink()
    assert one(local(service), folder).failure == "`make check` failed, the update broke it"
    # The first run has seen the service pass before the update, so the second run does not check that again.
    assert one(local(service), folder).failure == "`make check` failed, the update broke it"
    assert base_runs(made) == ["setup", "setup", "check"]


def test_a_failure_by_the_update_is_distinguished_from_an_earlier_failure(born: Born, folder: Path) -> None:
    red, broken = born(), born()
    write(red, "fail")
    # Version 1.1.0 of the template adds platform.txt, with which this service fails.
    write(broken, "fail-with-platform.txt")
    before, after = update_all([local(red, "red"), local(broken, "broken")], folder, RunOptions(), jobs=1)
    assert before.failure == f"`make check` failed, as it did before the update, at {before.commit[:12]}"
    assert after.failure == "`make check` failed, the update broke it"
    assert (before.before, after.before) == ({"check": False}, {"check": True})
    assert not list(folder.glob("*.base"))
    assert [show._done(one) for one in (before, after)] == ["failed before too", "failed"]
    assert [one.verdict for one in (before, after)] == [Verdict.RED_BEFORE, Verdict.BROKEN]


def test_corrections_in_the_clone_are_tested_and_delivered_and_never_discarded(born: Born, folder: Path) -> None:
    service = born()
    write(service, "fail")
    wish = RunOptions(to="v1.1.0")
    clone = Path(one(local(service), folder, wish).place)
    (clone / "fail").write_text("half mended\n")
    assert "somebody has worked in" in one(local(service), folder, wish).failure
    assert (clone / "fail").read_text() == "half mended\n"
    (clone / "fail").unlink()
    commit(clone, "Mend it")
    mended = one(local(service), folder, wish)
    assert (mended.failure, mended.tested, version_at(service, "slipway/v1.1.0")) == ("", True, "v1.1.0")
    assert git(service, "log", "-1", "--format=%s", "slipway/v1.1.0").strip() == "Mend it"
    # A newer commit of the team needs a newer update, which would drop the clone.
    write(service, "other")
    assert "somebody has worked in" in one(local(service), folder, wish).failure
    assert git(clone, "log", "-1", "--format=%s").strip() == "Mend it"


def test_a_new_file_of_a_person_is_kept_and_a_leftover_of_the_tests_is_not(born: Born, folder: Path) -> None:
    service = born()
    (service / "leave").touch()
    write(service, "fail")
    failed = one(local(service), folder)
    clone = Path(failed.place)
    assert (clone / "left.txt").exists()
    assert one(local(service), folder).failure == failed.failure
    (clone / "mended.py").write_text("mended\n")
    refused = one(local(service), folder).failure
    assert "somebody has worked in" in refused
    assert refused.splitlines()[1:] == ["  ?? mended.py"]
    # In the update of a new commit, which drops the clone, stashed work counts too.
    git(clone, "stash", "push", "--quiet", "--include-untracked")
    write(service, "other")
    assert "somebody has worked in" in one(local(service), folder).failure
    assert git(clone, "show", "stash^3:mended.py") == "mended\n"


def test_the_tested_branch_is_the_delivered_branch(born: Born, folder: Path) -> None:
    service = born()
    write(service, "fail")
    clone = Path(one(local(service), folder).place)
    git(clone, "switch", "--quiet", "--create", "mended")
    (clone / "fail").unlink()
    commit(clone, "Mend it")
    assert f"`git switch {BRANCH}` there" in one(local(service), folder).failure
    assert git(service, "branch", "--list", BRANCH) == ""
    git(clone, "switch", "--quiet", BRANCH)
    git(clone, "merge", "--quiet", "mended")
    assert one(local(service), folder).failure == ""
    assert git(service, "log", "-1", "--format=%s", BRANCH).strip() == "Mend it"


def test_corrections_for_make_specs_are_finished_tested_and_delivered(born: Born, folder: Path) -> None:
    service = born()
    (service / "uv.lock").touch()
    write(service, "fail-specs")
    failed = one(local(service), folder)
    assert failed.failure == f"`make specs` failed, as it did before the update, at {failed.commit[:12]}"
    assert one(local(service), folder).failure == failed.failure
    clone = Path(failed.place)
    (clone / "fail-specs").unlink()
    commit(clone, "Mend it")
    mended = one(local(service), folder)
    assert (mended.failure, mended.tested, git(service, "show", f"{BRANCH}:uv.lock")) == ("", True, "locked\n")
    assert git(service, "log", "-1", "--skip=1", "--format=%s", BRANCH).strip() == "Mend it"
    write(service, "other")
    assert "somebody has worked in" in one(local(service), folder).failure


def test_files_that_make_specs_writes_at_last_are_nobodys_work(born: Born, folder: Path, made: Path) -> None:
    service, down = born(), made.with_name("made.down")
    (service / "uv.lock").touch()
    commit(service)
    down.touch()
    assert "`make specs` failed" in one(local(service), folder).failure
    down.unlink()
    assert one(local(service), folder, RunOptions(test=False)).failure == ""
    git(service, "branch", "--delete", "--force", BRANCH)
    write(service, "other")
    assert one(local(service), folder).failure == ""


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_push_runs_no_hook_of_a_repository_that_a_service_names(
    born: Born, folder: Path, tmp_path: Path, scheme: str
) -> None:
    service, origin, ran = born(), tmp_path / "its origin.git", tmp_path / "ran"
    git(tmp_path, "clone", "--quiet", "--bare", str(service), str(origin))
    for name in ("pre-receive", "update", "reference-transaction", "post-update"):
        hook = origin / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
        hook.chmod(0o755)
    git(service, "remote", "add", "origin", f"{scheme}{origin}".replace(" ", "%20" if scheme else " "))
    pushed = one(local(service), folder, RunOptions(test=False, push=True))
    assert (pushed.failure, pushed.pushed, ran.exists()) == ("", True, False)
    assert git(origin, "rev-parse", BRANCH).strip() == pushed.tip


def test_no_file_is_written_through_a_link(born: Born, folder: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("precious\n")
    folder.mkdir()
    (folder / ".gitignore").symlink_to(theirs)
    assert one(local(born(version="v1.3.0")), folder).failure == ""
    for name in ("lock", "programs.lock"):
        (folder / name).unlink()
        (folder / name).symlink_to(theirs)
        with pytest.raises(FleetError, match=rf"/{name} is a link or not a file"):
            one(local(born(version="v1.3.0")), folder)
        (folder / name).unlink()
    assert theirs.read_text() == "precious\n"


def test_a_branch_is_pushed_if_that_is_asked_for_and_never_over_somebodys_work(
    born: Born, folder: Path, tmp_path: Path, made: Path
) -> None:
    origin = tmp_path / "origin.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", born(), origin], check=True)
    service = tmp_path / "service"
    subprocess.run(["git", "clone", "--quiet", origin, service], check=True)
    by_url = Member("billing", f"file://{origin}")

    kept = one(by_url, folder)
    assert (kept.failure, kept.tested, kept.pushed) == ("", True, False)
    assert version_at(Path(kept.place), BRANCH) == "v1.3.0"
    assert git(origin, "branch", "--list", BRANCH) == ""
    pushed = one(by_url, folder, RunOptions(push=True))
    assert (pushed.failure, pushed.pushed, pushed.base) == ("", True, "main")
    assert git(origin, "rev-parse", BRANCH).strip() == pushed.tip
    # The second run only pushed, and did not run the checks of the service again.
    assert made.read_text().count("setup check") == 1

    # A local repository, whose origin now has another branch of that name, has the same result.
    other = one(local(service), tmp_path / "another", RunOptions(test=False, push=True))
    assert other.failure == f"{origin} has another branch {BRANCH}: merge or delete it, then run fleet again"
    assert git(origin, "rev-parse", BRANCH).strip() == pushed.tip
    again = one(replace(by_url, name="again"), tmp_path / "third", RunOptions(test=False, push=True))
    assert again.failure == f"there is a branch {BRANCH} already: merge or delete it, then run fleet again"
    git(origin, "branch", "--delete", "--force", BRANCH)
    assert one(local(service), tmp_path / "another", RunOptions(test=False, push=True)).pushed
    assert version_at(origin, BRANCH) == "v1.3.0"


def test_a_branch_that_is_there_already_is_left_alone(born: Born, folder: Path) -> None:
    service = born()
    git(service, "branch", BRANCH)
    assert one(local(service), folder).failure.startswith(f"there is a branch {BRANCH} already")
    assert git(service, "rev-parse", BRANCH) == git(service, "rev-parse", "main")
    assert not list(folder.glob("billing-*"))


def test_a_bug_with_one_service_is_the_failure_of_that_service(
    born: Born, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def newest_but_for_one(member: Member) -> Commit:
        return newest({"well": member}[member.name])

    monkeypatch.setattr("fleet.update.update_all_steps.newest", newest_but_for_one)
    current = born(version="v1.3.0")
    well, failed = update_all([local(current, "well"), local(current, "odd")], folder, RunOptions(), jobs=1)
    assert well.failure == ""
    assert failed.failure.startswith("fleet has a bug: ")


def test_a_refusal_of_fleet_update_is_in_the_log(born: Born, folder: Path) -> None:
    service = born()
    (service / "conflict.rej").touch()
    commit(service)
    done = one(local(service), folder)
    assert done.failure == "`fleet update` failed"
    assert "conflict.rej" in Path(done.log).read_text()


def test_an_interrupted_run_ends_its_programs_and_continues_from_there_later(
    born: Born, tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, waits = born(version="v1.3.0"), born(version="v1.3.0")
    for service in (done, waits):
        (service / "ruff.toml").unlink()
        write(service, "team")
    write(waits, "wait")
    (tmp_path / "fleet.toml").write_text(
        f'[[service]]\nname = "done"\npath = "{done}"\n[[service]]\nname = "waits"\npath = "{waits}"\n'
    )
    command = [sys.executable, "-m", "fleet", "update-all", "--jobs", "1"]
    process = subprocess.Popen(
        command, cwd=tmp_path, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        until_it_waits(process, tmp_path)
        started = psutil.Process(process.pid).children(recursive=True)
        assert started
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode not in (0, None)
    assert not psutil.wait_procs(started, timeout=60)[1]

    assert git(done, "ls-tree", "--name-only", BRANCH, "ruff.toml").strip() == "ruff.toml"
    assert git(waits, "branch", "--list", BRANCH) == ""
    # A stopped service has not failed, least of all before the update.
    known = json.loads((tmp_path / ".fleet-update/state.json").read_text()).values()
    assert [(one["failure"], one["before"]) for one in known] == [("", {})] * 2
    (clone,) = tmp_path.glob(".fleet-update/waits-*/")
    (clone / "waiting").unlink()
    (waits / "wait").unlink()
    commit(waits)
    monkeypatch.chdir(tmp_path)
    assert "2 services: 2 updated" in run("update-all", "--jobs", "1", "--report", "update.html")
    assert "<strong>2</strong> of 2 updates are done" in (tmp_path / "update.html").read_text()
    assert git(waits, "ls-tree", "--name-only", BRANCH, "ruff.toml").strip() == "ruff.toml"
    assert sum("done-" in line for line in made.read_text().splitlines()) == 1


def test_the_programs_of_a_killed_run_end_before_the_next_run_begins(
    born: Born, tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = born(version="v1.3.0")
    (service / "ruff.toml").unlink()
    write(service, "wait")
    (tmp_path / "fleet.toml").write_text(f'[[service]]\nname = "waits"\npath = "{service}"\n')
    command = [sys.executable, "-m", "fleet", "update-all", "--jobs", "1"]
    process = subprocess.Popen(
        command, cwd=tmp_path, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until_it_waits(process, tmp_path)
        started = psutil.Process(process.pid).children(recursive=True)
        (clone,) = tmp_path.glob(".fleet-update/waits-*/")
        (clone / "waiting").unlink()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert len(started) >= 3  # the watchdog, make, and the program that make waits for
    (service / "wait").unlink()
    commit(service)
    monkeypatch.chdir(tmp_path)
    assert "1 services: 1 updated" in run("update-all", "--jobs", "1")
    assert not psutil.wait_procs(started, timeout=60)[1]


def test_two_runs_at_once_are_refused(folder: Path, born: Born, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[FleetError] = []

    def while_it_runs(_self: object) -> Outcome:
        with pytest.raises(FleetError, match="another fleet update-all is running") as error:
            one(local(born()), folder)
        refused.append(error.value)
        return Outcome("billing")

    monkeypatch.setattr("fleet.update.update_all_steps.Steps.run", while_it_runs)
    one(local(born()), folder)
    assert len(refused) == 1
