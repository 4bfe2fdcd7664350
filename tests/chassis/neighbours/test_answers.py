"""A neighbour that fails, as callers and operators see it: statuses, spans, keys and fall-back values."""

import dataclasses
from collections.abc import AsyncGenerator, Callable
from contextvars import copy_context
from itertools import count
from typing import Any

import httpx2
import pytest
from chassis.brokers import Kind, Message
from chassis.database import UnitOfWork
from chassis.database.unit_of_work import current_caller, current_key
from chassis.identity import Caller
from chassis.messaging import inbox
from chassis.neighbours import Fallback, NeighbourTimeout, NeighbourUnavailable, call, idempotency_key
from chassis.telemetry.setup import Telemetry
from fastapi import FastAPI
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from tests.chassis.calling import Neighbour, calling
from tests.chassis.serving import serving

REQUEST = httpx2.Request("GET", "http://customers/v1/customers/7?secret=1")
MakeApp = Callable[..., FastAPI]


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

    async with serving(app, raise_app_exceptions=False) as client:
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


def three_keys() -> list[str]:
    return [idempotency_key() for _ in range(3)]


async def test_each_attempt_to_handle_a_message_calls_with_the_same_keys(uow: UnitOfWork) -> None:
    message = Message(Kind.EVENT, "billing.invoice-issued.v1", "the-id", "key", b"{}", {})
    other = dataclasses.replace(message, id="another-id")
    token = current_key.set(None)
    try:
        found = []
        # Two services that handle one message and call one neighbour need different keys: the neighbour does not know
        # which service calls.
        for each, service in ((message, "mails"), (message, "mails"), (message, "ledger"), (other, "mails")):
            inbox.introduce(each, uow, service)
            found.append(three_keys())
    finally:
        current_key.reset(token)
    assert found[0] == found[1]
    assert len({*found[0], *found[2], *found[3]}) == 9


@pytest.fixture
async def client(make_app: MakeApp) -> AsyncGenerator[httpx2.AsyncClient]:
    app = make_app()

    @app.api_route("/keys/{number}", methods=["POST", "PUT"])
    async def keys(number: int) -> list[str]:
        return three_keys()

    async with serving(app, raise_app_exceptions=False) as client:
        yield client


async def test_a_repeated_request_calls_with_the_same_keys(client: httpx2.AsyncClient) -> None:
    async def keys(given: str, method: str = "POST", number: int = 1) -> list[str]:
        answer = await client.request(method, f"/keys/{number}", headers={"Idempotency-Key": given})
        return answer.json()

    first = await keys("8e03978e-40d5")
    assert await keys("8e03978e-40d5") == await keys('"8e03978e-40d5"') == first
    # A service that is called twice by one request, with two of these keys, calls further services with six keys.
    others = [*await keys(first[0]), *await keys(first[1])]
    others += [*await keys("8e03978e-40d5", number=2), *await keys("8e03978e-40d5", method="PUT")]
    assert len({*first, *others}) == 15
    assert all(len(key) == 36 for key in first)


@pytest.mark.parametrize("given", ["", "two words", "x" * 256, "\N{SNOWMAN}"])
async def test_a_request_without_a_valid_key_calls_with_new_keys(client: httpx2.AsyncClient, given: str) -> None:
    found = [(await client.post("/keys/1", headers=[(b"Idempotency-Key", given.encode())])).json() for _ in range(2)]
    assert len({*found[0], *found[1]}) == 6


def test_the_same_key_of_two_callers_is_two_keys() -> None:
    def key_of(subject: str) -> str:
        current_caller.set(Caller(subject, "https://issuer.example", "shop", frozenset()))
        current_key.set(("billing POST /v1/invoices order-1", count(1)))
        return idempotency_key()

    ada, again, bob = (copy_context().run(key_of, subject) for subject in ("ada", "ada", "bob"))
    assert ada == again != bob
