"""policy.toml: which rule counts for which service, and how a mistake is refused."""

import re
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet.check.levels import known_conventions
from fleet.errors import FleetError
from fleet.main import app
from fleet.policy.levels import Rule
from fleet.policy.policy import Policy, parse
from fleet.policy.traits import Traits
from tests.support.paths import ROOT

BLOCK = re.compile(r"```toml\n(.*?)```", re.DOTALL)
KNOWN = frozenset({"http-paths", "docs-runbook", "docs-readme"})

WHOLE = """
[lag]
days = 90

[conventions]
http-paths = { level = "error", from = 2027-03-01 }
docs-runbook = "warning"

[[group]]
tier = [1, "gold"]
conventions = { docs-runbook = "error", "*" = "notice" }

[[group]]
domain = "shop"
owner = ["@acme/shop", "billing"]
conventions = { docs-runbook = "off" }

[[group]]
domain = "shop"
conventions = { docs-runbook = "notice" }

[[maturity]]
name = "bronze"
conventions = ["docs-readme"]

[[maturity]]
name = "gold"
conventions = "*"

[waivers]
approvers = ["ana@platform"]
reviewers = ["@acme/platform"]
days = 180
from = 2027-01-01

[[campaign]]
name = "runbooks"
conventions = "docs-runbook"
by = 2027-04-01
why = "Nobody on call knows all services."
tier = "1"
"""


def strict(text: str) -> Policy:
    return parse(text, "policy.toml", KNOWN)


@pytest.mark.parametrize(
    ("convention", "traits", "rule"),
    [
        ("http-paths", Traits(), Rule("error", date(2027, 3, 1))),
        ("docs-runbook", Traits(), Rule("warning")),
        ("docs-readme", Traits(), Rule()),
        # A group is more specific than all services, even where it names no convention.
        ("http-paths", Traits(tier="1"), Rule("notice")),
        ("docs-runbook", Traits(tier="gold"), Rule("error")),
        ("docs-runbook", Traits(tier="2"), Rule("warning")),
        # Two traits are more specific than one, wherever they are written.
        ("docs-runbook", Traits("@acme/shop", "shop"), Rule("off")),
        ("docs-runbook", Traits("@other/billing", "shop", "1"), Rule("off")),
        ("docs-runbook", Traits("@other/shop", "shop"), Rule("notice")),
        ("docs-runbook", Traits("", "shop"), Rule("notice")),
        # The later of two equally specific groups counts.
        ("docs-runbook", Traits("", "shop", "1"), Rule("notice")),
    ],
)
def test_the_most_specific_rule_counts(convention: str, traits: Traits, rule: Rule) -> None:
    assert strict(WHOLE).rule(convention, traits) == rule


def test_a_group_to_which_no_service_belongs_is_found() -> None:
    policy = strict(WHOLE)
    assert {str(one) for one in policy.groups_without([Traits("@acme/shop", "shop", "2")])} == {
        *("tier 1 or gold", "tier 1")
    }
    assert policy.groups_without([Traits("@acme/shop", "shop", "1")]) == set()
    assert policy.groups_without([]) == set()


def test_a_convention_is_announced_until_its_day() -> None:
    rule = Rule("error", date(2027, 3, 1))
    assert [rule.level_on(date(2027, 2, 28)), rule.level_on(date(2027, 3, 1))] == ["notice", "error"]
    assert Rule("warning").level_on(date(2027, 3, 1)) == "warning"


