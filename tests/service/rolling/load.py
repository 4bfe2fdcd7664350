"""Callers who change invoices at a steady pace and check every answer, and a consumer of the published events."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any
from uuid import UUID, uuid4

import httpx2
import nats
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from tests.support.event_handler import APPROVED
from tests.support.waiting import PATIENCE_SECONDS, until

CALLERS = 8
PACE_SECONDS = 0.4
"""The pause of each caller between two requests: all callers together send 20 requests a second."""
NEW_FIELD = "purchase_order"
ISSUED = "billing.invoice-issued.v1"


class Unexpected(Exception):
    """An answer that a caller would regard as a failure."""


@dataclass
class Load:
    """The requests of the callers, and their results."""

    fields: dict[str, Any]
    """The fields of a new invoice, in addition to the fields that every version knows."""
    answered: Counter[str] = field(default_factory=Counter)
    """Correct answers by the version that gave them: `old` without the new field, and `new` with it."""
    failures: list[str] = field(default_factory=list)
    """All other results: another status, a body that differs from the sent one, a broken connection."""
    issued: set[UUID] = field(default_factory=set)
    """Invoices that were accepted for issuing: by an answer, or by the broker as an event with this effect."""

    async def until(self, reached: Callable[["Load"], object]) -> None:
        """Wait until the load has reached a state. Raises TimeoutError."""

        async def so() -> object:
            return reached(self)

        await until(so)


@asynccontextmanager
async def callers(
    bases: list[str], approvals: JetStreamContext, headers: dict[str, str], **fields: Any
) -> AsyncGenerator[Load]:
    """Run callers on all bases. At the end, each caller finishes its current invoice."""
    load, stop = Load(fields), asyncio.Event()
    everyone = [_Caller(base, load, approvals, headers) for base, _ in zip(cycle(bases), range(CALLERS), strict=False)]
    calling = [asyncio.create_task(caller.run(stop)) for caller in everyone]
    try:
        yield load
    finally:
        stop.set()
        await asyncio.gather(*calling)


class _Caller:
    """A client with one connection, which it keeps until the server closes it."""

    def __init__(self, base: str, load: Load, approvals: JetStreamContext, headers: dict[str, str]) -> None:
        self._base, self._headers = base, headers
        self._load = load
        self._approvals = approvals
        self._next = time.monotonic()

    async def run(self, stop: asyncio.Event) -> None:
        one = httpx2.Limits(max_connections=1)
        async with httpx2.AsyncClient(base_url=self._base, headers=self._headers, timeout=60, limits=one) as client:
            for way in cycle(("answer", "event")):
                try:
                    await self._one_invoice(client, way)
                except (Unexpected, httpx2.HTTPError) as failure:
                    self._load.failures.append(f"{self._base}: {failure!r}")
                if stop.is_set():
                    return

    async def _one_invoice(self, client: httpx2.AsyncClient, way: str) -> None:
        new = {"number": uuid4().hex, "customer_id": str(uuid4()), "total": {"amount": 100, "currency": "EUR"}}
        new |= self._load.fields
        draft = await self._ask(client, 201, "POST", "/v1/invoices", new | {"version": 1}, json=new)
        invoice = f"/v1/invoices/{draft['id']}"
        await self._ask(client, 200, "GET", invoice, new | {"version": 1})
        noted = new | {"note": way, "version": 2}
        await self._ask(client, 200, "PATCH", invoice, noted, json={"note": way}, headers={"If-Match": '"1"'})
        await self._ask(client, 200, "GET", invoice, noted)
        if way == "answer":
            issued = noted | {"status": "issued", "version": 3}
            await self._ask(client, 200, "POST", f"{invoice}/issue", issued, headers={"If-Match": '"2"'})
        else:
            await self._approve(draft["id"])
        self._load.issued.add(UUID(draft["id"]))

    async def _ask(
        self, client: httpx2.AsyncClient, status: int, method: str, path: str, expected: dict[str, Any], **request: Any
    ) -> dict[str, Any]:
        """Send a request, and return the body. Raises Unexpected for another status or an unexpected body."""
        await asyncio.sleep(self._next - time.monotonic())
        self._next = time.monotonic() + PACE_SECONDS
        answer = await client.request(method, path, **request)
        if answer.status_code != status:
            raise Unexpected(f"{method} {path}: {answer.status_code} {answer.text}")
        body = answer.json()
        if not expected.items() <= body.items():
            raise Unexpected(f"{method} {path}: {body} is not {expected}")
        self._load.answered["new" if NEW_FIELD in body else "old"] += 1
        return body

    async def _approve(self, invoice: str) -> None:
        body = json.dumps({"invoice_id": invoice, "occurred_at": "2027-01-31T12:00:00Z"})
        await self._approvals.publish(APPROVED, body.encode(), headers={"id": str(uuid4()), "key": invoice})


@dataclass
class Listener:
    """A consumer in another service, of all events of billing."""

    stream: JetStreamContext
    heard: list[dict[str, Any]] = field(default_factory=list)

    async def take(self, message: Msg) -> None:
        self.heard.append(json.loads(message.data))

    async def until_it_has_heard_of(self, invoices: set[UUID]) -> None:
        """Wait until events of these invoices have arrived, or the time is over."""

        async def so() -> bool:
            return invoices <= {UUID(event["invoice_id"]) for event in self.heard}

        with suppress(TimeoutError):
            await until(so)


@asynccontextmanager
async def listener(url: str) -> AsyncGenerator[Listener]:
    """Consume all messages from the first. Wait until a worker has made the streams."""
    client = await nats.connect(url)
    try:
        listening = Listener(client.jetstream(timeout=PATIENCE_SECONDS))
        await until(lambda: _is_there(listening.stream, APPROVED, ISSUED))
        await listening.stream.subscribe(ISSUED, cb=listening.take, ordered_consumer=True)
        yield listening
    finally:
        await client.close()


async def _is_there(stream: JetStreamContext, *names: str) -> bool:
    with suppress(NotFoundError):
        for name in names:
            await stream.find_stream_name_by_subject(name)
        return True
    return False
