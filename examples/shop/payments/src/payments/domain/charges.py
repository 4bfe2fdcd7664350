"""The rules of a charge."""

from chassis.errors import Conflict
from chassis.money import Money

LIMIT = 500_000
"""The largest charge, in the smallest unit of its currency."""


class PaymentRefused(Conflict):
    code = "payment_refused"


def require_chargeable(amount: Money) -> None:
    """Raises PaymentRefused for an amount that no card is charged with."""
    if not 0 < amount.amount <= LIMIT:
        raise PaymentRefused(f"{amount.amount} is not between 1 and {LIMIT}, the bounds of one charge")
