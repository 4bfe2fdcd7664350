"""The jobs that charge and refund, and the events that answer. Within a version of a contract, only optional fields may be added."""

from datetime import UTC, datetime

from chassis import fields
from chassis.database import UnitOfWork
from chassis.messages import Contract, Event, OnJob

from payments.domain.charges import PaymentCharged, PaymentRefused
from payments.usecases.charges import ChargeCard, charge_card, refund_card


class ChargeCardV1(Contract):
    order_id: fields.Identifier
    customer_id: fields.Identifier
    amount: fields.MoneyField


class RefundCardV1(ChargeCardV1):
    """The charge that is given back."""


class PaymentChargedV1(Contract):
    order_id: fields.Identifier
    payment_id: fields.Identifier
    occurred_at: fields.Timestamp


class PaymentRefusedV1(Contract):
    order_id: fields.Identifier
    reason: str
    occurred_at: fields.Timestamp


async def on_charge_card(job: ChargeCardV1, uow: UnitOfWork) -> None:
    await charge_card(ChargeCard(**dict(job)), uow, now=datetime.now(UTC))


async def on_refund_card(job: RefundCardV1, uow: UnitOfWork) -> None:
    await refund_card(ChargeCard(**dict(job)), uow, now=datetime.now(UTC))


OUTGOING = [
    Event(PaymentCharged, PaymentChargedV1, aggregate="payment", key="order_id"),
    Event(PaymentRefused, PaymentRefusedV1, aggregate="payment", key="order_id"),
]
INCOMING = [
    OnJob(ChargeCardV1, on_charge_card),
    OnJob(RefundCardV1, on_refund_card),
]
