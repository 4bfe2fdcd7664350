"""Histories are read from repositories: without the platform's commits, and whatever they contain."""

import json
import os
import subprocess
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from fleet.boundaries import boundaries, log
from fleet.boundaries.days import day_of, months_between, quarters, window, working_day
from fleet.boundaries.log import deliveries, of_the_team, tags
from fleet.boundaries.past import Past, read, recall
from fleet.errors import FleetError
from fleet.git import git as fleet_git
from fleet.service.fleet_toml import Member
from fleet.service.mirror import history_of, with_history
from tests.fleet.boundaries.histories import DECISION, TODAY, History, document
from tests.support.commands import git

WINDOW = window(TODAY)


def past_of(folder: Path) -> Past:
    return read(folder, git(folder, "rev-parse", "HEAD").strip(), *WINDOW)


def subjects(folder: Path) -> list[str]:
    return [one.subject for one in of_the_team(deliveries(folder, "HEAD", *WINDOW))]


def test_the_commits_of_the_platform_are_left_out(tmp_path: Path) -> None:
    service = History("billing")
    service.change_contract(500, "Offer a discount")
    service.update(400, "v1.1.0")
    service.commit(300, "Update packages", {"uv.lock": "x", "specs/openapi.json": document(7)})
    service.commit(290, "Take the new words of the library", {"specs/openapi.json": document(8)})
    service.commit(200, "Describe the field", {"src/billing/api/things.py": "y = 1\n"})
    service.commit(199, "Make the specs", {"specs/openapi.json": document(9)})
    service.tag(399, "only-the-platform")
    service.tag(198, "the-team")
    folder = service.write(tmp_path / "billing")
    assert subjects(folder) == ["Make the specs", "Describe the field", "Offer a discount"]
    past = past_of(folder)
    assert [one.what for one in past.contracts] == ["Offer a discount", "Make the specs"]
    assert [one.what for one in past.deployments] == [
        "only-the-platform",
        "the-team",
    ]  # the first tag also deploys the discount


def test_a_tag_after_an_update_alone_is_no_deployment_of_the_team(tmp_path: Path) -> None:
    service = History("billing")
    service.change(500)
    service.tag(490, "v1")
    service.update(400, "v1.1.0")
    service.tag(390, "v2")
    assert [one.what for one in past_of(service.write(tmp_path / "billing")).deployments] == ["v1"]


def test_a_merge_counts_as_one_delivery_on_its_day(tmp_path: Path) -> None:
    folder = History("billing").write(tmp_path / "billing")
    git(folder, "checkout", "--quiet", "-b", "work")
    for number in range(3):
        (folder / "src/billing/domain/things.py").write_text(f"x = {number}\n")
        git(folder, "commit", "--quiet", "--all", "--message", f"Step {number}")
    git(folder, "checkout", "--quiet", "main")
    git(folder, "merge", "--quiet", "--no-ff", "--message", "Merge the work", "work")
    merged = deliveries(folder, "HEAD", WINDOW[0], date.max)
    assert [one.subject for one in merged] == ["Merge the work"]
    assert merged[0].paths == ("src/billing/domain/things.py",)


def test_hostile_names_of_tags_and_texts_of_commits_are_text(tmp_path: Path) -> None:
    service = History("billing")
    evil = "\x1b[31m::error::$(touch x) \u202e"
    service.commit(100, evil, {"src/billing/domain/things.py": "x = 1\n", "src/:100644 a\nb.py": "x"}, by="a ::error")
    folder = service.write(tmp_path / "billing")
    head = git(folder, "rev-parse", "HEAD").strip()
    names = ["-x", "--help", "$(id>pwned)", "v1;rm", "ü" * 60, "a/b/c", "'", "\u202egnp.exe"]
    packed = "".join(f"{head} refs/tags/{name}\n" for name in names)
    (folder / ".git/packed-refs").write_text(f"# pack-refs with: peeled fully-peeled sorted \n{packed}")
    blob = git(folder, "hash-object", "-w", "catalog-info.yaml").strip()
    git(folder, "update-ref", "refs/tags/of-a-file", blob)
    assert {one.name for one in tags(folder, *WINDOW)} >= {"$(id>pwned)", "v1;rm", "a/b/c"}
    [newest, *_] = deliveries(folder, "HEAD", *WINDOW)
    assert newest.subject.startswith("\x1b[31m::error::")
    assert "src/:100644 a\nb.py" in newest.paths
    assert past_of(folder).deployments
    assert not (folder / "pwned").exists()


def test_times_that_no_calendar_has_are_left_out(tmp_path: Path) -> None:
    folder = History("billing").write(tmp_path / "billing")
    for seconds in ("99999999999999999", "0", "4102444800"):
        environment = {**os.environ, "GIT_COMMITTER_DATE": f"{seconds} +0000"}
        command = ["git", "commit", "--quiet", "--allow-empty", "--message", "Odd"]
        subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True)
    assert subjects(folder) == []
    assert day_of("9" * 30) is None
    assert day_of("") is None


def test_a_history_that_is_too_long_to_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = History("billing")
    for days in range(1, 60):
        service.change(days)
    folder = service.write(tmp_path / "billing")
    monkeypatch.setattr(log, "MOST_LOG_BYTES", 1000)
    with pytest.raises(FleetError, match="git log was given up"):
        deliveries(folder, "HEAD", *WINDOW)
    with pytest.raises(FleetError, match="git log failed"):
        fleet_git.bounded(folder, "log", "no-such-branch", "--", most=1000)


