"""The handlers of the events that billing publishes."""

from chassis.database import UnitOfWork
from chassis.messages import OnEvent
from notifications.messaging.contracts.billing import InvoiceIssuedV1
from notifications.usecases.notifications import CreateNotification, create_notification


async def on_invoice_issued(event: InvoiceIssuedV1, uow: UnitOfWork) -> None:
    """Inform the customer about the invoice."""
    command = CreateNotification(
        notification_id=event.invoice_id,
        recipient=event.customer_id,
        body=f"Your invoice {event.number} is there.",
    )
    await create_notification(command, uow, now=event.occurred_at)


INCOMING = [OnEvent("billing.invoice-issued.v1", InvoiceIssuedV1, on_invoice_issued)]
