"""The jobs of payments, and the events that answer them."""

from chassis import fields
from chassis.database import UnitOfWork
from chassis.messages import Contract, Job, OnEvent
from chassis.sagas import reply

from orders.usecases.purchases import ChargeCard, PaymentCharged, PaymentRefused, RefundCard


class ChargeCardV1(Contract):
    order_id: fields.Identifier
    customer_id: fields.Identifier
    amount: fields.MoneyField


class RefundCardV1(ChargeCardV1):
    """The charge that is given back."""


class PaymentChargedV1(Contract):
    payment_id: fields.Identifier


class PaymentRefusedV1(Contract):
    reason: str


async def on_payment_charged(event: PaymentChargedV1, uow: UnitOfWork) -> None:
    await reply(uow, PaymentCharged(payment_id=event.payment_id))


async def on_payment_refused(event: PaymentRefusedV1, uow: UnitOfWork) -> None:
    await reply(uow, PaymentRefused(reason=event.reason))


OUTGOING = [
    Job(ChargeCard, ChargeCardV1, to="payments"),
    Job(RefundCard, RefundCardV1, to="payments"),
]
INCOMING = [
    OnEvent("payments.payment-charged.v1", PaymentChargedV1, on_payment_charged),
    OnEvent("payments.payment-refused.v1", PaymentRefusedV1, on_payment_refused),
]
