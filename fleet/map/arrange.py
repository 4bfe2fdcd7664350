"""Put cards into columns, so that cards with many arrows between them are close, and most arrows lead to the right."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from math import sqrt

Pair = tuple[int, int]
Size = tuple[float, float]
Columns = list[list[int]]

ASPECT = 1.5
"""The width of the drawing for one unit of its height: screens are wide, and on paper a list is below the drawing."""

GUTTER, GAP = 90.0, 30.0
"""The expected distances between columns and between the cards of a column."""

BACKWARDS = 1.25
"""The weight of an arrow that leads to the left, where an arrow to the right has 1."""

MOST_TRIES = 6_000
"""The number of exchanges of two cards that are tried, which bounds the time for a large fleet."""


def arrange(sizes: Sequence[Size], weights: Mapping[Pair, int]) -> Columns:
    """Return the cards of each column from top to bottom. `sizes` are widths and heights; `weights` count arrows of two cards."""
    columns = _fill(_by_flow(len(sizes), weights), sizes)
    arrows = [(source, target, weight) for (source, target), weight in weights.items()]
    best = _cost(columns, sizes, arrows)
    connected = {card for pair in weights for card in pair}
    tries, found = 0, True
    while found and tries < MOST_TRIES:
        found = False
        for one, other in list(combinations(range(len(sizes)), 2))[: MOST_TRIES - tries]:
            tries += 1
            if sizes[one] == sizes[other] and connected.isdisjoint((one, other)):
                continue  # the cost would be the same
            exchanged = _exchange(columns, one, other)
            cost = _cost(exchanged, sizes, arrows)
            if cost < best - 1:
                columns, best, found = exchanged, cost, True
    return columns


def _exchange(columns: Columns, one: int, other: int) -> Columns:
    """Return the columns with two cards exchanged. Columns with neither card are the same lists."""
    other_of = {one: other, other: one}
    return [
        [other_of.get(card, card) for card in column] if one in column or other in column else column
        for column in columns
    ]


def _by_flow(number: int, weights: Mapping[Pair, int]) -> list[int]:
    """Sort the cards: cards that arrows leave come before cards that arrows reach."""
    flow: dict[int, int] = defaultdict(int)
    for (source, target), weight in weights.items():
        flow[source] += weight
        flow[target] -= weight
    return sorted(range(number), key=lambda card: -flow[card])


def _fill(order: Sequence[int], sizes: Sequence[Size]) -> Columns:
    """Fill columns of about the same height."""
    if not order:
        return []
    total = sum(height + GAP for _, height in sizes)
    width = sum(width for width, _ in sizes) / len(sizes) + GUTTER
    number = min(max(round(sqrt(ASPECT * total / width)), 1), len(order))
    columns: Columns = [[]]
    used = 0.0
    for card in order:
        height = sizes[card][1] + GAP
        if columns[-1] and used + height / 2 > total / number * len(columns):
            columns.append([])
        columns[-1].append(card)
        used += height
    return columns


def _cost(columns: Columns, sizes: Sequence[Size], arrows: Sequence[tuple[int, int, int]]) -> float:
    """Return the length of all arrows between the middles of cards, and a price for the height of the tallest column."""
    across, down = [0.0] * len(sizes), [0.0] * len(sizes)
    x = tallest = 0.0
    for column in columns:
        height = sum([sizes[card][1] for card in column]) + GAP * len(column)
        tallest = max(tallest, height)
        y = -height / 2
        for card in column:
            across[card], down[card] = x, y + sizes[card][1] / 2
            y += sizes[card][1] + GAP
        x += max([sizes[card][0] for card in column]) + GUTTER
    length, total = 0.0, 0
    for source, target, weight in arrows:
        right = across[target] - across[source]
        length += weight * (abs(down[target] - down[source]) + (right if right >= 0 else -BACKWARDS * right))
        total += weight
    return length + tallest * (10 + total / 10)