def test_a_shallow_clone_is_refused_with_the_way_to_get_its_history(tmp_path: Path) -> None:
    service = History("billing")
    service.change(10)
    folder = service.write(tmp_path / "billing")
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{folder}", "shallow")
    sources, unread = boundaries.sources_of([tmp_path / "shallow"])
    assert sources == []
    assert "git fetch --unshallow" in unread["shallow"]


def test_a_service_at_a_git_url_is_fetched_with_its_history_and_new_tags(tmp_path: Path) -> None:
    service = History("billing")
    service.change(100)
    service.change(50)
    folder = service.write(tmp_path / "billing")
    member = Member("billing", f"file://{folder}")
    commit = with_history(member)
    assert [one.subject for one in deliveries(commit.repository, commit.id, *WINDOW)] == [*subjects(folder)]
    git(folder, "tag", "v1")
    again = with_history(member)
    assert [one.name for one in tags(again.repository, *WINDOW)] == ["v1"]
    os.rename(folder, tmp_path / "moved")
    with pytest.raises(FleetError):
        with_history(member)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLEET_OFFLINE", "1")
        assert with_history(member) == commit
        with pytest.raises(FleetError, match="was never fetched"):
            with_history(replace(member, address="file:///nowhere"))


def test_a_damaged_mirror_of_a_history_is_fetched_anew(tmp_path: Path) -> None:
    service = History("billing")
    service.change(100)
    member = Member("billing", f"file://{service.write(tmp_path / 'billing')}")
    [source], _ = boundaries.sources_of_members([member])
    for pack in history_of(member).glob("objects/pack/*"):
        pack.unlink()
    past = boundaries.attempt_past(boundaries._Wanted(source, *WINDOW))
    assert isinstance(past, Past), past
    assert len(past.code) == 1


def test_the_last_break_of_each_contract_is_found(tmp_path: Path) -> None:
    service = History("billing")
    kept = {"other": {"type": "string"}}
    event = {"title": "PaidV1", "x-kind": "event", "type": "object", "properties": {"a": {"type": "string"}}}
    wrong = {**event, "properties": {"a": {"type": "integer"}}}
    path = "specs/messages/billing.paid.v1.json"
    service.commit(700, "Offer", {"specs/openapi.json": document(1, **kept), path: json.dumps(event)})
    service.commit(600, "Break the answer", {"specs/openapi.json": document(2)})
    service.commit(500, "Describe", {"specs/openapi.json": document(3)})
    service.commit(400, "Break the message", {path: json.dumps(wrong)})
    service.commit(300, "Not JSON", {"specs/openapi.json": "{"})
    service.commit(200, "Repair", {"specs/openapi.json": document(4)})
    service.commit(100, "Retire", {path: None, "specs/retired.txt": "billing.paid.v1 nobody needs it\n"})
    http, messages = past_of(service.write(tmp_path / "billing")).breaks
    assert (http.contract, http.what) == ("HTTP", "GET /v1/a: 200: other was removed")
    assert months_between(http.day, TODAY) == 19
    assert (messages.contract, messages.what) == ("messages", "billing.paid.v1: a: is integer, was string")


def test_a_contract_that_never_broke_shows_since_when(tmp_path: Path) -> None:
    service = History("billing")
    for days in (700, 400, 30):
        service.change_contract(days)
    [http] = past_of(service.write(tmp_path / "billing")).breaks
    assert (http.commit, months_between(http.day, TODAY)) == ("", 23)


def test_the_decision_of_a_service_is_quoted_or_its_answers_or_nothing(tmp_path: Path) -> None:
    whole = past_of(History("whole").write(tmp_path / "whole"))
    assert {name: (one.line, one.answer) for name, one in whole.record.items()} == {
        "limited_by_monolith": (5, "no"),
        "separate_team": (6, "yes"),
        "ready_for_consistency": (7, "yes"),
    }
    answers = History("answers", files={DECISION: "Ours.\n"}, answers={"separate_team": "unknown"})
    found = past_of(answers.write(tmp_path / "answers")).record
    assert {name: (one.path, one.answer) for name, one in found.items()} == {"separate_team": ("", "unknown")}
    assert past_of(History("none", files={DECISION: "| | |\n"}).write(tmp_path / "none")).record == {}


def test_the_past_of_a_commit_is_kept_in_the_cache(tmp_path: Path) -> None:
    service = History("billing", "billing-team", files={"src/billing/domain/categories.py": ""})
    files: dict[str, str | None] = {
        f"src/billing/{path}": "x" for path in ("usecases/category_reminders.py", "api/things.py", "routing.py")
    }
    service.commit(20, "Change", files)
    folder = service.write(tmp_path / "billing")
    head = git(folder, "rev-parse", "HEAD").strip()
    assert recall(folder, head, *WINDOW) is None
    past = past_of(folder)
    assert past.owner == "billing-team"
    assert past.code[0].parts == ("categories", "things")
    assert recall(folder, head, *WINDOW) == past
    git(folder, "tag", "v1")
    assert recall(folder, head, *WINDOW) is None


def test_days_are_counted_in_working_days() -> None:
    friday, saturday, monday = (date(2026, 11, day) for day in (27, 28, 30))
    assert working_day(friday) == working_day(saturday)
    assert working_day(monday) - working_day(friday) == 1
    assert months_between(date(2026, 1, 31), date(2026, 11, 30)) == 9
    assert quarters(date(2025, 12, 31), date(2026, 4, 1)) == ["2025 Q4", "2026 Q1", "2026 Q2"]
