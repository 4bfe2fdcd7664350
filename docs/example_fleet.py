"""An invented fleet of any size with a history, for pictures of the page of `fleet status` and for its tests."""

import random
from dataclasses import replace
from datetime import timedelta

from docs.example_boundaries import boundaries
from docs.example_campaigns import campaigns
from fleet.check.findings import Finding, Level
from fleet.check.standing import Standing
from fleet.conventions import Convention, conventions
from fleet.history.days import Day, Entry, today_of
from fleet.output import count
from fleet.page import Content
from fleet.service.waivers import today

WORDS = (
    *(
        "billing",
        "orders",
        "payments",
        "catalogue",
        "shipping",
        "inventory",
        "pricing",
        "customers",
        "invoices",
        "refunds",
    ),
    *("notifications", "search", "returns", "loyalty", "reviews", "carts", "taxes", "suppliers", "warehouse", "fraud"),
)
SUFFIXES = ("", "-api", "-events", "-export", "-import", "-archive", "-reports", "-sync", "-rules", "-gateway")
TEAMS = {
    "@shop/checkout": "commerce",
    "@shop/catalogue": "commerce",
    "@shop/logistics": "fulfilment",
    "@shop/warehouse": "fulfilment",
    "@shop/finance": "finance",
    "@shop/identity": "platform",
}
# The releases, each with the number of days since its publication.
RELEASES = {"v1.0.0": 900, "v1.1.0": 250, "v1.2.0": 160, "v1.3.0": 75, "v1.4.0": 24}
# The failures of the example: the convention, the share of services, its level, and the last release with the fault.
FAULTS = (
    ("supply-no-secrets", 0.02, Level.ERROR, "v1.4.0"),
    ("http-breaking", 0.04, Level.ERROR, "v1.4.0"),
    ("event-schemas", 0.05, Level.ERROR, "v1.4.0"),
    ("workflow-pinned", 0.9, Level.ERROR, "v1.2.0"),
    ("deploy-network-policy", 0.8, Level.WARNING, "v1.3.0"),
    ("http-pagination", 0.08, Level.WARNING, "v1.4.0"),
    ("owner-catalogue-entry", 0.7, Level.NOTICE, "v1.4.0"),
    ("docs-runbook", 0.2, Level.NOTICE, "v1.3.0"),
)
PATHS = {
    "supply-no-secrets": ("src/{0}/mail.py", 14, "an AWS access key, AKIA…3QXZ, is in the file"),
    "http-breaking": ("specs/openapi.json", 0, "GET /v1/{0}/{{id}} no longer returns `total`, which callers read"),
    "event-schemas": ("specs/asyncapi.json", 212, "{0}.placed.v1 has a field without a type"),
    "workflow-pinned": (".github/workflows/check.yml", 19, "actions/checkout@v4 is a tag, which may move"),
    "deploy-network-policy": ("deploy/base/networkpolicy.yaml", 3, "no policy limits who may call the service"),
    "http-pagination": ("specs/openapi.json", 0, "GET /v1/{0} returns a list without a limit"),
    "owner-catalogue-entry": ("catalog-info.yaml", 8, "the annotation acme.example/cost-centre is missing"),
    "docs-runbook": ("docs/runbook.md", 0, "no section is about restoring a backup"),
}


def content(number: int, days: int = 180) -> Content:
    """Return a fleet of this many services that has recorded its history for this many days."""
    chance = random.Random(number)
    rules = {one.id: one for one in conventions()}
    standings = [_standing(chance, place, rules) for place in range(number)]
    return Content(
        standings,
        conventions(),
        days=_history(standings, days),
        kinds={"git.example.com": "gitlab"},
        campaigns=campaigns(standings),
        boundaries=boundaries(standings),
    )


