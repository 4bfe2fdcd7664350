"""The services that have reached the goal of a campaign, and the text for the owners of the others."""

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from fleet.campaign import show
from fleet.campaign.issues import MOST_FINDINGS, code, issues, mention
from fleet.campaign.nudge import write_issues
from fleet.campaign.progress import Progress, State, find_campaign, measure
from fleet.check.findings import Finding, Level
from fleet.check.levels import apply_policy
from fleet.check.standing import Standing
from fleet.errors import FleetError
from fleet.policy.policy import parse

DAY = date(2027, 3, 1)
HOSTILE = "</code>`\n/close\n@everyone ![x](https://evil.example/x.png) <img src=x> \x1b[2J\u202e"

POLICY = """
[[maturity]]
name = "bronze"
conventions = ["docs-readme"]
[[maturity]]
name = "silver"
conventions = ["docs-runbook"]

[[campaign]]
name = "runbooks"
conventions = ["docs-runbook"]
by = 2027-03-11
why = "Nobody on call knows all services."
ask = "@acme/platform"

[[campaign]]
name = "v2"
version = "v2.0.0"
by = 2027-02-01

[[campaign]]
name = "silver"
maturity = "silver"
by = 2027-03-01
domain = "shop"

[[maturity]]
name = "gold"
conventions = "*"

[[campaign]]
name = "gold"
maturity = "gold"
by = 2027-03-01
"""


def standing(
    name: str, owner: str = "@acme/shop", *broken: str, level: Level = Level.ERROR, version: str = "v1.0.0"
) -> Standing:
    found = tuple(
        Finding(id_, "docs/runbook.md", "has no section", "write one", level, 3, "A reason.") for id_ in broken
    )
    return Standing(
        name, f"https://github.com/acme/{name}.git", version=version, conventions=found, owner=owner, domain="shop"
    )


def measured(name: str, *standings: Standing, day: date = DAY) -> Progress:
    policy = parse(POLICY, "policy.toml")
    return measure(find_campaign(policy, name), policy.maturity, list(standings), day)


def states(progress: Progress) -> list[tuple[str, tuple[str, ...]]]:
    return [(part.state.value, part.missing) for part in progress.parts]


def test_a_convention_is_reached_where_no_finding_is_left() -> None:
    found = measured(
        "runbooks",
        standing("kept"),
        standing("other", "a", "docs-readme"),
        standing("broken", "a", "docs-runbook", "docs-readme", level=Level.NOTICE),
        standing("excused", "a", "docs-runbook", level=Level.WAIVED),
        Standing("gone", "", unreadable="there is no folder"),
    )
    assert states(found) == [
        ("done", ()),
        ("done", ()),
        ("open", ("docs-runbook",)),
        ("waived", ("docs-runbook",)),
        ("unreadable", ()),
    ]
    assert [part.standing.name for part in found.open] == ["broken"]


@pytest.mark.parametrize("campaign", ["runbooks", "silver", "gold"])
def test_a_convention_that_the_policy_turns_off_is_neither_done_nor_asked(campaign: str) -> None:
    policy = parse(f'{POLICY}[[group]]\ntier = "3"\nconventions = {{ docs-runbook = "off" }}\n', "policy.toml")
    broken = replace(standing("b", "b", "docs-runbook"), tier="3")
    services = [
        *(broken, replace(broken, tier="1"), replace(standing("kept"), tier="3")),
        replace(standing("both", "b", "docs-runbook", "docs-readme"), tier="3"),
    ]
    judged = [apply_policy(one, policy, DAY) for one in services]
    found = measure(find_campaign(policy, campaign), policy.maturity, judged, DAY)
    both = ("off", ("docs-runbook",)) if campaign == "runbooks" else ("open", ("docs-readme",))
    assert states(found) == [("off", ("docs-runbook",)), ("open", ("docs-runbook",)), ("done", ()), both]
    # The level of maturity agrees: this service has not reached the level either.
    assert [one.maturity for one in judged] == ["bronze", "bronze", "gold", None]
    assert "b" not in [part.standing.name for part in found.open if part.standing.tier == "3"]


def test_a_version_is_reached_by_the_version_and_each_later_version() -> None:
    versions = ("v1.9.0", "v2.0.0", "v2.0.1", "v2.0.0-3-gabcdef1", "v2.0.0rc1", "0123abc")
    found = measured("v2", *(standing(version, version=version) for version in versions))
    assert [part.state for part in found.parts] == [
        *(State.OPEN, State.DONE, State.DONE, State.DONE, State.OPEN, State.OPEN)
    ]
    assert found.open[0].missing == ("v1.9.0",)


def test_a_level_is_reached_with_all_levels_below_and_only_its_group_counts() -> None:
    elsewhere = Standing("elsewhere", "", version="v1.0.0", domain="stock")
    found = measured(
        "silver", standing("a", "a", "docs-readme"), standing("b", "b", "docs-runbook"), standing("c"), elsewhere
    )
    assert states(found) == [("open", ("docs-readme",)), ("open", ("docs-runbook",)), ("done", ())]


def test_a_level_of_all_conventions_asks_for_nothing_that_is_no_convention() -> None:
    unused = standing("kept", "a", "waiver-unused", level=Level.WARNING)
    found = measured("gold", unused, standing("broken", "a", "docs-alerts", "waiver-invalid"))
    assert states(found) == [("done", ()), ("open", ("docs-alerts",))]
    assert apply_policy(unused, parse(POLICY, "policy.toml"), DAY).maturity == "gold"


