"""Measure the cards and the labels of a map, and plan where the drawing has them. The measures are pixels at full size."""

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

from fleet.map.cards import Card
from fleet.map.drawing import Arrow
from fleet.map.layout import PORT, Layout, layout
from fleet.map.stack import CardSize
from fleet.map.ways import Link

ROW = 21
"""The height of a service on a card."""

HEAD = 30
"""The height of the title of a card."""

CELL = 7.9
"""The width of a letter in the widest of the usual fonts."""

MOST_CELLS = 30
"""A longer name is shortened; the title of the service has the whole name."""

LABEL_CELL, LABEL_PORT, MOST_LABEL = 6.8, 14.0, 26
"""The width of a letter of a label, the distance of two lines with labels, and the letters after which a label is shortened."""

MANY = 60
"""A larger map is first shown so small that only the titles of cards can be read, so cards have room for larger titles."""

FAR_TITLE, FAR_CELL = 24.0, 0.66
"""The size of the larger titles, and the width of a letter of size 1."""


def plan_of(all_cards: Sequence[Card], drawn: Sequence[Arrow], *, has_labels: bool) -> Layout:
    """Place the cards, and lead the arrows between them, with room for the labels of arrows if they have labels."""
    card_of = {name: number for number, card in enumerate(all_cards) for name in card.names}
    is_large = len(card_of) > MANY
    sizes = [
        CardSize(
            max(*(_width(name, CELL) + 28 for name in (*card.names, card.title)), _far_width(card) if is_large else 0),
            HEAD if card.title else 5,
            dict.fromkeys(card.names, ROW),
            8 if card.title else 5,
        )
        for card in all_cards
    ]
    links = []
    for arrow in drawn:
        # Only an arrow without an error shares its way, because one must see from where to where an error leads.
        alone = (arrow.source, arrow.target) if arrow.is_wrong or has_labels else None
        bundle = (card_of[arrow.source], card_of[arrow.target], arrow.kind, alone)
        label = _width(label_of(arrow), LABEL_CELL) + 12 if has_labels and arrow.label() else 0
        links.append(Link(arrow.source, arrow.target, bundle, label))
    return layout(sizes, links, LABEL_PORT if has_labels else PORT)


def _far_width(card: Card) -> float:
    return _width(card.title, FAR_TITLE * FAR_CELL) + 12


def _width(text: str, cell: float) -> float:
    return min(cell_len(text), MOST_CELLS) * cell


def short(text: str, most: int = MOST_CELLS) -> str:
    """Shorten a text that is wider than `most` letters."""
    return text if cell_len(text) <= most else f"{set_cell_size(text, most - 1).rstrip()}…"


def label_of(arrow: Arrow) -> str:
    """Return the text at the end of an arrow, with a mark for an error."""
    return short(("✕ " if arrow.is_wrong else "") + arrow.label(), MOST_LABEL)
