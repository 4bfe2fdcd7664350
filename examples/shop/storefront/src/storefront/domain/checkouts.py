"""The price of a basket."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from chassis.errors import Conflict
from chassis.money import Money


class ProductUnknown(Conflict):
    code = "product_unknown"


class CurrenciesMixed(Conflict):
    code = "currencies_mixed"


@dataclass(frozen=True, kw_only=True)
class BasketLine:
    sku: str
    quantity: int


def total_of(lines: Iterable[BasketLine], prices: Mapping[str, Money]) -> Money:
    """Return the price of at least one line. Raises ProductUnknown or CurrenciesMixed."""
    lines = list(lines)
    if unknown := sorted({line.sku for line in lines} - prices.keys()):
        raise ProductUnknown(f"the shop does not sell {', '.join(unknown)}")
    currencies = sorted({prices[line.sku].currency for line in lines})
    if len(currencies) > 1:
        raise CurrenciesMixed(f"the basket has prices in {', '.join(currencies)}: order them one by one")
    return Money(sum(prices[line.sku].amount * line.quantity for line in lines), currencies[0])
