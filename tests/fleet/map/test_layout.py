"""The layout of the map: cards in columns, and ways that bundles of arrows share."""

import random
from itertools import combinations, pairwise

import pytest

from fleet.map.cards import MOST_ROWS, OUTSIDE, cards, grouped
from fleet.map.facts import Facts
from fleet.map.layout import Box, Layout, layout
from fleet.map.model import Map
from fleet.map.stack import AIR, CardSize
from fleet.map.ways import Link
from fleet.service.asyncapi import Message


def drawn(seed: int, number: int = 9, links: int = 60) -> tuple[list[CardSize], list[Link], Layout]:
    """Lay out cards of different sizes with arrows at random. Some arrows share a bundle."""
    chosen = random.Random(seed)
    sizes = [
        CardSize(chosen.uniform(80, 200), 30, {f"{card}-{row}": 20 for row in range(chosen.randint(1, 9))}, 8)
        for card in range(number)
    ]
    rows = [row for size in sizes for row in size.rows]
    pairs = dict.fromkeys(tuple(chosen.sample(rows, 2)) for _ in range(links))
    made = [Link(source, target, (source[0], target[0], chosen.random() < 0.2)) for source, target in pairs]
    return sizes, made, layout(sizes, made)


def overlap(one: Box, other: Box) -> bool:
    (x, y, width, height), (other_x, other_y, other_width, other_height) = one, other
    return x < other_x + other_width and other_x < x + width and y < other_y + other_height and other_y < y + height


@pytest.mark.parametrize("seed", range(5))
def test_no_card_is_over_another_and_each_row_is_in_its_card(seed: int) -> None:
    sizes, _, plan = drawn(seed)
    assert not any(overlap(one, other) for one, other in combinations(plan.cards, 2))
    assert not any(overlap(one, other) for one, other in combinations(plan.rows.values(), 2))
    for size, (x, y, width, height) in zip(sizes, plan.cards, strict=True):
        assert width >= size.width
        for row in size.rows:
            left, top, across, down = plan.rows[row]
            assert (left, across) == (x, width)
            assert y <= top < top + down <= y + height


@pytest.mark.parametrize("seed", range(5))
def test_each_way_leads_from_row_to_row_and_never_through_a_card(seed: int) -> None:
    _, links, plan = drawn(seed)
    for link, route in zip(links, plan.routes, strict=True):
        for row, (x, y) in ((link.source, route[0]), (link.target, route[-1])):
            left, top, width, height = plan.rows[row]
            assert x in (left, left + width)
            assert top < y < top + height
        for (x, y), (to_x, to_y) in pairwise(route):
            assert x == to_x or y == to_y
            line = min(x, to_x), min(y, to_y), abs(to_x - x), abs(to_y - y)
            assert not any(overlap(line, card) for card in plan.cards)
            assert 0 <= line[0] <= plan.width
            assert 0 <= line[1] <= plan.height


@pytest.mark.parametrize("seed", range(5))
def test_two_bundles_never_share_a_piece_of_a_gutter(seed: int) -> None:
    _, links, plan = drawn(seed)
    pieces = {
        (link.bundle, x, min(y, to_y), max(y, to_y))
        for link, route in zip(links, plan.routes, strict=True)
        for (x, y), (to_x, to_y) in pairwise(route)
        if x == to_x and y != to_y
    }
    for (bundle, x, low, high), (other, other_x, other_low, other_high) in combinations(pieces, 2):
        assert bundle == other or x != other_x or high < other_low or other_high < low


def test_arrows_of_one_bundle_share_their_way_between_two_cards() -> None:
    sizes = [CardSize(100, 30, dict.fromkeys(names, 20), 8) for names in (("a", "b"), ("c", "d"))]
    plan = layout(sizes, [Link("a", "c", "bundle"), Link("b", "d", "bundle"), Link("a", "d", "other")])
    first, second, other = ({x for x, _ in route[1:-1]} for route in plan.routes)
    assert first == second
    assert first != other


def test_a_label_has_room_beside_the_card_at_the_end_of_its_arrow() -> None:
    sizes = [CardSize(100, 5, {name: 20}, 5) for name in ("a", "b")]
    (source, *_, corner, end) = layout(sizes, [Link("a", "b", "bundle", label=150)]).routes[0]
    assert abs(end[0] - corner[0]) == 150 + AIR
    assert source != corner


def test_there_may_be_no_card_or_no_arrow() -> None:
    assert layout([], []).cards == []
    assert len(layout([CardSize(100, 5, {str(number): 20}, 5) for number in range(40)], []).rows) == 40


def of(*domains: str, owner: str = "") -> Map:
    return Map(
        Facts(f"s{number}", domain=domain, owner=owner and f"{owner}-{number % 2}")
        for number, domain in enumerate(domains)
    )


def test_services_are_grouped_by_domain() -> None:
    found = cards(of("sales", "finance", "sales", ""))
    assert [(card.title, card.names) for card in found] == [
        ("finance", ("s1",)),
        ("sales", ("s0", "s2")),
        ("without a domain", ("s3",)),
    ]


def test_services_of_one_domain_are_grouped_by_owner_and_without_owners_each_has_a_card() -> None:
    assert [card.title for card in cards(of(*["shop"] * 4, owner="team"))] == ["team-0", "team-1"]
    assert [(card.title, card.names) for card in cards(of("shop", "shop"))] == [("", ("s0",)), ("", ("s1",))]
    assert {card.title for card in cards(of(*["shop"] * 50))} == {f"services ({number} of 4)" for number in range(1, 5)}


def test_a_large_domain_has_several_cards_of_about_the_same_size() -> None:
    found = [card for card in cards(of("other", *["shop"] * (2 * MOST_ROWS + 1))) if card.group == "shop"]
    assert [card.title for card in found] == [f"shop ({number} of 3)" for number in (1, 2, 3)]
    assert {len(card.names) for card in found} <= {9, 10}
    assert len(grouped(found)["shop"]) == 2 * MOST_ROWS + 1


def test_names_of_no_service_are_on_a_card_of_their_own() -> None:
    map_ = Map([Facts("a", (Message("elsewhere.done.v1", "event", False, True),), domain="x"), Facts("b", domain="y")])
    assert [(card.title, card.names, card.is_outside) for card in cards(map_)][-1] == (OUTSIDE, ("elsewhere",), True)
