"""The campaigns, the questions about boundaries and the errors between services on the page, in a real browser."""

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import expect

from docs.example_boundaries import boundaries
from docs.example_fleet import content as example
from docs.example_map import with_example_map
from fleet.campaign.progress import measure
from fleet.page import Content, write_pages
from fleet.page import page as html
from fleet.page.faults import Fault
from fleet.policy.policy import parse
from fleet.service.waivers import today
from tests.fleet.page.fleets import FLEET, HOSTILE, RULES, Open, small

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

POLICY = """
[[campaign]]
name = "paths"
conventions = ["http-paths", "http-pages"]
by = {over}
why = "<b>Callers</b> need them."
ask = "@shop/platform"

[[campaign]]
name = "paper"
version = "v1.10.0"
by = {soon}
"""


def campaigns(monkeypatch: pytest.MonkeyPatch) -> Content:
    """The small fleet with a campaign that is late, and another campaign."""
    ids = frozenset(one.id for one in RULES)
    monkeypatch.setattr("fleet.campaign.progress.known_conventions", lambda: ids)
    day = today()
    policy = parse(POLICY.format(over=day - timedelta(1), soon=day + timedelta(1)), "policy.toml", ids)
    return replace(small(), campaigns=[measure(one, policy.maturity, FLEET, day) for one in policy.campaigns[::-1]])


