"""Fleets of any size with domains, teams, calls, events, jobs, and a known number of faults."""

import random

from fleet.map.facts import Facts
from fleet.map.model import Map
from fleet.service.asyncapi import Message

DOMAINS = {
    "sales": "cart catalogue checkout offers orders prices promotions quotes returns reviews search wishlists",
    "finance": "accounts billing dunning invoices ledger payments payouts refunds settlements taxes treasury vouchers",
    "logistics": "carriers customs depots fleet-routes inventory labels packing parcels shipping slots stock-moves yards",
    "customers": "addresses consents contacts customers identities loyalty preferences profiles segments sessions surveys tickets",
    "marketing": "ads audiences banners campaigns channels feeds landing-pages newsletters recommendations referrals tracking trends",
    "procurement": "approvals bids contracts demands deliveries goods-receipts purchases requisitions sourcing suppliers tenders vendors",
    "content": "articles assets drafts editors images layouts media pages publications taxonomies translations videos",
    "people": "absences applicants contracts-hr departments employees expenses payroll positions shifts skills timesheets trainings",
    "risk": "alerts-risk audits blocklists cases checks fraud limits-risk policies-risk scores sanctions screenings watchlists",
    "insights": "cohorts dashboards exports facts-insights forecasts metrics queries-saved reports snapshots streams targets views",
    "production": "batches jobs-shop lines machines maintenance materials orders-shop plans quality recipes stations tools",
    "support": "agents answers calls-support chats complaints escalations faqs inbox macros ratings routing transcripts",
    "partners": "affiliates agreements brokers commissions integrations keys listings marketplaces onboarding resellers statements webhooks",
    "devices": "commands configurations devices firmware gateways readings registrations sensors telemetry-device twins updates-device zones",
    "travel": "airports bookings cabins fares flights hotels itineraries passengers seats stays transfers visas",
    "insurance": "actuaries claims coverages damages endorsements policies premiums proposals reserves-ins risks-ins treaties underwriting",
    "energy": "consumption contracts-energy grids meters outages plants prices-energy schedules-energy solar substations tariffs turbines",
}
"""Twelve services of each domain."""


def fleet(size: int, seed: int = 7) -> Map:
    """Make a fleet of `size` services: most calls and events stay within a domain, and some messages do not fit."""
    chosen = random.Random(seed)
    number = min(max(3, -(-size // 9)), len(DOMAINS))
    names = {domain: words.split() for domain, words in list(DOMAINS.items())[:number]}
    places = [(domain, names[domain][row]) for row in range(12) for domain in names][:size]
    events: dict[str, set[str]] = {name: set() for _, name in places}
    calls: dict[str, set[str]] = {name: set() for _, name in places}
    jobs: dict[str, set[str]] = {name: set() for _, name in places}
    order = {name: place for place, (_, name) in enumerate(places)}
    for domain, name in places:
        near = [other for at, other in places if at == domain and other != name]
        far = [other for at, other in places if at != domain]
        for _ in range(chosen.choice((0, 1, 2, 3))):
            events[name].add(chosen.choice(near if chosen.random() < 0.65 else far))
        if order[name] % 3 == 0:  # nobody calls these services, so no chain of calls is long
            callable_ = [other for other in (near if chosen.random() < 0.6 else far) if order[other] % 3]
            calls[name] |= {chosen.choice(callable_)} if callable_ else set()
        if chosen.random() < 0.15:
            jobs[name].add(chosen.choice(near))
    unfit = chosen.sample([name for name in events if events[name]], max(2, size // 20))
    return Map(
        Facts(
            name,
            tuple(_messages(name, events, jobs, unfit)),
            {name: "openapi"},
            tuple(sorted(calls[name])),
            operations=5,
            domain=domain,
            owner=f"{domain}-team",
        )
        for domain, name in places
    )


def _messages(name: str, events: dict[str, set[str]], jobs: dict[str, set[str]], unfit: list[str]) -> list[Message]:
    """Return the messages of a service. An `unfit` listener expects a string in its first event, and gets a number."""
    number, text = ({"type": "object", "properties": {"total": {"type": kind}}} for kind in ("integer", "string"))
    sent = [Message(f"{name}.{name}-changed.v1", "event", True, False, published=number)] * any(
        name in heard for heard in events.values()
    )
    wrong = sorted(events[name])[:1] if name in unfit else []
    heard = [
        Message(f"{one}.{one}-changed.v1", "event", False, True, payload=text if one in wrong else number)
        for one in sorted(events[name])
    ]
    asked = [Message(f"{one}.do-{one}.v1", "job", True, False, payload=number) for one in sorted(jobs[name])]
    done = [Message(f"{name}.do-{name}.v1", "job", False, True, payload=number)] * any(
        name in asked for asked in jobs.values()
    )
    return [*sent, *heard, *asked, *done]
