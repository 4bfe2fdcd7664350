"""A neighbour that fails, as callers and operators see it: statuses, spans, keys and fall-back values."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from contextvars import copy_context
from itertools import count
from typing import Any

import httpx2
import pytest
from chassis.brokers import Kind, Message
from chassis.database import UnitOfWork
from chassis.database.unit_of_work import current_caller, current_key
from chassis.identity.callers import Caller
from chassis.messaging import inbox
from chassis.neighbours import Fallback, NeighbourTimeout, NeighbourUnavailable, call, idempotency_key
from chassis.telemetry.setup import Telemetry
from fastapi import FastAPI
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from tests.chassis.calling import Neighbour, calling

REQUEST = httpx2.Request("GET", "http://customers/v1/customers/7?secret=1")
MakeApp = Callable[..., FastAPI]


@asynccontextmanager
async def caller_of(app: FastAPI) -> AsyncGenerator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://tiny") as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("failure", "status", "code", "wait"),
    [
        (NeighbourUnavailable("customers", "it answers 503", REQUEST), 503, "neighbour_unavailable", "1"),
        (NeighbourUnavailable("customers", "", REQUEST, retry_after_seconds=6.2), 503, "neighbour_unavailable", "7"),
        (NeighbourUnavailable("customers", "", REQUEST, retry_after_seconds=1e9), 503, "neighbour_unavailable", "60"),
        (NeighbourTimeout("customers", "no complete answer within 2 s", REQUEST), 504, "neighbour_timeout", None),
    ],
)
async def test_the_failure_of_a_neighbour_is_no_bug_of_this_service(
    make_app: MakeApp, capsys: pytest.CaptureFixture[str], failure: Exception, status: int, code: str, wait: str | None
) -> None:
    app = make_app(log_format="json")

    @app.get("/needs-a-customer")
    async def fail() -> None:
        raise failure

    async with caller_of(app) as client:
        answer = await client.get("/needs-a-customer")

    assert (answer.status_code, answer.json()["code"], answer.headers.get("Retry-After")) == (status, code, wait)
    assert "customers" not in answer.text
    lines = [line for line in capsys.readouterr().out.splitlines() if "customers" in line or "request_" in line]
    assert len(lines) == 1
    assert '"event": "neighbour_unavailable"' in lines[0]
    assert "secret" not in lines[0]


async def test_a_span_has_the_name_of_the_neighbour(monkeypatch: pytest.MonkeyPatch, measured: Any) -> None:
    spans = InMemorySpanExporter()
    telemetry = Telemetry(
        Resource({}), sampler=ALWAYS_ON, span_processors=[SimpleSpanProcessor(spans)], metric_readers=[]
    )
    monkeypatch.setattr("chassis.client.trace.get_tracer", lambda _: telemetry.tracer)
    async with calling(Neighbour(httpx2.ConnectError("refused"), 200)) as customers:
        await customers.get("/v1/customers?token=secret")

    assert [span.name for span in spans.get_finished_spans()] == ["GET customers", "GET customers"]
    for span in spans.get_finished_spans():
        assert span.attributes is not None
        assert span.attributes["slipway.neighbour"] == "customers"
        assert "secret" not in str(span.attributes)
    common = {"http.request.method": "GET", "server.address": "customers", "slipway.neighbour": "customers"}
    assert measured()["http.client.request.duration"] == [
        ({**common, "error.type": "ConnectError"}, 1),
        ({**common, "http.response.status_code": 200}, 1),
    ]


async def test_a_fallback_takes_the_place_of_a_missing_answer_and_says_so() -> None:
    unknown = Fallback("unknown")
    async with calling(Neighbour(503)) as customers:
        assert await call(customers, "GET", "/v1/customers/7", fallback=unknown) is unknown
        with pytest.raises(NeighbourUnavailable):
            await call(customers, "GET", "/v1/customers/7")


@pytest.mark.parametrize("status", [200, 404, 500])
async def test_a_fallback_does_not_replace_an_answer(status: int) -> None:
    async with calling(Neighbour(status)) as customers:
        answer = await call(customers, "GET", "/v1/customers/7", fallback=Fallback(None))
    assert not isinstance(answer, Fallback)
    assert answer.status_code == status


async def test_a_handler_of_a_message_calls_with_the_id_of_the_message(uow: UnitOfWork) -> None:
    message = Message(Kind.JOB, "billing.mail-invoice.v1", "the-id", "key", b"{}", {})
    for _ in range(2):  # each attempt to handle the message has the same keys
        inbox.introduce(message, uow)
        assert [idempotency_key(), idempotency_key(), idempotency_key()] == ["the-id", "the-id.2", "the-id.3"]
    current_key.set(None)


@pytest.mark.parametrize("given", ["8e03978e-40d5", '"8e03978e-40d5"'])
async def test_a_route_calls_with_the_key_of_its_request(make_app: MakeApp, given: str) -> None:
    app = make_app()

    @app.post("/keys")
    async def keys() -> list[str]:
        return [idempotency_key(), idempotency_key()]

    async with caller_of(app) as client:
        first = (await client.post("/keys", headers={"Idempotency-Key": given})).json()
        without = (await client.post("/keys")).json()
    assert first == ["8e03978e-40d5", "8e03978e-40d5.2"]
    assert len({*without}) == 2
    assert all(len(key) == 36 for key in without)


@pytest.mark.parametrize("given", ["", "caf\xe9", "k" * 256, "two words"])
async def test_a_key_that_a_neighbour_would_not_accept_is_not_passed_on(make_app: MakeApp, given: str) -> None:
    app = make_app()

    @app.post("/keys")
    async def keys() -> list[str]:
        return [idempotency_key(), idempotency_key()]

    async with caller_of(app) as client:
        found = (await client.post("/keys", headers={b"Idempotency-Key": given.encode("latin-1")})).json()
    assert [len(key) for key in found] == [36, 36]


def test_the_same_key_of_two_callers_is_two_keys() -> None:
    def keys_of(subject: str) -> list[str]:
        current_caller.set(Caller(subject, "https://issuer.example", "shop", frozenset()))
        current_key.set(("order-1", count(1)))
        return [idempotency_key(), idempotency_key()]

    ada, again, bob = (copy_context().run(keys_of, subject) for subject in ("ada", "ada", "bob"))
    assert ada == again
    assert len({*ada, *bob}) == 4


async def test_a_derived_key_is_no_longer_than_a_neighbour_accepts() -> None:
    token = current_key.set(("k" * 255, count(1)))
    try:
        assert [len(idempotency_key()), len(idempotency_key())] == [255, 242]
    finally:
        current_key.reset(token)
