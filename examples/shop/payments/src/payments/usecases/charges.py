"""Charge a customer's card. The caller owns the transaction: no use case commits."""

from datetime import datetime

from chassis.database import UnitOfWork

from payments.domain.charges import require_chargeable
from payments.domain.payments import Payment
from payments.usecases.payments import CapturePayment, CreatePayment, capture_payment, create_payment


async def charge(command: CreatePayment, uow: UnitOfWork, *, now: datetime) -> Payment:
    """Make a payment and capture it at once. Raises PaymentRefused."""
    require_chargeable(command.amount)
    payment = await create_payment(command, uow, now=now)
    return await capture_payment(CapturePayment(payment_id=payment.id, expected_version=None), uow, now=now)
