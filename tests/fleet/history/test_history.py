"""The file of `fleet status --record`: what is written and read, and what the days show."""

import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from fleet import history
from fleet.check.findings import Finding, Level
from fleet.check.standing import Standing
from fleet.errors import FleetError
from fleet.history import days
from fleet.history.adoption import adoptions
from fleet.history.changes import changes
from fleet.history.days import Day, Entry, today_of
from fleet.history.file import KEPT, read, record
from fleet.service.waivers import today

HOSTILE = "</script><script>alert('1')</script>\u2028\x1b[31m"


def standing(name: str, *failed: str, version: str = "v1.4.0") -> Standing:
    return Standing(
        name,
        f"git@git.example.com:shop/{name}.git",
        version=version,
        newest="v1.4.0",
        newest_released="2026-10-01",
        waivers={"live": 2, "expiring": 1, "void": 0},
        platform=(Finding("drift-edited", "ruff.toml", "edited", "restore it"),),
        conventions=tuple(Finding(id_, "", "no", "do") for id_ in failed),
    )


def ago(number: int, **services: Entry) -> Day:
    return Day(today() - timedelta(number), {"v1.4.0": date(2026, 10, 1)}, services)


ORDERLY = Entry("in order", "v1.4.0")


def test_a_recorded_day_has_the_state_of_each_service_and_the_newest_release(tmp_path: Path) -> None:
    fleet = [
        standing("billing", "http-paths", version="v1.3.0"),
        Standing("gone", "https://git.example.com/gone.git", unreadable="no such repository"),
    ]
    record(tmp_path / "history.jsonl", today_of(fleet))
    (day,) = read(tmp_path / "history.jsonl")
    assert day == today_of(fleet)
    assert day.releases == {"v1.4.0": date(2026, 10, 1)}
    assert day.services["billing"] == Entry("breach", "v1.3.0", {"http-paths": "error"}, drift=1, waivers=2)
    assert day.services["gone"] == Entry("unreadable")


def test_a_waived_convention_is_no_failure_of_the_day() -> None:
    waived = Finding("http-paths", "", "no", "do", Level.WAIVED)
    assert today_of([replace(standing("billing"), conventions=(waived,))]).services["billing"].failed == {}


def test_a_second_run_of_a_day_replaces_the_line_of_the_day(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    record(file, ago(1, billing=ORDERLY))
    record(file, ago(0, billing=Entry("breach")))
    found = record(file, ago(0, billing=ORDERLY))
    assert found == read(file) == [ago(1, billing=ORDERLY), ago(0, billing=ORDERLY)]
    assert len(file.read_text().splitlines()) == 2


def test_the_oldest_lines_leave_a_file_that_has_the_most_lines(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    file.write_text("".join(f"{days.write(ago(number))}\n" for number in range(KEPT + 20, 0, -1)))
    found = record(file, ago(0))
    assert len(found) == len(file.read_text().splitlines()) == KEPT
    assert (found[0].day, found[-1].day) == (today() - timedelta(KEPT - 1), today())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "the line is not JSON"),
        ("[" * 100_000, "the line is not JSON"),
        ("\ufffd\x00", "the line is not JSON"),
        ("[]", "the line is not an object"),
        ('{"day": 5, "services": {}}', "'5' is not a day such as 2026-11-30"),
        ('{"day": "9999-01-01", "services": {}}', "the day 9999-01-01 has not come yet"),
        ('{"day": "2026-01-01"}', "services is not an object"),
        ('{"day": "2026-01-01", "services": {"a": {"state": "<b>"}}}', "a service has the state '<b>'"),
        ('{"day": "2026-01-01", "services": {"a": {"state": "breach", "drift": -1}}}', "'-1' is not a count"),
        ('{"day": "2026-01-01", "services": {"a": {"state": "breach", "drift": true}}}', "'True' is not a count"),
        ('{"day": "2026-01-01", "services": {"a": {"state": "breach", "drift": 1e999}}}', "'inf' is not a count"),
        ('{"day": "2026-01-01", "services": {"a": {"state": "breach", "version": []}}}', "'[]' is not a text"),
        ('{"day": "2026-01-01", "services": {"a": {"state": "breach", "failed": {"x": "worst"}}}}', "'worst'"),
        (json.dumps({"day": "2026-01-01", "services": {"a" * 301: {"state": "breach"}}}), "at most 300 characters"),
        ('{"day": "2026-01-01", "releases": {"v1": "soon"}, "services": {}}', "'soon' is not a day"),
    ],
)
def test_a_damaged_line_is_named_skipped_and_kept_for_its_repair(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, reason: str
) -> None:
    file = tmp_path / "history.jsonl"
    file.write_text(f"{days.write(ago(2))}\n{line}\n{days.write(ago(1))}\n")
    assert [one.day for one in record(file, ago(0))] == [ago(number).day for number in (2, 1, 0)]
    said = capsys.readouterr().err
    assert f"{file}, line 2 is skipped: " in said
    assert reason in said
    assert line in file.read_text().splitlines()


def test_hundreds_of_damaged_lines_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "history.jsonl"
    file.write_text("?\n" * 300)
    assert read(file) == []
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 6
    assert said[-1].endswith("has 295 more damaged lines, which are skipped too")