def _standing(chance: random.Random, place: int, rules: dict[str, Convention]) -> Standing:
    word, turn = WORDS[place % len(WORDS)], place // len(WORDS)
    name = word + SUFFIXES[turn % len(SUFFIXES)]
    owner = list(TEAMS)[place % len(TEAMS)]
    address = f"git@git.example.com:shop/{name}.git"
    if place % 60 == 17:
        return Standing(name, address, unreadable="git ls-remote failed: Host key verification failed.", owner=owner)
    version = _version(place, RELEASES)
    missing = [one for one in RELEASES if one > version]
    findings = [
        _finding(rules[id_], name, level)
        for id_, share, level, last in FAULTS
        if version <= last and _hit(chance, share)
    ]
    if place % 40 == 13:
        findings.append(_finding(rules["supply-no-secrets"], name, Level.ERROR))
    if place % 7 == 3:
        findings.append(_finding(rules["tests-contracts"], name, Level.WAIVED))
    drift = [Finding("drift-edited", "Dockerfile", "edited by hand", "restore the file by `fleet update`")]
    lag = Finding(
        "template-lag",
        ".copier-answers.yml",
        f"{version} lacks {count(len(missing), 'release')}",
        "`fleet update`",
        Level.WARNING,
    )
    return Standing(
        name,
        address,
        commit="4f1c9a7" * 5 + "4f1c9",
        version=version,
        newest="v1.4.0",
        newest_released=str(today() - timedelta(RELEASES["v1.4.0"])),
        releases_behind=len(missing),
        days_behind=RELEASES[missing[0]] if missing else 0,
        waivers={"live": int(place % 7 == 3), "expiring": int(place % 21 == 3), "void": int(place % 50 == 24)},
        platform=(*(drift if place % 11 == 5 else ()), *([lag] if missing else ())),
        conventions=tuple(findings),
        owner=owner if place % 23 != 22 else "",
        domain=TEAMS[owner],
        tier=str(1 + place % 3),
        maturity=("gold", "silver", "bronze")[place % 3],
    )


def _version(place: int, known: dict[str, int]) -> str:
    """Return the release of a service whose team adopts each release a fixed number of days after its publication."""
    days = random.Random(place).gammavariate(2, 14)
    return max((version for version, age in known.items() if age > days), default="v1.0.0")


def _hit(chance: random.Random, share: float) -> bool:
    return chance.random() < share


def _finding(rule: Convention, name: str, level: Level) -> Finding:
    path, line, reason = PATHS.get(rule.id, ("pyproject.toml", 3, "the service has an exception"))
    return Finding(rule.id, path.format(name), reason.format(name), rule.remedy, level, line, rule.reason)


def _history(standings: list[Standing], number: int) -> list[Day]:
    """Invent the days before today: the further back, the more services were in another state."""
    last = today_of(standings)
    return [_day(last, ago, number) for ago in range(number, 0, -1)] + [last] if number else []


def _day(last: Day, ago: int, number: int) -> Day:
    chance = random.Random(ago // 3)
    known = {version: age - ago for version, age in RELEASES.items() if age >= ago}
    newest = max(known)
    services = {}
    for place, (name, one) in enumerate(last.services.items()):
        was_worse = random.Random(place + 7).random() < 0.55 * ago / number
        failed = dict(one.failed) | ({"http-problems": "error", "docs-readme": "warning"} if was_worse else {})
        state = "breach" if was_worse or "error" in failed.values() else one.state
        drift = one.drift + (3 if was_worse and place % 4 == 0 else 0)
        if "event-schemas" in failed:  # this failure is new today, so the earlier days do not have it
            del failed["event-schemas"]
        if ago == 1 and place % 12 == 7:
            failed["http-problems"], state = "error", "breach"
        services[name] = replace(
            one, state=state, version=_version(place, known) if one.version else "", failed=failed, drift=drift
        )
        if ago > 100 and place % 6 == 1:
            services[name] = Entry("unreadable") if chance.random() < 0.1 else services[name]
    return Day(last.day - timedelta(ago), {newest: last.day - timedelta(RELEASES[newest])}, services)