@pytest.mark.parametrize(
    ("day", "broken", "is_late"),
    [
        (date(2027, 3, 11), ("docs-runbook",), False),
        (date(2027, 3, 12), ("docs-runbook",), True),
        (date(2027, 3, 12), (), False),
    ],
)
def test_a_campaign_is_late_after_its_day_while_a_service_is_open(
    day: date, broken: tuple[str, ...], is_late: bool
) -> None:
    assert measured("runbooks", standing("a", "a", *broken), day=day).is_late is is_late


def test_an_unknown_campaign_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(FleetError) as refusal:
        find_campaign(parse(POLICY, "policy.toml"), "runbook")
    assert str(refusal.value) == (
        "there is no campaign 'runbook' (did you mean runbooks?): write one of runbooks, v2, silver, gold"
    )


def test_the_table_and_the_json_name_the_owner_and_the_missing_part() -> None:
    found = measured("runbooks", standing("kept"), standing("broken", "@acme/\x1b[2Jshop", "docs-runbook"))
    lines = show.table(found, width=120).splitlines()
    assert lines[0] == ("runbooks: keep docs-runbook, by 2027-03-11 (10 days left): 1 of 2 services done, 1 open")
    assert lines[3].split() == ["broken", "open", "@acme/\\x1b[2Jshop", "docs-runbook"]
    (written,) = json.loads(show.as_json([found]))["campaigns"]
    assert (written["name"], written["by"], written["is_late"]) == ("runbooks", "2027-03-11", False)
    assert [(one["name"], one["state"], one["missing"]) for one in written["services"]] == [
        ("kept", "done", []),
        ("broken", "open", ["docs-runbook"]),
    ]


def test_each_owner_gets_one_text_with_the_finding_and_the_remedy_of_each_service() -> None:
    found = measured(
        "runbooks",
        standing("orders", "@acme/shop", "docs-runbook"),
        standing("stock", "billing-team", "docs-runbook"),
        standing("cart", "@acme/shop", "docs-runbook"),
        standing("kept"),
    )
    shop, billing = issues(found)
    assert (shop.owner, shop.file_name, [part.standing.name for part in shop.parts]) == (
        *("@acme/shop", "acme-shop.md"),
        ["orders", "cart"],
    )
    assert shop.title == "Campaign runbooks: due 2027-03-11"
    assert shop.body == (
        "@acme/shop: please let these services keep docs-runbook, by **2027-03-11** (10 days left).\n\n"
        "Nobody on call knows all services.\n\n"
        "### `orders`\n\n- `docs-runbook`: `docs/runbook.md:3`: `has no section`. Do: `write one`\n\n"
        "### `cart`\n\n- `docs-runbook`: `docs/runbook.md:3`: `has no section`. Do: `write one`\n\n"
        "Done: 1 of 4 services.\nQuestions: ask @acme/platform.\n"
    )
    assert billing.body.startswith("`billing-team`: please let this service keep docs-runbook")


def test_a_text_about_a_version_names_the_version_of_the_service_and_the_command() -> None:
    (one,) = issues(measured("v2", standing("orders")))
    assert "be at version v2.0.0 of the template, or a later version, by **2027-02-01** (28 days late)." in one.body
    assert "- It is at `v1.0.0`. Run `make update`." in one.body


def test_a_string_of_a_repository_is_code_on_one_line() -> None:
    finding = Finding("docs-runbook", HOSTILE, HOSTILE, HOSTILE, line=1)
    evil = Standing(HOSTILE, HOSTILE, version="v1.0.0", conventions=(finding,), owner=HOSTILE)
    (one,) = issues(measured("runbooks", evil))
    plain = one.body.replace("Questions: ask @acme/platform.", "")
    outside = "".join(plain.split("`")[::2])
    assert not set(outside) & set("<>![]\x1b\u202e")
    assert "@" not in outside
    assert not [line for line in one.body.splitlines() if line.startswith("/")]
    assert all(char == "\n" or char.isprintable() for char in one.body)
    assert one.file_name == "code-close-everyone-x-https-evil-example-x-png-img-src-x-2j.md"


@pytest.mark.parametrize(
    ("owner", "shown"),
    [
        ("@acme/shop", "@acme/shop"),
        ("billing-team", "`billing-team`"),
        ("@all", "`@all`"),
        ("@Here", "`@Here`"),
        ("@a @b", "`@a @b`"),
        ("@a\n/close", "`@a /close`"),
    ],
)
def test_only_the_name_of_a_team_is_mentioned(owner: str, shown: str) -> None:
    assert mention(owner) == shown


def test_a_long_string_and_many_findings_are_cut() -> None:
    assert len(code("x" * 5000)) == 303
    many = standing("orders", "a", *["docs-runbook"] * (MOST_FINDINGS + 2))
    (one,) = issues(measured("runbooks", many))
    assert one.body.count("docs/runbook.md:3") == MOST_FINDINGS
    assert "- 2 more findings: run `make conventions`." in one.body


def test_only_the_files_of_owners_without_open_services_are_removed(tmp_path: Path) -> None:
    broken = [standing("a", "@acme/shop", "docs-runbook"), standing("b", "acme_shop", "docs-runbook")]
    written = write_issues(measured("runbooks", *broken, standing("c", "", "docs-runbook")), tmp_path)
    assert [file.name for file in written] == ["no-owner.md", "acme-shop.md", "acme-shop-2.md"]
    (tmp_path / "notes.md").write_text("# Campaign runbooks are tiring\n")
    (tmp_path / "other.md").write_text("# Campaign runbooks-2: due 2027-01-01\n")
    write_issues(measured("runbooks", broken[0]), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["acme-shop.md", "notes.md", "other.md"]
    assert (
        (tmp_path / "acme-shop.md").read_text().startswith("# Campaign runbooks: due 2027-03-11\n\n@acme/shop: please")
    )
