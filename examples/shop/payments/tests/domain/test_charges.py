import pytest
from chassis.money import Money

from payments.domain.charges import LIMIT, why_refused


@pytest.mark.parametrize("amount", [1, LIMIT])
def test_an_amount_within_the_bounds_can_be_charged(amount: int) -> None:
    assert why_refused(Money(amount, "EUR")) is None


@pytest.mark.parametrize("amount", [-1, 0, LIMIT + 1])
def test_an_amount_beyond_the_bounds_is_refused_by_name(amount: int) -> None:
    assert str(amount) in (why_refused(Money(amount, "EUR")) or "")
