"""Money as a whole number of the currency's smallest unit, never a float. Standard library only."""

from dataclasses import dataclass
from typing import Any, Protocol


class Row(Protocol):
    """The values of a row by column name, as a database driver returns them."""

    def __getitem__(self, column: str, /) -> Any: ...


@dataclass(frozen=True)
class Money:
    """An amount of one currency.

    `amount` counts the currency's smallest unit (1250 is 12.50 EUR, and 1250 JPY), as payment providers do.
    `currency` is an ISO 4217 code.
    """

    amount: int
    currency: str


def to_columns(name: str, money: Money | None) -> dict[str, int | str | None]:
    """Return the values of the two columns that hold `name`: `<name>_amount` and `<name>_currency`."""
    return {
        f"{name}_amount": None if money is None else money.amount,
        f"{name}_currency": None if money is None else money.currency,
    }


def from_columns(row: Row, name: str) -> Money:
    """Read the amount that `to_columns` wrote, from columns that are not null."""
    return Money(row[f"{name}_amount"], row[f"{name}_currency"])


def from_optional_columns(row: Row, name: str) -> Money | None:
    """Read the amount that `to_columns` wrote; None if the columns are null."""
    return None if row[f"{name}_currency"] is None else from_columns(row, name)
