"""The rules of a charge."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from chassis.money import Money

LIMIT = 500_000
"""The largest charge, in the smallest unit of its currency."""


@dataclass(frozen=True, kw_only=True)
class PaymentCharged:
    order_id: UUID
    payment_id: UUID
    occurred_at: datetime


@dataclass(frozen=True, kw_only=True)
class PaymentRefused:
    """Nothing was charged for the order, and nothing will be."""

    order_id: UUID
    reason: str
    occurred_at: datetime


def why_refused(amount: Money) -> str | None:
    """Return why no card is charged with the amount; None if a card can be charged."""
    if 0 < amount.amount <= LIMIT:
        return None
    return f"{amount.amount} is not between 1 and {LIMIT}, the bounds of one charge"
