"""A product of five services with invented requests, for the pictures of the page of traces."""

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from chassis.dev.viewer.log_lines import read
from chassis.dev.viewer.otlp import Span
from chassis.dev.viewer.product import Edge, ServiceState
from chassis.dev.viewer.store import Store

MILLISECOND = 10**6
PLACED, RESERVED = "orders.order-placed.v1", "inventory.stock-reserved.v1"
NAMES = ("storefront", "orders", "payments", "inventory", "notifications")

SQL = {
    "INSERT payments.payments": "INSERT INTO payments.payments (id, order_id, amount_cents) VALUES ($1, $2, $3)",
    "INSERT orders.orders": "INSERT INTO orders.orders (id, customer_id, status) VALUES ($1, $2, $3)",
    "COMMIT": "COMMIT",
    "UPDATE inventory.stock": "UPDATE inventory.stock SET reserved = reserved + $1 WHERE sku = $2",
}
# The spans of one checkout. Each line has the number of the parent span (0: no parent), the service, the kind and the name of the
# span, and its start and duration in milliseconds.
CHECKOUT = [
    (0, "storefront", "SERVER", "POST /v1/checkouts", 0, 48),
    (1, "storefront", "CLIENT", "POST orders", 2, 42),
    (2, "orders", "SERVER", "POST /v1/orders", 4, 38),
    (3, "orders", "CLIENT", "POST payments", 6, 14),
    (4, "payments", "SERVER", "POST /v1/payments", 8, 11),
    (5, "payments", "CLIENT", "INSERT payments.payments", 9, 4),
    (3, "orders", "CLIENT", "INSERT orders.orders", 22, 3),
    (3, "orders", "CLIENT", "COMMIT", 31, 5),
    (3, "orders", "PRODUCER", f"send {PLACED}", 45, 2),
    (9, "inventory", "CONSUMER", f"process {PLACED}", 66, 15),
    (10, "inventory", "CLIENT", "UPDATE inventory.stock", 69, 5),
    (10, "inventory", "PRODUCER", f"send {RESERVED}", 83, 1),
    (12, "notifications", "CONSUMER", f"process {RESERVED}", 95, 9),
]
REFUSED = {"POST /v1/checkouts", "POST payments", "POST /v1/payments"}
"""The spans that fail if the card is refused."""


@dataclass
class Shop:
    """The services as `fleet up` would describe them."""

    command: str = "fleet up"
    edges: list[Edge] = field(
        default_factory=lambda: [
            Edge("storefront", "orders", "http"),
            Edge("orders", "payments", "http"),
            Edge("orders", "inventory", "message", PLACED),
            Edge("payments", "notifications", "message", "payments.payment-refunded.v1"),
        ]
    )

    def services(self) -> list[ServiceState]:
        return [
            ServiceState(
                name,
                "ready",
                url=f"http://127.0.0.1:{8001 + number}",
                docs_url=f"http://127.0.0.1:{8001 + number}/docs",
                version="1.4.0",
                memory_bytes=(86 + number) * 2**20,
                checkout=f"/home/kim/shop/{name}",
            )
            for number, name in enumerate(NAMES)
        ]

    def declared(self) -> list[Edge]:
        return self.edges

    def act(self, service: str, action: str) -> None:
        """Do nothing: the picture has no reader."""

    def run(self, service: str, *arguments: str) -> str:
        return "[]"


def fill(store: Store, checkouts: int = 40) -> str:
    """Add checkouts of the last minutes, and return the id of the trace of one whose card was refused."""
    random.seed(1)  # the same requests in each run, so that the pictures change only if the page does
    refused = ""
    for number in range(checkouts):
        trace, begin = f"{random.getrandbits(128):032x}", time.time_ns() - random.randrange(10, 280) * 10**9
        fails = number % 8 == 5
        store.add_spans(checkout(trace, begin, fails))
        if fails:
            refused = trace
            when = datetime.fromtimestamp((begin + 16 * MILLISECOND) / 1e9, UTC).isoformat()
            facts = {"event": "card_refused", "level": "error", "reason": "insufficient funds", "amount_cents": 1200}
            ids = {"trace_id": trace, "span_id": f"{5:016x}", "timestamp": when}
            store.add_lines([read(json.dumps(facts | ids).encode(), "payments")])
    return refused


def checkout(trace: str, begin: int, fails: bool) -> Iterator[Span]:
    pace = random.uniform(0.7, 2.5)
    for number, (parent, service, kind, name, start, length) in enumerate(CHECKOUT, 1):
        first = begin + int(start * pace * MILLISECOND)
        yield Span(
            trace_id=trace,
            span_id=f"{number:016x}",
            parent_id=f"{parent:016x}" if parent else "",
            service=service,
            name=name,
            kind=kind,
            start_ns=first,
            end_ns=first + int(length * pace * MILLISECOND),
            attributes=attributes(name, kind, 402 if fails else 201),
            status="ERROR" if fails and name in REFUSED else "UNSET",
        )


def attributes(name: str, kind: str, status: int) -> dict[str, object]:
    if kind == "SERVER":
        return {"http.response.status_code": status}
    if kind in ("PRODUCER", "CONSUMER"):
        return {"messaging.destination.name": name.partition(" ")[2]}
    return {"db.query.text": SQL[name]} if name in SQL else {"http.request.method": "POST"}
