"""`fleet update`: the platform's files become the new render, the team's files stay, and no update ends halfway."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.check.drift import check_drift
from fleet.errors import FleetError
from fleet.service.service import Service
from fleet.update.update import Options, update
from tests.fleet.command_line import run
from tests.fleet.services import Born, commit, contents, state, waive
from tests.fleet.template_history import HANDED_OVER
from tests.fleet.update.edits import kept, platform_edits, team_edits
from tests.support.commands import git
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow


def options(to: str | None = None, **data: str) -> Options:
    return Options(data, to, finish=False)


def test_platform_files_equal_a_fresh_render_and_the_teams_files_keep_their_edits(
    born: Born,
) -> None:
    service = born()
    team_edits(service)
    platform_edits(service)
    report = update(service, options("v1.1.0"))
    kept(service)
    expected = Service(service).expected.platform
    assert list(check_drift(Service(service))) == []
    assert {"platform.txt", "fuzz.toml"} < set(expected)
    for gone in (".editorconfig", "schemathesis.toml"):
        assert not (service / gone).exists()
    assert os.access(service / "ty.toml", os.X_OK)
    assert git(service, "status", "--porcelain") == ""
    assert sorted(report.healed) == sorted(
        ["ruff.toml", "schemathesis.toml", ".editorconfig", "chassis/src/chassis/http.py", "compose.yaml", "Makefile"]
    )
    assert "-line-length = 100\n+line-length = 120" in report.healed_diff
    assert git(service, "log", "--format=%s").splitlines()[:2] == [
        "Update to template v1.1.0",
        "Restore platform-owned files to template v1.0.0",
    ]


@pytest.mark.parametrize(("recorded", "kept"), [(None, "none"), ("none", "none"), ("oidc", "oidc")])
def test_an_update_turns_identity_neither_on_nor_off(born: Born, recorded: str | None, kept: str) -> None:
    service = born(**({"auth": recorded} if recorded else {}))
    answers = service / ".copier-answers.yml"
    if recorded is None:  # as a version without the question wrote the file
        answers.write_text(answers.read_text().replace("auth: none\n", ""))
        commit(service)
    before = git(service, "ls-files", "src", "tests", "chassis/src/chassis/identity", "docs/identity.md")
    update(service, options("v1.1.0"))
    assert f"auth: {kept}\n" in answers.read_text()
    assert git(service, "ls-files", "src", "tests", "chassis/src/chassis/identity", "docs/identity.md") == before
    assert (service / "docs/identity.md").exists() == (kept == "oidc")
    assert list(check_drift(Service(service))) == []


def test_new_seeds_arrive_and_changed_seeds_are_reported(born: Born) -> None:
    service = born()
    before = contents(service)
    report = update(service, options("v1.1.0"))
    assert report.seeds.new == ["docs/on-call.md"]
    assert (service / "docs/on-call.md").read_text() == "# Who is called for Billing\n"
    assert report.changed_seeds == ["src/billing/settings.py"]
    assert "+# Version 1.1.0 seeds this." in report.changed_seeds_diff
    for path in ("src/billing/settings.py", "docs/decisions/README.md"):
        assert contents(service)[path] == before[path]


def test_a_file_that_the_team_deleted_never_comes_back(born: Born) -> None:
    service = born()
    update(service, options("v1.1.0"))
    (service / "docs/on-call.md").unlink()
    (service / "src/billing/settings.py").unlink()
    commit(service)
    update(service, options())
    assert not (service / "docs/on-call.md").exists()
    assert not (service / "src/billing/settings.py").exists()


def test_a_seed_that_was_once_there_and_deleted_is_left_out_though_the_recorded_version_has_none(born: Born) -> None:
    service = born()
    (service / "docs/on-call.md").write_text("ours\n")
    commit(service)
    (service / "docs/on-call.md").unlink()
    commit(service)
    report = update(service, options("v1.1.0"))
    assert (report.seeds.new, report.seeds.left) == ([], ["docs/on-call.md"])
    assert not (service / "docs/on-call.md").exists()


def test_the_templates_migrations_run_once_and_before_seeds_are_written(born: Born) -> None:
    service = born()
    (service / "docs/runbook.md").write_text("# Ours\n")
    commit(service)
    report = update(service, options("v1.2.0"))
    assert (service / "docs/operations/runbook.md").read_text() == "# Ours\n"
    assert not (service / "docs/runbook.md").exists()
    assert report.migrated == [
        "1.2.0: Move the runbook to docs/operations.\ndocs/runbook.md is docs/operations/runbook.md now"
    ]
    assert update(service, options()).migrated == []


def test_a_renamed_question_keeps_its_answer(born: Born) -> None:
    service = born(zone="us")
    update(service, options())
    assert (service / "platform.txt").read_text() == "Platform-owned, of billing, in us, 3.\n"
    assert "region: us\n" in (service / ".copier-answers.yml").read_text()


def test_version_by_version_ends_where_one_step_does(born: Born) -> None:
    step_by_step, at_once = born(), born()
    for version in ("v1.1.0", "v1.2.0", "v1.3.0"):
        update(step_by_step, options(version))
    update(at_once, options())
    assert contents(step_by_step) == contents(at_once)


def test_a_release_is_recorded_by_its_own_tag_among_others_on_the_commit(born: Born, tmp_path: Path) -> None:
    service = born()
    answers = Service(service).answers
    history = tmp_path / "slipway"
    git(tmp_path, "clone", "--quiet", answers.source, str(history))
    git(history, "tag", "v1", "v1.3.0")
    git(history, "tag", "--annotate", "--message", "moves", "latest", "v1.3.0")
    file = service / ".copier-answers.yml"
    file.write_text(file.read_text().replace(answers.source, str(history)))
    commit(service)
    update(service, options())
    assert Service(service).answers.version == "v1.3.0"


def test_a_second_run_does_nothing(born: Born) -> None:
    service = born()
    platform_edits(service)
    update(service, options())
    before = state(service)
    assert not update(service, options()).changed
    assert state(service) == before


def test_a_file_that_the_platform_hands_over_stays_unchanged_and_belongs_to_the_team(handed_over: Path) -> None:
    service = handed_over
    untouched, _, deleted, dropped = (service / path for path in HANDED_OVER)
    before = contents(service)
    report = update(service, options("v1.2.0"))
    after = contents(service)
    assert {path: after.get(path) for path in HANDED_OVER} == {path: before.get(path) for path in HANDED_OVER}
    assert (report.healed, report.deleted) == ([], 0)
    assert dropped.exists()
    untouched.write_text("{}\n")
    commit(service)
    assert list(check_drift(Service(service))) == []
    update(service, options())
    assert untouched.read_text() == "{}\n"
    assert not deleted.exists()


def test_a_file_that_the_platform_claims_is_refused_where_the_team_has_the_file_already(claimed: Path) -> None:
    service = claimed
    before = state(service)
    with pytest.raises(FleetError, match="has files where the service has other files") as refusal:
        update(service, options("v1.4.0"))
    assert "README.md" in str(refusal.value)
    assert "CODEOWNERS" not in str(refusal.value)
    assert state(service) == before
    git(service, "mv", "README.md", "docs/ours.md")
    commit(service)
    update(service, options("v1.4.0"))
    assert (service / "README.md").read_text().startswith("# Billing\n")
    assert (service / "catalog-info.yaml").exists()
    assert (service / "docs/ours.md").read_text() == "# Ours.\n"


def test_the_branch_of_an_update_that_succeeds_is_not_kept(born: Born) -> None:
    service = born()
    update(service, Options({}, "v1.1.0", keep=True, finish=False))
    assert git(service, "branch", "--format=%(refname:short)") == "main\n"


def test_a_waived_path_stays_and_its_missed_changes_are_shown(born: Born) -> None:
    service = born()
    for path in ("ruff.toml", ".editorconfig"):
        (service / path).write_text("# ours, approved\n")
    waive(service, "ruff.toml", ".editorconfig")
    (service / "Makefile").write_text("# ours, not approved\n")
    commit(service)
    report = update(service, options("v1.1.0"))
    assert (service / "ruff.toml").read_text() == (service / ".editorconfig").read_text() == "# ours, approved\n"
    assert report.healed == ["Makefile"]
    assert report.waived == [".editorconfig", "ruff.toml"]
    assert "-line-length = 120\n+line-length = 110" in report.waived_diff


def test_an_update_prints_the_notes_for_deployers_of_all_versions_in_between(born: Born) -> None:
    service = born()
    update(service, options("v1.1.0"))
    notes = [(note.version, note.section, note.text) for note in update(service, options()).notes]
    assert notes == [
        ("1.3.0", "Settings", "`OLD_LIMIT` is gone."),
        ("1.2.0", "Migrations", "`chassis_0002` adds a column; the image before it runs on the new schema."),
    ]


def test_a_file_becomes_executable_also_where_git_does_not_look_at_modes(born: Born) -> None:
    service = born()
    git(service, "config", "core.fileMode", "false")
    update(service, options("v1.1.0"))
    assert git(service, "ls-files", "--stage", "ty.toml").startswith("100755 ")
    assert git(service, "-c", "core.fileMode=true", "status", "--porcelain") == ""


@pytest.mark.parametrize("habit", ["--squash", "--strategy=ours"])
def test_how_the_developer_likes_merges_is_not_how_an_update_is_put_in_place(born: Born, habit: str) -> None:
    service = born()
    git(service, "config", "branch.main.mergeOptions", habit)
    assert update(service, options("v1.1.0")).changed
    assert git(service, "log", "--format=%s", "-1") == "Update to template v1.1.0\n"
    assert git(service, "status", "--porcelain") == ""


# --- refusals: a message, and a repository as it was ------------------------------------------------------------------


def refused(service: Path, asked: Options, message: str) -> None:
    before = state(service)
    with pytest.raises(FleetError, match=message):
        update(service, asked)
    assert state(service) == before


def test_uncommitted_changes_are_refused(born: Born) -> None:
    service = born()
    (service / "new.txt").write_text("")
    refused(service, options(), r"uncommitted changes: commit or stash them first\n  new.txt")


def test_scars_of_an_earlier_update_are_refused(born: Born) -> None:
    service = born()
    (service / "ruff.toml").write_text("<<<<<<< before updating\n1\n=======\n2\n>>>>>>> after updating\n")
    (service / "ty.toml.rej").write_text("")
    commit(service)
    refused(service, options(), r"(?s)ruff.toml: conflict markers.*ty.toml.rej: hunks that an update could not apply")


def test_the_remedy_for_scars_in_files_of_the_platform_works(born: Born) -> None:
    """`fleet check` only reports that `fleet update` restores the file."""
    service = born()
    original = (service / "ruff.toml").read_bytes()
    (service / "ruff.toml").write_text("<<<<<<< before updating\n1\n=======\n2\n>>>>>>> after updating\n")
    commit(service)
    refused(service, options(), "remove them by `git rm`, commit, and `fleet update` writes them anew")
    git(service, "rm", "--quiet", "ruff.toml")
    commit(service)
    assert update(service, options("v1.0.0")).healed == ["ruff.toml"]
    assert (service / "ruff.toml").read_bytes() == original


def test_unmerged_paths_are_refused(born: Born) -> None:
    service = born()
    for branch in ("one", "other"):
        git(service, "switch", "--quiet", "--create", branch, "main")
        (service / "README.md").write_text(branch)
        commit(service)
    with pytest.raises(subprocess.CalledProcessError):
        git(service, "merge", "one")
    refused(service, options(), "README.md: unmerged")


def test_a_detached_head_is_refused(born: Born) -> None:
    service = born()
    git(service, "switch", "--quiet", "--detach")
    refused(service, options(), "no branch is checked out")


def test_an_older_version_is_refused(born: Born) -> None:
    service = born("v1.1.0")
    refused(service, options("v1.0.0"), "at v1.1.0 already, and v1.0.0 is older")


def test_an_unknown_version_is_refused(born: Born) -> None:
    refused(born(), options("v9.9.9"), "has no version v9.9.9; its newest is v1.3.0")


def test_a_waiver_in_doubt_is_refused(born: Born) -> None:
    service = born()
    (service / "ruff.toml").write_text("# approved\n")
    waive(service, "ruff.toml")
    (service / "ruff.toml").write_text("# edited since\n")
    commit(service)
    refused(service, options(), "the waiver of ruff.toml was granted for other content")


def test_a_file_of_the_teams_where_the_new_version_has_one_of_its_own_is_refused(born: Born) -> None:
    service = born()
    (service / "platform.txt").write_text("ours\n")
    commit(service)
    refused(service, options(), "Move or remove yours, or have them waived:\n  platform.txt")


def test_a_file_that_git_ignores_is_the_developers_too(born: Born) -> None:
    """By itself, `git merge` silently overwrites such a file."""
    service = born()
    (service / ".git/info/exclude").write_text("platform.txt\n")
    (service / "platform.txt").write_text("mine\n")
    refused(service, options(), r"(?s)nothing was changed\n.*platform.txt\nPlease move or remove them")
    assert (service / "platform.txt").read_text() == "mine\n"


def test_a_folder_that_is_a_link_is_not_written_through(born: Born, tmp_path: Path) -> None:
    service = born()
    (service / "chassis").rename(tmp_path / "chassis")
    (service / "chassis").symlink_to(tmp_path / "chassis")
    (tmp_path / "chassis/src/chassis/http.py").write_text("# Elsewhere.\n")
    commit(service)
    refused(service, options(), "chassis is a link and has to be a folder: the template has chassis/")
    assert (tmp_path / "chassis/src/chassis/http.py").read_text() == "# Elsewhere.\n"


def test_a_seed_is_not_written_through_a_link(born: Born, tmp_path: Path) -> None:
    service = born()
    (service / "docs").rename(tmp_path / "docs")
    (service / "docs").symlink_to(tmp_path / "docs")
    commit(service)
    before = contents(tmp_path / "docs")
    refused(service, options("v1.1.0"), "docs is a link and has to be a folder: the template has docs/on-call.md")
    assert contents(tmp_path / "docs") == before


def test_a_file_where_the_template_has_a_folder_is_refused_and_the_reverse(born: Born) -> None:
    service = born()
    shutil.rmtree(service / "chassis")
    (service / "chassis").write_text("ours\n")
    commit(service)
    refused(
        service, options(), "chassis is a file and has to be a folder: .* Move yours away, commit, and run fleet again"
    )
    git(service, "reset", "--quiet", "--hard", "HEAD~1")
    for folder in ("ruff.toml", "platform.txt"):
        (service / folder).unlink(missing_ok=True)
        (service / folder).mkdir()
        (service / folder / "ours.txt").write_text("ours\n")
        commit(service)
        refused(service, options(), f"{folder} is a folder and has to be a file: the template has {folder}")
        git(service, "reset", "--quiet", "--hard", "HEAD~1")


def test_an_answer_to_no_question_is_refused(born: Born) -> None:
    refused(born(), options(agregates="Refund: {reason: text}"), "asks no question 'agregates'")


def test_a_failing_migration_leaves_nothing_unless_asked(born: Born, monkeypatch: pytest.MonkeyPatch) -> None:
    service = born()
    monkeypatch.setattr("fleet.template.migrations.sys.executable", "false")
    refused(service, options(), "migration 1.2.0.py failed")
    with pytest.raises(FleetError):
        update(service, Options({}, keep=True))
    assert git(service, "branch", "--list", "fleet-update").strip() == "fleet-update"
    refused(service, options(), "there is a branch fleet-update, kept from an update that failed")


def test_a_commit_made_meanwhile_is_not_lost(born: Born, monkeypatch: pytest.MonkeyPatch) -> None:
    service = born()

    def meanwhile(*_: object) -> None:
        (service / "README.md").write_text("meanwhile\n")
        commit(service, "Meanwhile")

    monkeypatch.setattr("fleet.update.update.refuse_conflicts", meanwhile)
    monkeypatch.setattr("fleet.update.update._refuse_unready", lambda _: None)
    with pytest.raises(FleetError, match="changed while it was updated; run fleet again"):
        update(service, options())
    assert git(service, "log", "--format=%s", "-1") == "Meanwhile\n"
    assert git(service, "status", "--porcelain") == ""


def test_a_branch_that_somebody_switches_to_meanwhile_is_not_updated(
    born: Born, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = born()
    before = git(service, "rev-parse", "HEAD")
    monkeypatch.setattr(
        "fleet.update.update.refuse_conflicts", lambda *_: git(service, "switch", "--quiet", "--create", "other")
    )
    monkeypatch.setattr("fleet.update.update._refuse_unready", lambda _: None)
    with pytest.raises(FleetError, match="changed while it was updated; run fleet again"):
        update(service, options())
    assert git(service, "rev-parse", "main", "other") == before * 2
    assert git(service, "status", "--porcelain") == ""


def broken_filter(service: Path) -> None:
    """Let Git stop at platform.txt, after it has written the files that come before platform.txt."""
    for setting in ("clean=cat", "smudge=false", "required=true"):
        name, _, value = setting.partition("=")
        git(service, "config", "--file", str(service.parent / "gitconfig"), f"filter.broken.{name}", value)
    os.environ["GIT_CONFIG_GLOBAL"] = str(service.parent / "gitconfig")
    (service / ".git/info/attributes").write_text("platform.txt filter=broken\n")


def locked_branch(service: Path) -> None:
    """Let Git stop after it has written all files and the index."""
    (service / ".git/refs/heads/main.lock").touch()


@pytest.mark.parametrize("stop", [broken_filter, locked_branch])
def test_where_git_stops_half_way_nothing_has_changed_and_the_reason_is_reported(
    born: Born, monkeypatch: pytest.MonkeyPatch, stop: Callable[[Path], None]
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)  # pytest restores the variable, which `stop` may change
    service = born()
    before = contents(service)
    stop(service)
    refused(service, options(), r"(?s)could not be put in place, and nothing was changed\n.*(platform.txt|main.lock)")
    assert contents(service) == before


def test_edits_of_the_developer_stay_where_git_stops_half_way(born: Born, monkeypatch: pytest.MonkeyPatch) -> None:
    service = born()
    mine = ("README.md", "ruff.toml", "fuzz.toml", "ty.toml")

    def meanwhile(*_: object) -> None:
        git(service, "update-index", "--assume-unchanged", "ty.toml")
        for path in mine:
            (service / path).write_text("mine\n")

    monkeypatch.setattr("fleet.update.update.refuse_conflicts", meanwhile)
    monkeypatch.setattr("fleet.update.update._refuse_unready", lambda _: None)
    with pytest.raises(FleetError, match="changed while it was updated; run fleet again"):
        update(service, options())
    assert git(service, "status", "--porcelain") == " M README.md\n M ruff.toml\n?? fuzz.toml\n"
    assert [(service / path).read_text() for path in mine] == ["mine\n"] * 4


def stuck_update(service: Path) -> subprocess.Popen[str]:
    """Start an update that hangs: the checkout is made, and the first render runs without an end."""
    script = (
        "import time, fleet.update.update as u; from pathlib import Path\n"
        "u._heal = lambda *_: (print('there', flush=True), time.sleep(60))\n"
        f"u.update(Path({str(service)!r}), u.Options({{}}))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    return process


def test_a_killed_update_leaves_the_repository_unchanged_and_a_second_update_at_once_is_refused(born: Born) -> None:
    service = born()
    before = state(service)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
        process = stuck_update(service)
        try:
            with pytest.raises(FleetError, match="another fleet update is running"):
                update(service, options())
            process.send_signal(number)
            assert process.wait(10) != 0
        finally:
            process.kill()
            process.wait()
        if number != signal.SIGKILL:
            assert state(service) == before
        assert git(service, "rev-parse", "HEAD") == before[0]
        assert git(service, "status", "--porcelain") == ""
    # The leftovers of a killed update do not stop the next update.
    assert update(service, options("v1.1.0")).changed
    assert git(service, "branch", "--format=%(refname:short)") == "main\n"
    assert len(git(service, "worktree", "list").splitlines()) == 1


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_the_lock_is_no_file_of_somebody_elses(born: Born, tmp_path: Path, kind: str) -> None:
    service, theirs = born(), tmp_path / "theirs"
    theirs.write_text("precious\n")
    lock = service / ".git/fleet-update.lock"
    if kind == "pipe":
        os.mkfifo(lock)
    else:
        (lock.symlink_to if kind == "link" else lock.hardlink_to)(theirs)
    with pytest.raises(FleetError, match=r"/\.git/fleet-update\.lock is a link or not a file.*: delete it"):
        update(service, options())
    assert theirs.read_text() == "precious\n"


def test_the_update_command_reports_its_changes(born: Born) -> None:
    service = born()
    command = ("update", str(service), "--no-finish")
    told = run(*command)
    assert "billing, template from v1.0.0 to v1.3.0" in told
    assert "docs/on-call.md" in told
    assert "1.1.0: `NEW_LIMIT` is new; 10 if it is not set." in told
    assert run(*command) == "billing is at template v1.3.0: nothing to do\n"
    (service / "x").write_text("")
    assert run(*command, status=1).startswith("there are uncommitted changes")


@pytest.mark.parametrize("recorded", ["", "service_name: payments\n"])
def test_a_service_is_not_renamed_by_half(born: Born, recorded: str) -> None:
    """Without a recorded name, the template would use the name of the folder in which it is rendered."""
    service = born()
    answers = service / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace("service_name: billing\n", recorded))
    commit(service)
    before = state(service)
    with pytest.raises(FleetError, match="put service_name back"):
        update(service, options())
    assert state(service) == before


def test_an_answer_that_the_template_does_not_take_is_not_dropped_without_a_word(born: Born) -> None:
    service = born()
    answers = service / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace("ci: github\n", "ci: jenkins\n"))
    commit(service)
    before = state(service)
    with pytest.raises(FleetError, match=r"does not accept the recorded answer ci: 'jenkins'.* fleet update -d ci=…"):
        update(service, options())
    assert state(service) == before
    update(service, options(ci="gitlab"))
    assert "ci: gitlab\n" in answers.read_text()


def test_ctrl_c_while_the_branch_moves_comes_too_late(born: Born) -> None:
    """Git, stopped between two files, would leave the branch half moved."""
    service = born()
    hook = service / ".git/hooks/post-merge"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nkill -INT 0\nkill -TERM 0\n")
    hook.chmod(0o755)
    command = [sys.executable, "-m", "fleet", "update", "--no-finish", str(service)]
    done = subprocess.run(command, start_new_session=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert git(service, "status", "--porcelain") == ""
    assert "_commit: v1.3.0" in (service / ".copier-answers.yml").read_text()


def test_a_link_in_the_place_of_a_platform_file_shows_its_target_and_nothing_of_the_targets_content(
    born: Born, tmp_path: Path
) -> None:
    service = born()
    (tmp_path / "secret").write_text("the secret of the person who updates")
    (service / "ruff.toml").unlink()
    (service / "ruff.toml").symlink_to(tmp_path / "secret")
    commit(service)
    report = update(service, options("v1.1.0"))
    assert f"-{tmp_path}/secret" in report.healed_diff
    assert "the secret of" not in report.healed_diff
    assert (tmp_path / "secret").read_text() == "the secret of the person who updates"
