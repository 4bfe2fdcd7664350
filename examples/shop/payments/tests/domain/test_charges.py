import pytest
from chassis.money import Money

from payments.domain.charges import LIMIT, PaymentRefused, require_chargeable


@pytest.mark.parametrize("amount", [1, LIMIT])
def test_an_amount_within_the_bounds_is_charged(amount: int) -> None:
    require_chargeable(Money(amount, "EUR"))


@pytest.mark.parametrize("amount", [-1, 0, LIMIT + 1])
def test_an_amount_beyond_the_bounds_is_refused(amount: int) -> None:
    with pytest.raises(PaymentRefused):
        require_chargeable(Money(amount, "EUR"))