REFUSED = {
    "not TOML": ("[lag", "policy.toml is not TOML"),
    "a number of thousands of digits": (f"[lag]\ndays = {'1' * 10_000}", "policy.toml is not TOML: Exceeds the limit"),
    "an unknown table": (
        "[convention]",
        "has the unknown key 'convention' (did you mean conventions?): write only lag",
    ),
    "an unknown convention": (
        '[conventions]\nhttp-path = "error"',
        "policy.toml: [conventions] names the convention 'http-path', which does not exist (did you mean http-paths?): write",
    ),
    "an unknown level": (
        '[conventions]\nhttp-paths = "fatal"',
        "http-paths: level has to be one of off, notice, warning, error; it is 'fatal'",
    ),
    "an unknown key of a rule": (
        '[conventions]\nhttp-paths = { level = "error", form = 2027-03-01 }',
        "http-paths has the unknown key 'form' (did you mean from?): write only level, from",
    ),
    "a level as a number": ("[conventions]\nhttp-paths = 1", 'http-paths has to be a level, as "warning", or { level'),
    "a day in quotes": (
        '[conventions]\nhttp-paths = { level = "error", from = "2027-03-01" }',
        "from has to be a day without quotes, as 2027-03-01; it is '2027-03-01'",
    ),
    "a time": (
        '[conventions]\nhttp-paths = { level = "error", from = 2027-03-01T10:00:00 }',
        "from has to be a day without quotes",
    ),
    "a day of a notice": (
        '[conventions]\nhttp-paths = { level = "notice", from = 2027-03-01 }',
        "announces a warning or an error, and the level is notice: remove one of them",
    ),
    "a group without a trait": (
        '[[group]]\nconventions = { http-paths = "off" }',
        "policy.toml: group 1 names no services: write domain, owner, tier",
    ),
    "an unknown trait": ('[[group]]\nteam = "a"', "group 1 has the unknown key 'team'"),
    "a group with one bracket": ('[group]\ntier = "1"', "group is not a list: write [[group]] with two brackets"),
    "a trait that is no text": ("[[group]]\ntier = 1.5", "tier has to be a text or a list of texts"),
    "a trait with an escape": ('[[group]]\ntier = "\\u001b[2J"', "tier has to be a text or a list of texts"),
    "no trait at all": ("[[group]]\ntier = []", "tier has to be a text or a list of texts"),
    "a level of maturity twice": (
        '[[maturity]]\nname = "a"\nconventions = "*"\n' * 2,
        "maturity 2: a is the name of two levels: give one of them another name",
    ),
    "a level of maturity without conventions": (
        '[[maturity]]\nname = "a"',
        "conventions has to list what the level asks for",
    ),
    "an unknown convention of maturity": (
        '[[maturity]]\nname = "a"\nconventions = ["docs"]',
        "maturity 1 names the convention 'docs', which does not exist",
    ),
    "approvers without reviewers": (
        '[waivers]\napprovers = "ana"',
        "[waivers] has no reviewers: approvers are the names",
    ),
    "days below zero": ("[waivers]\ndays = -1", "days has to be a number of days, as 90; it is -1"),
    "a number of days that no calendar has": ("[waivers]\ndays = 99999999", "days has to be at most 36500"),
    "a campaign without a day": (
        '[[campaign]]\nname = "a"\nversion = "v1.0.0"',
        "campaign 1: by has to be the day by which the goal is to be reached",
    ),
    "a campaign with two goals": (
        '[[campaign]]\nname = "a"\nby = 2027-01-01\nversion = "v1"\nmaturity = "gold"',
        "campaign 1 (a) needs exactly one goal: write one of version, conventions, maturity",
    ),
    "a campaign with an unknown level": (
        '[[campaign]]\nname = "a"\nby = 2027-01-01\nmaturity = "golden"\n[[maturity]]\nname = "gold"\nconventions = "*"',
        "maturity has to be the name of a [[maturity]] (did you mean gold?); it is 'golden'",
    ),
    "a campaign with no version": (
        '[[campaign]]\nname = "a"\nby = 2027-01-01\nversion = "newest"',
        "version has to be a version of the template, as v1.2.0; it is 'newest'",
    ),
    "a campaign whose name is a path": (
        '[[campaign]]\nname = "../a"\nby = 2027-01-01\nversion = "v1"',
        "name has to be in kebab-case",
    ),
    "a campaign twice": (
        '[[campaign]]\nname = "a"\nby = 2027-01-01\nversion = "v1"\n' * 2,
        "campaign 2: a is the name of two campaigns",
    ),
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_mistake_is_refused_with_the_input_the_rule_and_the_remedy(text: str, reason: str) -> None:
    with pytest.raises(FleetError) as refusal:
        strict(text)
    assert reason in str(refusal.value)


def test_an_older_fleet_accepts_the_names_of_a_newer_policy() -> None:
    newer = '[conventions]\nhttp-new = "error"\n[newer]\nkey = 1\n'
    assert parse(newer, "policy.toml").rule("http-new", Traits()) == Rule()
    with pytest.raises(FleetError):
        strict(newer)


def test_an_empty_policy_is_that_of_a_platform_without_a_file() -> None:
    assert strict("") == Policy()
    assert Policy().rule("http-paths", Traits()) == Rule("error")


def test_the_policy_of_the_template_has_no_mistake() -> None:
    assert parse((ROOT / "policy.toml").read_text(), "policy.toml", known_conventions()).days == 90


PAGES = [ROOT / "docs/how-to/introduce-a-rule.md", ROOT / "docs/reference/policy.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_policies_of_the_pages_have_no_mistake(page: Path) -> None:
    for block in BLOCK.findall(page.read_text()):
        assert parse(block, page.name, known_conventions()) != Policy()


@pytest.mark.parametrize(("command", "is_for_all"), [("check", False), ("status", True), ("campaign", True)])
def test_only_the_help_of_commands_that_read_the_policy_next_to_fleet_toml_names_the_policy(
    command: str, is_for_all: bool
) -> None:
    text = " ".join(CliRunner().invoke(app, [command, "--help"]).output.split())
    assert ("next to fleet.toml" in text) is is_for_all
