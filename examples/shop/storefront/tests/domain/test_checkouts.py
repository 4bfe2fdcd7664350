import pytest
from chassis.money import Money

from storefront.domain.checkouts import BasketLine, CurrenciesMixed, ProductUnknown, total_of

PRICES = {"tea": Money(450, "EUR"), "cup": Money(1200, "EUR"), "pot": Money(30, "USD")}


def basket(**quantities: int) -> list[BasketLine]:
    return [BasketLine(sku=sku, quantity=quantity) for sku, quantity in quantities.items()]


def test_the_total_is_the_sum_of_all_lines() -> None:
    assert total_of(basket(tea=2, cup=1), PRICES) == Money(2100, "EUR")


def test_an_unknown_product_is_refused_by_name() -> None:
    with pytest.raises(ProductUnknown, match="cake"):
        total_of(basket(tea=1, cake=1), PRICES)


def test_prices_of_two_currencies_are_refused() -> None:
    with pytest.raises(CurrenciesMixed, match="EUR, USD"):
        total_of(basket(tea=1, pot=1), PRICES)
