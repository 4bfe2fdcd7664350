"""The order of services, the next steps, and the release that would fix a rule, without a browser."""

from dataclasses import replace

from fleet.check.findings import Finding, Level
from fleet.check.standing import Standing
from fleet.page.rows import rows
from fleet.page.steps import rules, steps
from tests.fleet.page.fleets import RULES, of, standing


def ordered(*standings: Standing) -> list[str]:
    return [row.standing.name for row in rows(standings, {})]


def fixed_by(*standings: Standing) -> tuple[str, int]:
    (rule,) = rules(rows(standings, {}), RULES)
    return rule.fixed_by, rule.witnesses


def test_services_are_sorted_by_state_then_urgency_then_the_number_of_rules() -> None:
    assert ordered(
        standing("in-order"),
        Standing("unreadable", "", unreadable="gone"),
        standing("notice", "v1", 0, of("http-pages", Level.NOTICE)),
        standing("warning", "v1", 0, of("http-pages", Level.WARNING)),
        standing("one", "v1", 0, of("http-pages"), of("http-pages"), of("http-pages")),
        standing("two", "v1", 0, of("http-pages"), of("http-paths")),
        standing("leaked", "v1", 0, of("supply-no-secrets")),
    ) == ["leaked", "two", "one", "unreadable", "warning", "notice", "in-order"]


def test_of_two_services_with_findings_of_one_level_the_lower_number_of_the_tier_comes_first() -> None:
    many = standing("many", "v1", 0, of("http-pages"), of("http-paths"))
    tiers = {"ten": "10", "two": "2", "words": "gold"}
    tiered = [replace(standing(name, "v1", 0, of("http-pages")), tier=tier) for name, tier in tiers.items()]
    leaked = standing("leaked", "v1", 0, of("supply-no-secrets"))
    assert ordered(many, *tiered, leaked) == ["leaked", "two", "ten", "many", "words"]


def test_a_secret_that_the_policy_makes_a_warning_is_not_urgent() -> None:
    (row,) = rows([standing("billing", "v1", 0, of("supply-no-secrets", Level.WARNING))], {})
    assert not row.is_urgent


def test_a_step_names_the_worst_service_of_a_rule_once_and_a_waived_rule_is_no_step() -> None:
    found = steps(
        rows(
            [
                standing("a", "v1", 0, of("http-pages")),
                standing("b", "v1", 0, of("http-pages"), of("http-paths", Level.WARNING)),
                standing("c", "v1", 0, of("http-paths", Level.WAIVED)),
                standing("d", "v1", 0, of("http-paths", Level.NOTICE)),
            ],
            {},
        )
    )
    assert [(one.row.standing.name, one.finding.id, [row.standing.name for row in one.others]) for one in found] == [
        ("b", "http-pages", ["a"]),
        ("d", "http-paths", []),
    ]


def test_a_release_fixes_a_rule_if_all_failing_services_are_older_and_no_service_with_that_release_fails() -> None:
    failing = of("http-pages")
    old, older = standing("old", "v1.9.0", 0, failing), standing("older", "v1.2.0", 0, failing)
    assert fixed_by(old, older, standing("new", "v1.10.0"), standing("newest", "v1.11.0")) == ("v1.10.0", 2)
    assert fixed_by(old, older) == ("", 0)
    assert fixed_by(old, older, standing("same", "v1.9.0")) == ("", 0)
    assert fixed_by(old, standing("new", "v1.10.0", 0, failing), standing("other", "v1.10.0")) == ("", 0)
    assert fixed_by(standing("unknown", "main", 0, failing), standing("new", "v1.10.0")) == ("", 0)
    few = [standing(f"old-{number}", "v1.9.0") for number in range(9)]
    assert fixed_by(old, *few, *(standing(f"new-{number}", "v1.10.0") for number in range(9))) == ("", 0)
    assert fixed_by(old, *few, *(standing(f"new-{number}", "v1.10.0") for number in range(40))) == ("v1.10.0", 40)
    assert fixed_by(standing("leaked", "v1.9.0", 0, of("supply-no-secrets")), standing("new", "v1.10.0")) == ("", 0)
    assert fixed_by(standing("drifted", "v1.9.0", drift=1), standing("new", "v1.10.0")) == ("", 0)
    lag = Finding("template-lag", ".copier-answers.yml", "lacks one release", "`fleet update`", Level.WARNING)
    behind = Standing("behind", "", version="v1.9.0", newest="v1.10.0", platform=(lag,))
    assert fixed_by(behind, standing("new", "v1.10.0")) == ("v1.10.0", 0)
