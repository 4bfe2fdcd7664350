"""The payment of an order."""

from uuid import UUID

import sqlalchemy as sa
from chassis.database import Executor, Statement

from payments.domain.payments import Payment
from payments.persistence.payments import from_row, payments

_LOCKED = Statement(sa.select(payments).where(payments.c.order_id == sa.bindparam("order_id")).with_for_update())


async def lock_payment_of(executor: Executor, order_id: UUID) -> Payment | None:
    """Load the payment of an order, locked until the transaction ends."""
    row = await _LOCKED.one(executor, order_id=order_id)
    return from_row(row) if row else None
