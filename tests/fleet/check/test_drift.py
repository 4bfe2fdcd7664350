"""`fleet check --drift` finds changes of platform-owned files by Git alone, and is fast."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.check.check import Options, Report, examine
from fleet.check.drift import check_drift, check_waivers
from fleet.check.findings import Level
from fleet.processes.parallel import Failure
from fleet.service.service import Service
from tests.fleet.command_line import run
from tests.fleet.services import Born, commit, waive
from tests.support.commands import git

pytestmark = pytest.mark.slow


def found(service: Path, ref: str | None = None) -> list[tuple[str, str]]:
    looked_at = Service(service, ref)
    return [(finding.id, finding.path) for check in (check_drift, check_waivers) for finding in check(looked_at)]


def test_a_newborn_service_has_none(born: Born) -> None:
    assert found(born()) == []


CHANGES: dict[str, tuple[Callable[[Path], object], list[tuple[str, str]]]] = {
    "edited": (lambda s: (s / "Makefile").write_text("all:\n"), [("drift-edited", "Makefile")]),
    "deleted": (
        lambda s: (s / "chassis/src/chassis/http.py").unlink(),
        [("drift-deleted", "chassis/src/chassis/http.py")],
    ),
    "made executable": (lambda s: (s / "ruff.toml").chmod(0o755), [("drift-mode", "ruff.toml")]),
    "added to the chassis": (
        lambda s: (s / "chassis/src/chassis/ours.py").write_text(""),
        [("drift-extra", "chassis/src/chassis/ours.py")],
    ),
    "replaced by a link": (
        lambda s: ((s / "ty.toml").unlink(), (s / "ty.toml").symlink_to("ruff.toml")),
        [("drift-edited", "ty.toml")],
    ),
    "answers edited": (
        lambda s: (s / ".copier-answers.yml").write_text(
            (s / ".copier-answers.yml").read_text().replace("ci: github", "ci: jenkins")
        ),
        [("answers", ".copier-answers.yml")],
    ),
    "team's file edited": (lambda s: (s / "src/billing/main.py").write_text("raise SystemExit\n"), []),
    "team's file deleted": (lambda s: (s / "docs/runbook.md").unlink(), []),
    "team's file added": (lambda s: (s / ".github/workflows/ours.yaml").write_text("on: push\n"), []),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_kind_of_change_is_one_finding_committed_or_not(born: Born, change: str) -> None:
    service = born()
    make, expected = CHANGES[change]
    make(service)
    assert found(service) == expected
    commit(service)
    assert found(service) == expected
    assert found(service, "HEAD") == expected
    assert found(service, "HEAD~1") == []


def test_a_bare_clone_will_do(born: Born, tmp_path: Path) -> None:
    service = born()
    (service / "Makefile").write_text("all:\n")
    commit(service)
    git(tmp_path, "clone", "--quiet", "--bare", str(service), "bare.git")
    assert found(tmp_path / "bare.git") == [("drift-edited", "Makefile")]


def test_a_waiver_holds_for_the_content_that_was_approved(born: Born) -> None:
    service = born()
    (service / "Dockerfile").write_text("FROM scratch\n")
    waive(service, "Dockerfile")
    assert found(service) == [("waived", "Dockerfile")]
    (service / "Dockerfile").write_text("FROM scratch\nUSER root\n")
    assert found(service) == [("waiver-void", "Dockerfile")]
    (void,) = [finding for finding in check_waivers(Service(service)) if finding.id == "waiver-void"]
    assert git(service, "hash-object", "Dockerfile").strip() in void.reason
    assert void.level is Level.ERROR


def test_a_deletion_can_be_waived(born: Born) -> None:
    service = born()
    (service / "renovate.json").unlink()
    waive(service, "renovate.json")
    assert found(service) == [("waived", "renovate.json")]


def test_a_waiver_ends(born: Born) -> None:
    service = born()
    (service / "Dockerfile").write_text("FROM scratch\n")
    waive(service, "Dockerfile", expires="2020-01-01")
    assert found(service) == [("waiver-expired", "Dockerfile")]


def test_a_waiver_of_a_file_that_is_the_templates_is_of_no_use(born: Born) -> None:
    service = born()
    waive(service, "Dockerfile")
    assert found(service) == [("waiver-unused", "Dockerfile")]


def test_a_waiver_of_a_file_that_is_not_the_platforms_has_no_effect(born: Born) -> None:
    service = born()
    useless = ["README.md", "docs/not-there.md", ".github/workflows/ours.yaml"]
    for path in ("README.md", ".github/workflows/ours.yaml", "chassis/ours.md"):
        (service / path).write_text("ours\n")
    waive(service, *useless, "chassis/ours.md")
    looked_at = list(check_waivers(Service(service)))
    assert [(one.id, one.path, one.level) for one in looked_at] == [
        ("waiver-unused", path, Level.WARNING) for path in useless
    ]
    assert all("not the platform's" in one.reason for one in looked_at)


def test_a_waiver_that_is_none_is_told_and_does_not_count(born: Born) -> None:
    service = born()
    (service / "Dockerfile").write_text("FROM scratch\n")
    (service / "conventions.yml").write_text("waivers:\n- path: Dockerfile\n  reason: because\n")
    assert found(service) == [("drift-edited", "Dockerfile"), ("waiver-invalid", "conventions.yml")]


@pytest.mark.usefixtures("in_this_process")
def test_the_table_names_the_path_and_the_exit_status_is_1(born: Born) -> None:
    service = born()
    command = ("check", "--drift", str(service))
    assert run(*command) == "billing, template v1.0.0: no findings\n"
    (service / "Makefile").write_text("all:\n")
    told = run(*command, status=1)
    assert "drift-edited" in told
    assert "Makefile" in told


def test_a_warm_check_renders_nothing(born: Born, monkeypatch: pytest.MonkeyPatch) -> None:
    service = born()
    found(service)
    monkeypatch.setattr("fleet.template.release.Release.render", None)
    started = time.process_time()
    assert found(service) == []
    # The check takes 0.03 s of this process' time. The limit is for any machine.
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("recorded", ["", "service_name: payments\n"])
def test_a_name_that_is_not_the_packages_is_told(born: Born, recorded: str) -> None:
    service = born()
    answers = service / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace("service_name: billing\n", recorded))
    [found] = [finding for finding in check_drift(Service(service)) if finding.id == "answers"]
    assert "service_name" in f"{found.reason} {found.remedy}"


def with_files(service: Path, *paths: str) -> None:
    """Commit files of these names, also if the file system cannot hold all of them."""
    blob = git(service, "rev-parse", "HEAD:README.md").strip()
    for path in paths:
        git(service, "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
    git(service, "commit", "--quiet", "--message", "Names")


@pytest.mark.parametrize(
    ("names", "second"),
    [
        (("NOTES.md", "notes.md"), "notes.md"),
        (("docs/a.md", "Docs/b.md"), "docs"),
        (("Ideas", "ideas/a.md"), "ideas"),
        (("Caf\u00e9.md", "Cafe\u0301.md"), "Caf\u00e9.md"),
        (("CAF\u00c9/a.md", "cafe\u0301/b.md"), "cafe\u0301"),
    ],
)
def test_two_names_that_some_systems_take_for_one_are_one_finding(
    born: Born, names: tuple[str, str], second: str
) -> None:
    service = born()
    with_files(service, *names)
    report = examine(Options(service, "HEAD", only_drift=True))
    assert isinstance(report, Report)
    assert [(one.id, one.path) for one in report.findings if one.level is Level.ERROR] == [("path-case", second)]


@pytest.mark.parametrize("name", ["dockerfile", "Chassis/harm.py", ".IMPORTLINTER"])
def test_a_name_that_could_take_the_place_of_the_platforms_is_refused(born: Born, name: str) -> None:
    service = born()
    with_files(service, name)
    report = examine(Options(service, "HEAD", only_drift=True))
    assert isinstance(report, Failure)
    assert "differ in upper and lower case only" in report.why


def test_a_file_equals_its_render_until_somebody_edits_the_file(born: Born) -> None:
    edited = {"src/billing/main.py", "src/billing/api/invoices.py", "ruff.toml"}
    service = born()
    assert all(Service(service).equals_render(path) for path in edited)
    for path in edited:
        (service / path).write_text("# Edited.\n")
    assert not any(Service(service).equals_render(path) for path in edited)
