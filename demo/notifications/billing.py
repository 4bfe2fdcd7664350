"""The events of billing that this service reads, and their handlers."""

from datetime import datetime
from uuid import UUID

from chassis.database import UnitOfWork
from chassis.messages import Contract, OnEvent
from notifications.usecases.notifications import CreateNotification, create_notification


class InvoiceIssuedV1(Contract):
    invoice_id: UUID
    customer_id: UUID
    number: str
    occurred_at: datetime


async def on_invoice_issued(event: InvoiceIssuedV1, uow: UnitOfWork) -> None:
    """Inform the customer about the invoice."""
    command = CreateNotification(
        notification_id=event.invoice_id,
        recipient=event.customer_id,
        body=f"Your invoice {event.number} is there.",
    )
    await create_notification(command, uow, now=event.occurred_at)


INCOMING = [OnEvent("billing.invoice-issued.v1", InvoiceIssuedV1, on_invoice_issued)]
