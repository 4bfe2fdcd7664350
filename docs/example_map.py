"""An invented map of the invented fleet: calls and events within and between domains, and events that a listener cannot read."""

import random
from dataclasses import replace

from fleet.check.findings import Level
from fleet.check.standing import Standing
from fleet.map.facts import Facts
from fleet.map.findings import findings
from fleet.map.model import Map
from fleet.page import Content
from fleet.page.report import with_map
from fleet.service.asyncapi import Message


def example_map(standings: list[Standing], faults: int = 2) -> Map:
    """Make the map of these services, in which some services send what a listener does not expect."""
    chosen = random.Random(len(standings))
    known = [one for one in standings if not one.unreadable]
    near = {one.name: [other.name for other in known if other.domain == one.domain and other != one] for one in known}
    heard = {one.name: sorted({_neighbour(chosen, near[one.name], known, one.name) for _ in range(2)}) for one in known}
    called = {one.name: _neighbour(chosen, near[one.name], known[1::2], one.name) for one in known[::4]}
    unfit = [one.name for one in known if heard[one.name]][2 :: max(len(known) // faults, 1)][:faults]
    sent = {name for names in heard.values() for name in names}
    facts = [
        Facts(
            one.name,
            tuple(_messages(one.name, heard[one.name], is_sent=one.name in sent, is_unfit=one.name in unfit)),
            {one.name: "openapi"},
            tuple(filter(None, [called.get(one.name)])),
            operations=5,
            domain=one.domain,
            owner=one.owner,
        )
        for one in known
    ]
    return Map(facts, {one.name: one.unreadable for one in standings if one.unreadable})


def with_example_map(content: Content) -> Content:
    """Return the content with the map, and count each error of the map in the services that have to correct the error."""
    map_ = example_map(list(content.standings))
    errors = [one for one in findings(map_) if one.finding.level is Level.ERROR]
    standings = [
        replace(one, neighbours=tuple(error.finding for error in errors if one.name in error.acting))
        if not one.unreadable
        else one
        for one in content.standings
    ]
    return with_map(replace(content, standings=standings), map_)


def _neighbour(chosen: random.Random, near: list[str], known: list[Standing], name: str) -> str:
    """Choose another service: one of the same domain in two of three cases."""
    others = near if near and chosen.random() < 0.67 else [one.name for one in known if one.name != name]
    return chosen.choice(others)


def _messages(name: str, heard: list[str], *, is_sent: bool, is_unfit: bool) -> list[Message]:
    number, text = ({"type": "object", "properties": {"total": {"type": kind}}} for kind in ("integer", "string"))
    sent = [Message(f"{name}.placed.v1", "event", True, False, published=number)] * is_sent
    return sent + [
        Message(f"{one}.placed.v1", "event", False, True, payload=text if is_unfit and place == 0 else number)
        for place, one in enumerate(heard)
    ]
