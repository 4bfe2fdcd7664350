"""The map as a drawing: SVG, Mermaid, and the section of a page."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Page, expect

from fleet.check.findings import Finding, Level
from fleet.map import show
from fleet.map.facts import Facts
from fleet.map.findings import findings
from fleet.map.mermaid import mermaid
from fleet.map.model import Map, MapFinding
from fleet.map.svg import svg
from fleet.page import Content
from fleet.page import page as html_page
from fleet.service.asyncapi import Message
from tests.support.browser import browser
from tests.support.needs import MERMAID
from tests.support.npm import packed

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    "<script>document.title = 'taken'</script>",
    "</svg><img src=x onerror=\"document.title='taken'\">",
    'a"b',
    "`x` **y**",
    "end",
    "a]b[c)d",
    "x|y",
    "&quot;#35;",
    "%%{init: {}}%%",
    "ünïcode",
    "1. a",
    "a\nb; c-->d",
    "bell\a",
    "{{ 7 * 7 }}",
]


def service(name: str, *, sends: str = "", takes: str = "", calls: str = "", jobs: str = "") -> Facts:
    """Make a service that consumes events of `takes`, calls `calls`, and sends jobs to `jobs`: names of services."""
    said = (
        [Message("thing-done.v1".join((f"{name}.", "")), "event", True, False, published={"type": "object"})]
        if sends
        else []
    )
    said += [Message(f"{one}.thing-done.v1", "event", False, True, payload={"type": "string"}) for one in takes.split()]
    said += [Message(f"{one}.do-it.v1", "job", True, False) for one in jobs.split()]
    return Facts(name, tuple(said), {name: "openapi"}, tuple(calls.split()), operations=3)


def hostile() -> Map:
    """All names of services and messages on this map are an attack."""
    return Map(
        Facts(
            name,
            (Message(f"elsewhere.{name}", "event", False, True), Message(f"{name}", "job", True, False)),
            {name: "openapi"},
            tuple(HOSTILE),
        )
        for name in HOSTILE
    )


def texts(drawing: str) -> list[str]:
    return [one.text or "" for one in ElementTree.fromstring(drawing).iter(f"{SVG}text")]


def test_the_drawing_names_every_service_call_event_and_job() -> None:
    map_ = Map(
        [service("orders", sends="x"), service("billing", takes="orders", calls="orders customers", jobs="printing")]
    )
    found = findings(map_)
    drawing = svg(map_, found)
    root = ElementTree.fromstring(drawing)
    assert {"orders", "billing", "customers", "printing"} <= set(texts(drawing))
    titles = {one.text for one in root.iter(f"{SVG}title")}
    assert {
        "billing calls orders: orders",
        "billing calls customers: customers",
        "orders sends an event to billing: orders.thing-done.v1 (error)",
        "billing sends a job to printing: printing.do-it.v1",
        "orders: 3 operations; is called by billing; publishes orders.thing-done.v1",
        "customers: not among the services of this map",
    } <= titles
    kinds = {one.get("class") for one in root.iter(f"{SVG}g")}
    assert {"arrow call", "arrow event wrong", "arrow job", "service", "service outside", "legend"} <= kinds
    assert [one for one in texts(drawing) if "✕ thing-done.v1" in one]
    assert root.get("role") == "graphics-document"
    assert "1 service" not in (root.findtext(f"{SVG}desc") or "")
    assert not set(re.findall(r"https?://[^\"' ]*", drawing)) - {SVG.strip("{}")}


def test_the_list_numbers_a_finding_of_an_arrow_alone_and_the_legend_names_shared_ways() -> None:
    map_ = Map([service("orders", sends="yes"), service("mail", takes="orders")], {"gone": "no such repository"})
    section = show.html(map_, findings(map_))
    listed = dict(
        re.findall(r'<li class="error"[^>]* data-services="([^"]*)">(.*?)<p class="who">', section, re.DOTALL)
    )
    assert {names: "number" in shown for names, shown in listed.items()} == {
        "[&#34;gone&#34;]": False,
        "[&#34;orders&#34;, &#34;mail&#34;]": True,
    }
    assert "several arrows that share a way" in section
    (wrong,) = re.findall(r'<g class="arrow event wrong".*?</g>', section)
    assert "stroke-dasharray" in wrong
    assert "stroke-dasharray: none" not in section


def test_names_with_any_characters_are_text_in_the_drawing() -> None:
    map_ = hostile()
    drawing = svg(map_, [])
    titles = {(one.text or "").partition(": ")[0] for one in ElementTree.fromstring(drawing).iter(f"{SVG}title")}
    assert {name.replace("\a", "�").partition(": ")[0] for name in HOSTILE} <= titles
    assert {name for name in HOSTILE if len(name) <= 30 and name.isprintable()} <= set(texts(drawing))
    tags = {one.tag.removeprefix(SVG) for one in ElementTree.fromstring(drawing).iter()}
    assert tags == {"svg", "title", "desc", "style", "rect", "g", "path", "polygon", "text"}


def test_a_map_may_be_empty_or_without_an_edge() -> None:
    for map_ in (Map([]), Map([service("alone")]), Map(service(f"service-{number}") for number in range(40))):
        assert set(texts(svg(map_, []))) >= set(map_.services)
        assert mermaid(map_, []).count("\n") == len(map_.services) + 2


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_the_legend_is_inside_of_a_small_map(page: Page) -> None:
    page.set_content(svg(Map([]), []))
    assert page.evaluate(
        """() => {
            const paper = document.querySelector('svg').getBoundingClientRect();
            return [...document.querySelectorAll('.legend text')].every(
                one => one.getBoundingClientRect().right < paper.right);
        }"""
    )


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as chromium:
        yield chromium.new_page(viewport={"width": 1200, "height": 900})


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_mermaid_itself_reads_the_text_and_draws_each_name_unchanged(page: Page) -> None:
    page.goto("about:blank")
    page.add_script_tag(path=packed(MERMAID, "dist/mermaid.min.js"))
    labels = page.evaluate(
        """async text => {
            mermaid.initialize({startOnLoad: false});
            document.body.innerHTML = (await mermaid.render('drawn', text)).svg;
            return [...document.querySelectorAll('.nodeLabel, .edgeLabel')].map(one => one.textContent);
        }""",
        mermaid(hostile(), []),
    )
    assert {" ".join(name.split()).replace("\a", "") for name in HOSTILE} <= {one.replace("\a", "") for one in labels}
    assert page.title() == ""
    assert page.locator("img").count() == 0


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_a_page_shows_the_map_in_light_and_dark_and_the_map_runs_no_code(page: Page, tmp_path: Path) -> None:
    map_ = hostile()
    found = [MapFinding((name,), Finding("map-call-cycle", "", name, name, Level.ERROR, why=name)) for name in HOSTILE]
    file = tmp_path / "fleet.html"
    map_.names["end-in-fleet-toml"] = "end"
    file.write_text(html_page(Content([], [], show.html(map_, found, {"end-in-fleet-toml": "#s1"}))), encoding="utf-8")
    page.emulate_media(color_scheme="light")
    page.goto(file.as_uri())
    assert page.title().startswith("The fleet on")
    assert page.locator("#map svg .service").count() == len(map_.nodes)
    for part in ("svg .service", ".map-services li"):
        drawn = page.locator(f"#map {part}").evaluate_all("all => all.map(one => one.dataset.name)")
        assert {name.replace("\a", "�") for name in HOSTILE} <= set(drawn)
    assert page.locator(".map-services li[data-link='#s1']").get_attribute("data-name") == "end"
    assert page.locator("#map .map-findings li").count() == len(HOSTILE)
    for name in HOSTILE:
        page.goto(f"{file.as_uri()}#map/{quote(name.replace(chr(7), '�'), safe='')}")
        expect(page.locator(".map-chosen h3")).to_have_text(name.replace("\a", "�"), use_inner_text=False)
    fill = "one => getComputedStyle(one).fill"
    light = page.locator("#map svg .service text").first.evaluate(fill)
    page.emulate_media(color_scheme="dark")
    assert page.locator("#map svg .service text").first.evaluate(fill) != light
    assert page.locator("#map img, #map script").count() == 0