def test_hostile_names_and_versions_stay_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "history.jsonl"
    hostile = replace(standing(f"{HOSTILE}\n", f"{HOSTILE}\n", version="a\nb"), newest="c\nd")
    record(file, today_of([hostile]))
    assert len(file.read_bytes().splitlines()) == 1
    assert file.read_text().isprintable() is False  # because of the line feed at the end alone
    assert file.read_text().rstrip("\n").isprintable()
    assert read(file) == [today_of([hostile])]
    assert capsys.readouterr().err == ""


def test_a_folder_a_device_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    for place in (tmp_path, Path("/dev/zero")):
        with pytest.raises(FleetError, match="is not a file, and the history of the fleet has to be one"):
            record(place, ago(0))
    huge = tmp_path / "huge"
    with huge.open("wb") as opened:
        opened.truncate(300 * 2**20)
    with pytest.raises(FleetError, match="more than 200 MiB"):
        read(huge)


def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "history.jsonl")
    record(link, ago(0))
    assert link.is_symlink()
    assert len(read(tmp_path / "history.jsonl")) == 1


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("FLEET_OFFLINE", "1", "--offline shows the commits of an earlier run"),
        ("FLEET_TODAY", "2999-01-01", "FLEET_TODAY or --on judges as on another day"),
    ],
)
def test_a_run_that_does_not_show_today_shows_the_history_and_writes_no_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    reason: str,
) -> None:
    file, day = tmp_path / "history.jsonl", ago(1, billing=ORDERLY)
    record(file, day)
    monkeypatch.setenv(variable, value)
    assert history.remember(file, [standing("billing")]) == [day]
    assert f"gets no line for today, because {reason}" in capsys.readouterr().err


def test_a_run_as_on_an_earlier_day_draws_the_days_until_then_and_blames_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, earlier, later = tmp_path / "history.jsonl", ago(3, billing=ORDERLY), ago(1, billing=ORDERLY)
    record(file, earlier)
    record(file, later)
    monkeypatch.setenv("FLEET_TODAY", str(ago(2).day))
    assert history.remember(file, [standing("billing")]) == [earlier]
    assert "is skipped" not in capsys.readouterr().err


def test_changes_are_grouped_by_kind_with_changes_for_the_worse_first() -> None:
    before = ago(
        1,
        billing=Entry("in order", "v1.3.0"),
        orders=Entry("in order", "v1.3.0", waivers=1),
        payments=Entry("breach", "v1.3.0", {"http-paths": "error"}, drift=3),
        shipping=ORDERLY,
        stock=Entry("unreadable"),
        left=ORDERLY,
    )
    after = ago(
        0,
        billing=Entry("breach", "v1.4.0", {"event-names": "error"}),
        orders=Entry("breach", "v1.3.0", {"event-names": "error"}, void=1),
        payments=Entry("in order", "v1.4.0"),
        shipping=Entry("unreadable"),
        stock=ORDERLY,
        fresh=ORDERLY,
    )
    assert [(one.tone, one.text, one.services) for one in changes(before, after)] == [
        ("worse", "event-names fails", ("billing", "orders")),
        ("worse", "unreadable now", ("shipping",)),
        ("worse", "a waiver became void", ("orders",)),
        ("better", "http-paths holds again", ("payments",)),
        ("better", "readable again", ("stock",)),
        ("better", "in order now", ("payments",)),
        ("better", "less drift", ("payments",)),
        ("other", "now at v1.4.0", ("billing", "payments")),
        ("other", "new in the fleet", ("fresh",)),
        ("other", "gone from the fleet", ("left",)),
    ]


def test_a_service_that_is_worse_for_no_recorded_reason_is_named() -> None:
    found = changes(ago(1, billing=ORDERLY), ago(0, billing=Entry("breach", "v1.4.0")))
    assert [(one.tone, one.text) for one in found] == [("worse", "a worse state")]


def fleet_at(number: int, *versions: str) -> Day:
    services = {str(place): Entry("in order", version) for place, version in enumerate(versions)}
    releases = {max(versions): today() - timedelta(30 if max(versions) == "v1.1.0" else 90)}
    return Day(today() - timedelta(number), releases, services)


def test_the_adoption_of_a_release_ends_when_four_of_five_services_have_that_release_or_a_later_release() -> None:
    old, new = ["v1.0.0"], ["v1.1.0"]
    found = adoptions(
        [
            fleet_at(40, *old * 5),
            fleet_at(30, *old * 4, *new),
            fleet_at(20, *old * 2, *new * 3),
            fleet_at(10, *old, *new * 4),
            fleet_at(0, *new * 5),
        ]
    )
    assert [(one.version, one.days, one.is_upper_bound) for one in found] == [
        ("v1.1.0", 20, False),
        ("v1.0.0", 50, True),
    ]
    assert [share for _, share in found[0].shares] == [0.2, 0.6, 0.8, 1]
    assert found[0].share == 1


def test_a_release_that_few_services_have_is_not_adopted_and_unreadable_services_do_not_count() -> None:
    day = fleet_at(0, "v1.0.0", "v1.1.0")
    (found, *_) = adoptions([replace(day, services={**day.services, "gone": Entry("unreadable")})])
    assert (found.days, found.share) == (None, 0.5)


def test_versions_that_cannot_be_compared_are_left_out() -> None:
    strange = Day(today(), {HOSTILE: today()}, {"billing": Entry("in order", HOSTILE)})
    assert adoptions([strange, ago(0, billing=Entry("in order", HOSTILE))])[0].share == 0
    assert adoptions([strange]) == []
