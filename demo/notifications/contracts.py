"""The events of billing, with the fields that notifications reads."""

from datetime import datetime
from uuid import UUID

from chassis.messages import Contract


class InvoiceIssuedV1(Contract):
    invoice_id: UUID
    customer_id: UUID
    number: str
    occurred_at: datetime