def test_a_campaign_shows_its_progress_the_owner_to_ask_and_the_state_of_each_service(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened(campaigns(monkeypatch))
    articles = page.locator("#campaigns article")
    assert articles.locator("h3").all_inner_texts() == [
        f"paths by {today() - timedelta(1)}, 1 day late",
        f"paper by {today() + timedelta(1)}, 1 day left",
    ]
    late = articles.first
    assert "Goal: keep http-paths, http-pages. <b>Callers</b> need them." in late.inner_text()
    expect(late.locator(".achieved b")).to_have_text("2 of 6 services done, 2 open, 1 unreadable, 1 waived")
    asked = [row.split("\t") for row in late.locator(".asked tbody tr").all_inner_texts()]
    assert asked == [["@shop/a", "1", "billing-10"], ["@shop/b", "1", "billing-9"]]
    late.get_by_text("Each service").click()
    rows = [row.split("\t") for row in late.locator("details tbody tr").all_inner_texts()]
    assert [row[:2] for row in rows] == [
        *(["billing-10", "open"], ["billing-9", "open"], ["gone", "unreadable"]),
        *([HOSTILE, "waived"], ["orders", "done"], ["mail", "done"]),
    ]
    assert rows[0][2:] == ["@shop/a", "http-paths, http-pages"]
    late.locator(".asked").get_by_role("link", name="billing-9").click()
    expect(page.locator("#s2 > summary")).to_be_focused()
    assert "Questions: ask @shop/platform." in late.inner_text()


def test_the_page_of_an_owner_has_the_part_of_each_campaign_that_concerns_the_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = campaigns(monkeypatch)
    shown = replace(
        shown, faults=[Fault(("orders", "mail"), (("orders", True), ("breaks", False), ("mail", True)), "x")]
    )
    write_pages(tmp_path, shown)
    texts = {file.name.rpartition("-")[0]: file.read_text() for file in tmp_path.glob("team-*.html")}
    assert "1 of 2 services done, 1 open" in texts["team-shop-b"]
    assert "billing-10" not in texts["team-shop-b"]
    assert {name for name, text in texts.items() if "Who breaks whom" in text} == {"team-shop-a", "team-shop-b"}
    assert 'id="campaigns"' not in html(small())


@pytest.mark.parametrize("width", [390, 1400, 3840])
def test_campaigns_boundaries_and_errors_fit_each_screen_and_are_in_tables(opened: Open, width: int) -> None:
    page = opened(with_example_map(example(40)), width)
    page.evaluate(
        "document.querySelectorAll('#campaigns details, #boundaries details').forEach(one => { one.open = true })"
    )
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for table in page.locator("#campaigns table, #boundaries table").all():
        assert table.locator("thead th[scope=col]").count() == table.locator("thead th").count() > 0
    widths = page.locator(".asked td:last-child").evaluate_all("all => all.map(one => one.clientWidth)")
    assert min(widths) > 115  # 8rem on a telephone


def test_a_question_about_boundaries_has_its_evidence_with_links_its_trend_and_the_record_of_the_decision(
    opened: Open,
) -> None:
    page = opened(example(12))
    question = page.locator("#boundary-1")
    expect(question.locator("summary")).to_contain_text("changed their contracts together 11 times")
    expect(question.locator(".ask")).to_contain_text("Is there one reason that changes both?")
    expect(question.locator(".record").first).to_contain_text("Does this yes still hold?")
    expect(question.locator(".record").last).to_contain_text("has no decision 0001")
    trend = question.locator(".trend")
    assert trend.locator("thead th").count() == trend.locator("tbody td").count() == 9
    evidence = question.locator(".evidence tbody")
    assert evidence.count() == 11
    link = evidence.first.get_by_role("link").first
    expect(link).to_have_attribute("href", re.compile("^https://git.example.com/shop/[a-z-]+/-/commit/[0-9a-f]{10}$"))
    links = [one.get_attribute("href") for one in evidence.get_by_role("link").all()]
    assert len({*links}) == len(links) == 22
    bars = [one.bounding_box() or {} for one in trend.locator("i").all()]
    assert len({round(bar["y"] + bar["height"]) for bar in bars}) == 1
    assert sum(map(int, trend.locator("tbody td").all_inner_texts())) == 11
    page.get_by_text("The last break of each contract").click()
    cells = page.locator(".breaks tbody tr").first.inner_text().split("\t")
    assert cells[1:4] == ["HTTP", f"{today() - timedelta(40)} 3fd3c9e2ba", "1"]
    assert 'id="boundaries"' not in html(small())


def test_a_history_that_cannot_be_read_is_shown_by_the_name_that_fleet_toml_gives_the_service() -> None:
    report = replace(boundaries([]), unread={"billing-9": f"too long {HOSTILE}", "ledger": "not of this page"})
    text = html(replace(small(), boundaries=report, own_names={"billing-9": "billing"}))
    assert "The history of billing-9 could not be read: too long &lt;script&gt;" in text
    assert "not of this page" not in text


def test_a_name_that_two_services_have_leads_to_the_first_of_fleet_toml() -> None:
    report = boundaries([replace(FLEET[3], name="billing"), replace(FLEET[3], name="mail")])
    for own in ({"billing-10": "billing", "orders": "billing"}, {"billing-9": "billing", "billing-10": "billing"}):
        first = min([one.name for one in FLEET].index(name) for name in own) + 1
        text = html(replace(small(), boundaries=report, own_names=own))
        who = text.partition('id="boundary-1"')[2].partition('<p class="quiet">')[0]
        assert f'href="#s{first}"' in who


def test_the_page_begins_with_the_errors_between_services_and_their_causes(opened: Open) -> None:
    page = opened(with_example_map(example(40)))
    faults = page.locator(".faults li b").all_inner_texts()
    assert len(faults) == 2
    assert all(re.fullmatch(r"[\w-]+ @[\w/]+ breaks [\w-]+ (@[\w/]+|no owner)", one) for one in faults)
    breaking = faults[0].partition(" ")[0]
    page.locator(".faults").get_by_role("link", name=breaking, exact=True).first.click()
    expect(page.locator("details.service[open] summary .name")).to_have_text(breaking)
    many = Fault((HOSTILE, "orders"), ((HOSTILE, True), ("breaks", False), ("orders", True)), HOSTILE)
    page = opened(replace(small(), faults=[many] * 5))
    assert page.locator(".faults li").last.inner_text().split() == ["2", "more", "errors", "of", "the", "map"]
    assert page.locator(".faults li b").first.inner_text() == f"{HOSTILE} {HOSTILE} breaks orders @shop/b"


def test_a_service_in_order_that_another_service_breaks_names_that_service_in_its_row_and_details(opened: Open) -> None:
    page = opened(with_example_map(example(40)))
    row = page.locator("#table tbody tr", has=page.get_by_role("link", name="payments-api", exact=True))
    expect(row.locator("td").first).to_have_text("in order broken by notifications")
    row.locator(".victim a").click()
    expect(page.locator("details.service[open] summary .name")).to_have_text("notifications")
    row.get_by_role("link", name="payments-api", exact=True).click()
    broken = page.locator("details.service[open]").filter(has_text="This service is broken by notifications: the owner")
    expect(broken.locator("summary .name")).to_have_text("payments-api")
    expect(page.locator("#summary")).to_contain_text("1 service in order is broken by another service.")


def test_the_page_begins_with_the_campaign_that_is_late_and_the_number_of_services_to_act_today(opened: Open) -> None:
    page = opened(with_example_map(example(40)))
    expect(page.locator("#summary .late")).to_have_text(
        re.compile("^cost-centres is 5 days late: 12 of 28 services done")
    )
    expect(page.locator("#summary")).to_contain_text("3 services have to act today")
    expect(page.locator("#campaign-cost-centres .achieved")).to_contain_text("The campaign asks 28 of 40 services")
    page.locator("#summary .late a").click()
    expect(page.locator("#campaign-cost-centres")).to_be_in_viewport()


def test_other_services_with_the_same_rule_are_listed_with_their_owners(opened: Open) -> None:
    others = opened(example(40)).locator(".steps > li").first.locator(".others")
    expect(others).to_have_text(re.compile("loyalty @shop/catalogue, search @shop/identity$"))
