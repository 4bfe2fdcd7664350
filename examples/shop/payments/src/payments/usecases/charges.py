"""Charge the card of a customer for an order, and give the money back. The caller owns the transaction: no use case commits.

An order has one payment, charged or refunded, whatever is repeated and in whatever order it arrives.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from chassis.database import UnitOfWork
from chassis.money import Money
from uuid_utils.compat import uuid7

from payments.domain.charges import PaymentCharged, PaymentRefused, why_refused
from payments.domain.payments import Payment, PaymentOutcome
from payments.persistence.charges import lock_payment_of
from payments.persistence.payments import PaymentRepository
from payments.usecases.payments import CreatePayment, create_payment


@dataclass(frozen=True, kw_only=True)
class ChargeCard:
    order_id: UUID
    customer_id: UUID
    amount: Money


async def charge_card(command: ChargeCard, uow: UnitOfWork, *, now: datetime) -> None:
    """Charge the card, once, and publish whether it was charged. Raises PaymentOrderIdTaken if a refund is faster."""
    payment = await lock_payment_of(uow.connection, command.order_id)
    reason = why_refused(command.amount)
    if payment is None and reason is None:
        payment = await _create(command, PaymentOutcome.CHARGED, uow, now)
    if payment is not None and payment.outcome is PaymentOutcome.CHARGED:
        await uow.publish(PaymentCharged(order_id=command.order_id, payment_id=payment.id, occurred_at=now))
        return
    reason = reason or "the order was cancelled before the charge"
    await uow.publish(PaymentRefused(order_id=command.order_id, reason=reason, occurred_at=now))


async def refund_card(command: ChargeCard, uow: UnitOfWork, *, now: datetime) -> None:
    """Give the money back. If the order was not charged yet, refuse every later charge.

    Raises PaymentOrderIdTaken if a charge is faster.
    """
    payment = await lock_payment_of(uow.connection, command.order_id)
    if payment is None:
        await _create(command, PaymentOutcome.REFUNDED, uow, now)
    elif payment.outcome is PaymentOutcome.CHARGED:
        payment.change({"outcome": PaymentOutcome.REFUNDED}, at=now)
        await PaymentRepository(uow).save(payment)


async def _create(command: ChargeCard, outcome: PaymentOutcome, uow: UnitOfWork, now: datetime) -> Payment:
    made = CreatePayment(
        payment_id=uuid7(),
        order_id=command.order_id,
        customer_id=command.customer_id,
        amount=command.amount,
        outcome=outcome,
    )
    return await create_payment(made, uow, now=now)
