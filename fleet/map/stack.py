"""The heights of cards and rows in columns, and of the lines that go through the gaps above, between and below the cards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleet.map.arrange import Columns

Gap = tuple[int, int]
"""A column, and the number of the card below the gap. The gap below the last card has the number of cards."""

Span = tuple[float, float]
"""A top and a height."""

AIR = 14.0
"""The least space between a card and a line at its side: enough for an arrowhead."""

LANE = 5.0
"""The distance of two lines that go side by side."""


@dataclass(frozen=True)
class CardSize:
    """The width of a card, the heights above and below its rows, and the least height of each row, by the name of the row."""

    width: float
    head: float
    rows: Mapping[str, float]
    foot: float

    def height(self, rows: Mapping[str, float]) -> float:
        return self.head + sum(rows[row] for row in self.rows) + self.foot


class Stack:
    """The cards of each column below each other, all columns with the same middle. `lines` are the numbers of lines in gaps."""

    def __init__(
        self, cards: Sequence[CardSize], columns: Columns, rows: Mapping[str, float], lines: Mapping[Gap, int]
    ) -> None:
        self._columns, self._lines = columns, lines
        self.cards: dict[int, Span] = {}
        self.rows: dict[str, Span] = {}
        for column, stacked in enumerate(columns):
            gaps = [2 * AIR + LANE * max(lines.get((column, number), 0) - 1, 0) for number in range(len(stacked) + 1)]
            y = -(sum(cards[card].height(rows) for card in stacked) + sum(gaps[1:-1])) / 2
            for card, gap in zip(stacked, gaps[1:], strict=True):
                self.cards[card] = (y, cards[card].height(rows))
                top = y + cards[card].head
                for row in cards[card].rows:
                    self.rows[row] = (top, rows[row])
                    top += rows[row]
                y += self.cards[card][1] + gap

    def line(self, gap: Gap, number: int = 0) -> float:
        """Return the height of a line in a gap. Line 0 is the highest line of each gap, also above the first card."""
        column, place = gap
        if place:
            top, height = self.cards[self._columns[column][place - 1]]
            return top + height + AIR + number * LANE
        return self.cards[self._columns[column][0]][0] - AIR - (max(self._lines.get(gap, 1), 1) - 1 - number) * LANE

    def gaps(self, column: int) -> list[Gap]:
        return [(column, place) for place in range(len(self._columns[column]) + 1)]

    def middle(self, row: str) -> float:
        top, height = self.rows[row]
        return top + height / 2
