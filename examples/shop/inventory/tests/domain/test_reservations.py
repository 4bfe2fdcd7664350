import pytest
from builders.stock_items import NOW, new_stock_item

from inventory.domain.reservations import take


def test_the_stock_of_an_order_is_taken_out() -> None:
    tea, cup = new_stock_item(sku="tea", available=5), new_stock_item(sku="cup", available=1)
    assert take({"tea": 2, "cup": 1}, [tea, cup], NOW) == []
    assert (tea.available, cup.available) == (3, 0)


@pytest.mark.parametrize("wanted", [{"tea": 1, "cup": 2}, {"tea": 1, "cake": 1}])
def test_nothing_is_taken_if_one_product_lacks(wanted: dict[str, int]) -> None:
    tea, cup = new_stock_item(sku="tea", available=5), new_stock_item(sku="cup", available=1)
    assert take(wanted, [tea, cup], NOW) == [sku for sku in wanted if sku != "tea"]
    assert (tea.available, cup.available) == (5, 1)
