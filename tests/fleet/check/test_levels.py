"""Levels, days and maturity, applied to the findings of one service."""

from datetime import date

import pytest

from fleet.check import levels
from fleet.check.findings import Finding, Level
from fleet.check.levels import apply_policy
from fleet.check.standing import Standing
from fleet.policy.policy import parse
from fleet.status import show

BEFORE, AFTER = date(2027, 2, 28), date(2027, 3, 1)
PHASED = '[conventions]\nhttp-paths = { level = "error", from = 2027-03-01 }\n'
MATURITY = """
[[maturity]]
name = "bronze"
conventions = ["docs-readme"]
[[maturity]]
name = "silver"
conventions = ["docs-runbook", "http-paths"]
[[maturity]]
name = "gold"
conventions = "*"
"""


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = frozenset({"docs-readme", "docs-runbook", "http-paths", "http-pages"})
    monkeypatch.setattr(levels, "known_conventions", lambda: ids)


def broken(*ids: str, level: Level = Level.ERROR, tier: str = "") -> Standing:
    findings = tuple(Finding(id_, "specs/openapi.json", "has none", "add one", level, why="A reason.") for id_ in ids)
    return Standing("billing", "", version="v1.0.0", conventions=findings, tier=tier)


def judged(standing: Standing, policy: str, day: date = AFTER) -> Standing:
    return apply_policy(standing, parse(policy, "policy.toml"), day)


def test_a_new_rule_is_a_notice_before_its_day_and_fails_from_then_on() -> None:
    before, after = (judged(broken("http-paths"), PHASED, day) for day in (BEFORE, AFTER))
    assert (before.level, before.failed, before.announced) == (None, [], {"http-paths": "2027-03-01"})
    assert show.word(before) == "in order"
    assert "http-paths from 2027-03-01" in show.cells(before)
    assert (after.level, after.failed, after.announced) == (Level.ERROR, ["http-paths"], {})
    assert {one.since for one in (*before.conventions, *after.conventions)} == {"2027-03-01"}


@pytest.mark.parametrize(
    ("level", "word", "shown"),
    [
        ("off", "in order", ""),
        ("notice", "in order", "http-paths (notice)"),
        ("warning", "warning", "http-paths (warning)"),
        ("error", "breach", "http-paths"),
    ],
)
def test_the_level_decides_the_state_of_the_service(level: str, word: str, shown: str) -> None:
    found = judged(broken("http-paths"), f'[conventions]\nhttp-paths = "{level}"')
    assert (show.word(found), show.cells(found)[show.CONVENTIONS - 1]) == (word, shown)


def test_a_rule_of_a_group_counts_only_for_its_services() -> None:
    policy = '[conventions]\n"*" = "notice"\n[[group]]\ntier = "1"\nconventions = { "*" = "error" }'
    assert [judged(broken("http-paths", tier=tier), policy).level for tier in ("1", "2")] == [Level.ERROR, None]


def test_a_waiver_stays_a_waiver_at_every_level_but_off() -> None:
    waived = broken("http-paths", level=Level.WAIVED)
    assert judged(waived, PHASED, BEFORE).waived == ["http-paths"]
    assert judged(waived, '[conventions]\nhttp-paths = "off"').conventions == ()


def test_a_finding_about_the_waivers_is_no_convention_and_keeps_its_level() -> None:
    found = judged(broken("waiver-invalid"), '[conventions]\n"*" = "off"')
    assert found.failed == ["waiver-invalid"]


@pytest.mark.parametrize(
    ("ids", "maturity", "following", "lacks"),
    [
        ([], "gold", None, ()),
        (["http-pages"], "silver", "gold", ("http-pages",)),
        (["http-paths"], "bronze", "silver", ("http-paths",)),
        (["http-pages", "docs-readme", "http-paths"], None, "bronze", ("docs-readme",)),
        # The service meets the levels above, which do not count without the level below.
        (["docs-readme"], None, "bronze", ("docs-readme",)),
        (["waiver-invalid"], "gold", None, ()),
    ],
)
def test_a_service_has_the_highest_level_that_is_met_whole(
    ids: list[str], maturity: str | None, following: str | None, lacks: tuple[str, ...]
) -> None:
    found = judged(broken(*ids), MATURITY)
    assert (found.maturity, found.next_maturity, found.lacks) == (maturity, following, lacks)


def test_neither_a_level_nor_a_waiver_makes_a_service_more_mature() -> None:
    policy = MATURITY + '[conventions]\nhttp-paths = "off"\n'
    assert judged(broken("http-paths"), policy).maturity == "bronze"
    assert judged(broken("http-paths", level=Level.WAIVED), MATURITY).maturity == "bronze"


def test_a_service_that_cannot_be_read_has_no_maturity() -> None:
    assert judged(Standing("gone", "", unreadable="no such folder"), MATURITY).maturity is None


def test_without_a_policy_a_standing_stays_the_same() -> None:
    found = broken("http-paths", "waiver-unused")
    assert judged(found, "[lag]\ndays = 90") == found
