"""Two services of a product on one broker: billing publishes its invoices, and ledger keeps a copy of each."""

import shutil
from pathlib import Path

import httpx2

from tests.support.services import Render, use_packages_of_the_tests

INVOICE = {"number": "2027-1", "total": {"amount": 1250, "currency": "EUR"}}
AGGREGATES = {
    "billing": "Invoice: {events: state, number: string(40), total: money}",
    "ledger": "Invoice: {number: string(40), total: money}",
}
HANDLER = '''"""The invoices of billing, of which this service keeps a copy."""

from chassis import fields
from chassis.database import UnitOfWork
from chassis.messages import Contract, OnEvent

from ledger.usecases.invoices import CreateInvoice, create_invoice


class SavedInvoiceV1(Contract):
    invoice_id: fields.Identifier
    number: str
    total: fields.MoneyField
    created_at: fields.Timestamp


async def on_saved_invoice(event: SavedInvoiceV1, uow: UnitOfWork) -> None:
    command = CreateInvoice(invoice_id=event.invoice_id, number=event.number, total=event.total)
    await create_invoice(command, uow, now=event.created_at)


INCOMING = [
    OnEvent("billing.invoice-saved.v1", SavedInvoiceV1, on_saved_invoice),
]
'''


def write_pair(render: Render, folder: Path, broker: str) -> Path:
    """Write the services, and the fleet.toml that lists them. Return that file."""
    for name, aggregates in AGGREGATES.items():
        messages = {"messaging_style": "events", "broker": broker, "auth": "none"}
        source = render(service_name=name, domain="tests", aggregates=aggregates, **messages)
        use_packages_of_the_tests(shutil.copytree(source, folder / name))
    (folder / "ledger/src/ledger/messaging/billing.py").write_text(HANDLER)
    config = folder / "fleet.toml"
    config.write_text("".join(f'[[service]]\npath = "{name}"\n' for name in AGGREGATES))
    return config


def create_invoice(urls: dict[str, str]) -> str:
    """Create an invoice at billing. Return the URL of its copy."""
    made = httpx2.post(f"{urls['billing']}/v1/invoices", json=INVOICE, timeout=60, trust_env=False).raise_for_status()
    return f"{urls['ledger']}/v1/invoices/{made.json()['id']}"


def has_copy(url: str) -> bool:
    return httpx2.get(url, timeout=60, trust_env=False).status_code == 200
