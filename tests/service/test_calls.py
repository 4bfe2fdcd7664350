"""Orders calls customers, both generated and in processes of their own, while customers is frozen, killed, slow or worse."""

import asyncio
import secrets
from collections.abc import Generator

import httpx2
import pytest

from tests.service.chaos import calls
from tests.service.chaos.pair import Pair, pair
from tests.support.otlp import OtlpReceiver, tree
from tests.support.services import Render
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("calls")]


@pytest.fixture(scope="module")
def receiver() -> Generator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def running(render: Render, receiver: OtlpReceiver) -> Generator[Pair]:
    with pair(render, receiver) as running:
        yield running


def test_a_typed_call_is_one_trace_through_both_services(running: Pair, receiver: OtlpReceiver) -> None:
    trace = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    url = f"{running.base}/v1/sign-ups"
    assert httpx2.post(url, json={"name": "Ada"}, headers=headers, timeout=60).status_code == 201

    wanted = [
        ("orders", "POST /v1/sign-ups"),
        ("orders", "POST customers"),
        ("customers", "POST /v1/customers"),
        ("customers", "INSERT customers.customers"),
        ("orders", "INSERT orders.orders"),
    ]

    def missing() -> set[tuple[str, str]]:
        return set(wanted) - {(span.service, span.name) for span in receiver.spans if span.trace_id == trace}

    wait_until(lambda: not missing(), lambda: (missing(), running.logs()))
    spans = {span.name: span for span in receiver.spans if span.trace_id == trace}
    parents = {name: spans[name].parent_id for _, name in wanted}
    ids = {name: spans[name].span_id for _, name in wanted}
    assert parents["POST customers"] == ids["POST /v1/sign-ups"] == parents["INSERT orders.orders"]
    assert parents["POST /v1/customers"] == ids["POST customers"], tree(spans.values())
    assert parents["INSERT customers.customers"] == ids["POST /v1/customers"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("trouble", calls.TROUBLES)
def test_orders_stays_well_and_loses_nothing_while_customers_is_in_trouble(
    running: Pair, receiver: OtlpReceiver, trouble: str
) -> None:
    """This is the short form of `python -m tests.service.chaos.calls`, which `make chaos` runs for longer."""
    assert asyncio.run(calls.run(running, receiver, [trouble], seconds=0)) == []
