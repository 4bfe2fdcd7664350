"""A small fleet with hostile texts, for the tests of the page."""

from collections.abc import Callable, Iterator
from datetime import timedelta

from playwright.sync_api import Page

from fleet.check.findings import Finding, Level
from fleet.check.standing import Standing
from fleet.conventions import Convention, Problem
from fleet.history.days import Day, Entry, today_of
from fleet.page import Content
from fleet.service.service import Service
from fleet.service.waivers import today

Open = Callable[..., Page]

HOSTILE = "<script>document.title = 'taken'</script>"
GRAPH = '<svg viewBox="0 0 10 10" role="img" aria-label="Who calls whom"><circle cx="5" cy="5" r="4"/></svg>'


class Paths(Convention):
    """A path names its version & <b>nothing</b> breaks."""

    id = "http-paths"
    remedy = "begin it with `/v1`"

    def check(self, service: Service) -> Iterator[Problem]:
        yield from ()


class Pages(Paths):
    """A list has an end."""

    id = "http-pages"


class Secrets(Paths):
    """A secret is in no file."""

    id = "supply-no-secrets"
    remedy = "replace the secret"


RULES = (Paths(), Pages(), Secrets())


def of(convention: str, level: Level = Level.ERROR, path: str = "specs/openapi.json") -> Finding:
    remedy = next(one.remedy for one in RULES if one.id == convention)
    return Finding(convention, path, f"{HOSTILE} has none", remedy, level, 3, "A reason.")


def standing(
    name: str, version: str = "v1.9.0", behind: int = 0, *conventions: Finding, drift: int = 0, owner: str = ""
) -> Standing:
    edited = tuple(Finding("drift-edited", f"{number}.toml", "edited", "restore it") for number in range(drift))
    return Standing(
        name,
        f"git@git.example.com:shop/{name}.git",
        commit="a" * 40,
        version=version,
        newest="v1.10.0",
        newest_released="2026-10-01",
        releases_behind=behind,
        days_behind=behind * 20,
        waivers={"live": 0, "expiring": 0, "void": 0},
        platform=edited,
        conventions=conventions,
        owner=owner,
        domain="shop" if owner else "",
        tier="1" if owner else "",
    )


FLEET = [
    standing("billing-10", "v1.9.0", 1, of("http-paths"), of("http-paths"), of("http-pages"), owner="@shop/a"),
    standing("billing-9", "v1.10.0", 0, of("http-pages"), owner="@shop/b"),
    standing(HOSTILE, "v1.2.0", 8, of("http-pages", Level.WAIVED), drift=2, owner=HOSTILE),
    standing("orders", "v1.10.0", owner="@shop/b"),
    Standing("gone", "https://git.example.com/gone.git", unreadable=f"no such repository {HOSTILE}"),
    standing("mail", "v1.10.0", 0, of("supply-no-secrets", path="src/mail.py"), owner="@shop/a"),
]
KINDS = {"git.example.com": "gitlab"}


def yesterday() -> Day:
    services = dict(today_of(FLEET).services)
    services |= {"orders": Entry("breach", "v1.9.0", {HOSTILE: "error"}), "mail": Entry("in order", HOSTILE)}
    return Day(today() - timedelta(1), {"v1.9.0": today() - timedelta(90), HOSTILE: today()}, services)


def small(*, graph: str = GRAPH) -> Content:
    return Content(FLEET, RULES, graph, [yesterday(), today_of(FLEET)], KINDS, [f"history.jsonl, line 2 {HOSTILE}"])
