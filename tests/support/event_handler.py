"""The handler of another service's event, as a team writes it: docs/how-to/listen-to-an-event.md."""

from pathlib import Path

APPROVED = "approvals.invoice-approved.v1"
HANDLER = '''"""The event of another service that this service reads, and its handler."""

from chassis import fields
from chassis.database import UnitOfWork
from chassis.messages import Contract, OnEvent

from {package}.usecases.invoices import IssueInvoice, issue_invoice


class AcceptedInvoiceV1(Contract):
    invoice_id: fields.Identifier
    occurred_at: fields.Timestamp


async def on_accepted_invoice(event: AcceptedInvoiceV1, uow: UnitOfWork) -> None:
    command = IssueInvoice(invoice_id=event.invoice_id, expected_version=None)
    await issue_invoice(command, uow, now=event.occurred_at)


INCOMING = [
    OnEvent("{event}", AcceptedInvoiceV1, on_accepted_invoice),
]
'''


def issue_invoices_on(event: str, service: Path) -> None:
    """Add a handler to the service, which issues the invoice that the event names."""
    (package,) = (path.parent for path in service.glob("src/*/main.py"))
    text = HANDLER.format(package=package.name, event=event)
    (package / "messaging" / f"{event.partition('.')[0]}.py").write_text(text)
