"""The jobs of payments, and the events that answer them."""

from collections.abc import Callable

from chassis import fields
from chassis.database import UnitOfWork
from chassis.messages import Contract, Job, OnEvent
from chassis.sagas import reply
from temporalio.service import RPCError, RPCStatusCode

from orders.usecases.purchases import ChargeCard, PaymentCharged, PaymentRefused, RefundCard
from orders.workflows.client import temporal
from orders.workflows.purchase import PurchaseWorkflow


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
    answer = PaymentCharged(payment_id=event.payment_id)
    await reply(uow, answer)
    await signal(uow, PurchaseWorkflow.payment_charged, answer)


async def on_payment_refused(event: PaymentRefusedV1, uow: UnitOfWork) -> None:
    answer = PaymentRefused(reason=event.reason)
    await reply(uow, answer)
    await signal(uow, PurchaseWorkflow.payment_refused, answer)


async def signal(uow: UnitOfWork, name: Callable[..., None], answer: object) -> None:
    """Give the answer to the workflow that the event belongs to. Skip the ids of ended workflows and of sagas."""
    for workflow_id in uow.saga.split(",") if uow.saga else []:
        handle = (await temporal()).get_workflow_handle(workflow_id)
        try:
            await handle.signal(name, answer)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise


OUTGOING = [
    Job(ChargeCard, ChargeCardV1, to="payments"),
    Job(RefundCard, RefundCardV1, to="payments"),
]
INCOMING = [
    OnEvent("payments.payment-charged.v1", PaymentChargedV1, on_payment_charged),
    OnEvent("payments.payment-refused.v1", PaymentRefusedV1, on_payment_refused),
]
