"""The repetitions of calls: the calls that are repeated, how often, and the reasons for no repetition."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest
from chassis.neighbours import NeighbourTimeout, NeighbourUnavailable, failures
from chassis.neighbours.budget import RetryBudget
from chassis.neighbours.failures import retry_after
from structlog.testing import capture_logs

from tests.chassis.calling import Neighbour, calling

KEY = {"Idempotency-Key": "k1"}
DOWN = [httpx2.ConnectError("refused"), 503]
BROKEN = [httpx2.ReadError(""), httpx2.RemoteProtocolError("hung up"), 429, 502, 503, 504]


@pytest.mark.parametrize("failure", [*BROKEN, httpx2.ConnectError("refused"), httpx2.ConnectTimeout("")], ids=repr)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "QUERY"])
async def test_an_idempotent_call_is_repeated_until_success(method: str, failure: Any) -> None:
    neighbour = Neighbour(failure, failure, 200)
    async with calling(neighbour) as customers:
        assert (await customers.request(method, "/v1/customers")).status_code == 200
    assert neighbour.calls == 3


@pytest.mark.parametrize("failure", BROKEN, ids=repr)
@pytest.mark.parametrize(
    ("method", "headers", "calls"),
    [("POST", {}, 1), ("PATCH", {}, 1), ("PATCH", KEY, 1), ("POST", KEY, 3)],
    ids=["POST", "PATCH", "PATCH with a key", "POST with a key"],
)
async def test_a_call_that_may_have_had_its_effect_is_repeated_only_with_a_key(
    method: str, headers: dict[str, str], calls: int, failure: Any
) -> None:
    neighbour = Neighbour(failure)
    async with calling(neighbour) as customers:
        with pytest.raises(NeighbourUnavailable):
            await customers.request(method, "/v1/customers", headers=headers, json={"name": "Ada"})
    assert neighbour.calls == calls
    assert {request.headers.get("Idempotency-Key") for request in neighbour.requests} == {
        headers.get("Idempotency-Key")
    }


@pytest.mark.parametrize("failure", [httpx2.ConnectError("refused"), httpx2.ConnectTimeout("")], ids=repr)
async def test_a_call_that_cannot_have_arrived_is_repeated(failure: Exception) -> None:
    neighbour = Neighbour(failure, 201)
    async with calling(neighbour) as customers:
        assert (await customers.post("/v1/customers", json={})).status_code == 201
    assert neighbour.calls == 2


async def test_a_post_is_not_repeated_because_the_target_of_its_redirect_is_unreachable() -> None:
    elsewhere = httpx2.Response(303, headers={"Location": "/v1/customers/7"})
    neighbour = Neighbour(elsewhere, httpx2.ConnectError("refused"))
    async with calling(neighbour) as customers:
        with pytest.raises(NeighbourUnavailable):
            await customers.post("/v1/customers", json={}, follow_redirects=True)
    assert [request.method for request in neighbour.requests] == ["POST", "GET"]


class Reading(httpx2.AsyncBaseTransport):
    """Read the body of each request as a connection does: a stream is not read twice."""

    calls = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.calls += 1
        assert [part async for part in request.stream] == [b"part"]
        return httpx2.Response(503)


@pytest.mark.parametrize(("is_stream", "calls"), [(True, 1), (False, 3)])
async def test_a_body_that_is_a_stream_is_sent_once(is_stream: bool, calls: int) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"part"

    transport = Reading()
    async with calling(transport) as customers:
        with pytest.raises(NeighbourUnavailable):
            await customers.put("/v1/scans/1", content=parts() if is_stream else b"part")
    assert transport.calls == calls


@pytest.mark.parametrize("status", [200, 204, 304, 400, 401, 403, 404, 409, 412, 422, 500, 501])
async def test_an_answer_of_the_neighbour_is_an_answer(status: int) -> None:
    neighbour = Neighbour(status)
    async with calling(neighbour) as customers:
        assert (await customers.get("/v1/customers")).status_code == status
    assert neighbour.calls == 1


@pytest.mark.parametrize(
    "error", [httpx2.LocalProtocolError("a line break in a header"), httpx2.UnsupportedProtocol("ftp")]
)
async def test_a_request_that_cannot_be_sent_is_a_fault_of_the_caller(error: httpx2.HTTPError) -> None:
    neighbour = Neighbour(error)
    async with calling(neighbour) as customers:
        with pytest.raises(type(error)):
            await customers.get("/v1/customers")
    assert neighbour.calls == 1


NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
WAITS = {
    "0": 0,
    "7": 7,
    " 7 ": 7,
    "000000031": 31,
    format_datetime(NOW + timedelta(days=365), usegmt=True): 365 * 86400,
    format_datetime(NOW - timedelta(days=365), usegmt=True): 0,
    "31536000": 31536000,
    "9" * 4000: 0,
    "-5": 0,
    "1.5": 0,
    "٥": 0,
    "soon": 0,
    "": 0,
    "Fri, 99 Foo 9999 99:99:99 GMT": 0,
    "Fri, 31 Dec 9999 23:59:59 -9999": 0,
    "inf": 0,
    "nan": 0,
}


@pytest.mark.parametrize(("value", "seconds"), WAITS.items())
def test_retry_after_is_a_number_of_seconds_or_a_date(
    value: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "time", NOW.timestamp)
    response = httpx2.Response(503, headers=[(b"Retry-After", value.encode())])
    assert retry_after(response) == pytest.approx(seconds, abs=1)


@pytest.mark.parametrize(("seconds", "calls"), [("0", 3), ("2", 3), ("31536000", 1), ("6", 1)])
async def test_a_call_is_repeated_only_if_the_neighbour_asks_for_less_than_the_time_that_is_left(
    seconds: str, calls: int
) -> None:
    neighbour = Neighbour(httpx2.Response(503, headers={"Retry-After": seconds}))
    async with calling(neighbour, timeout_seconds=5) as customers:
        with pytest.raises(NeighbourUnavailable, match="it answers 503") as failure:
            await customers.get("/v1/customers")
    assert neighbour.calls == calls
    assert failure.value.retry_after_seconds == int(seconds)


@pytest.mark.parametrize(("seconds", "calls"), [("60", 3), ("61", 1), ("31536000", 1)])
async def test_a_call_without_a_limit_is_repeated_only_within_a_minute(seconds: str, calls: int) -> None:
    neighbour = Neighbour(httpx2.Response(503, headers={"Retry-After": seconds}))
    async with calling(neighbour) as customers:
        with pytest.raises(NeighbourUnavailable):
            await customers.get("/v1/customers", timeout=None)
    assert neighbour.calls == calls


BUSY = httpx2.Response(409, headers={"Retry-After": "1"})


async def test_a_call_whose_key_is_still_in_use_is_repeated_and_no_failure_of_the_caller() -> None:
    neighbour = Neighbour(BUSY, 201)
    async with calling(neighbour) as customers:
        assert (await customers.post("/v1/customers", headers=KEY, json={})).status_code == 201
    assert neighbour.calls == 2
    async with calling(Neighbour(BUSY)) as customers:
        with pytest.raises(NeighbourUnavailable, match="it answers 409") as failure:
            await customers.post("/v1/customers", headers=KEY, json={})
    assert failure.value.retry_after_seconds == 1


@pytest.mark.parametrize(
    ("method", "headers", "answer"),
    [("POST", {}, BUSY), ("PUT", KEY, BUSY), ("POST", KEY, httpx2.Response(409))],
    ids=["no key", "no POST", "no Retry-After"],
)
async def test_another_conflict_is_an_answer(method: str, headers: dict[str, str], answer: httpx2.Response) -> None:
    neighbour = Neighbour(answer)
    async with calling(neighbour) as customers:
        assert (await customers.request(method, "/v1/customers", headers=headers)).status_code == 409
    assert neighbour.calls == 1


async def test_a_neighbour_that_is_down_gets_only_a_fifth_more_calls(measured: Any) -> None:
    neighbour = Neighbour(503)
    async with calling(neighbour) as customers:
        for _ in range(500):
            with pytest.raises(NeighbourUnavailable):
                await customers.get("/v1/customers")

    assert 600 <= neighbour.calls <= 603
    ((attributes, retries),) = measured()["slipway.neighbour.retries"]
    assert (attributes, retries) == ({"slipway.neighbour": "customers"}, neighbour.calls - 500)
    (refused,) = measured()["slipway.neighbour.refused"]
    assert refused[0] == {"slipway.neighbour": "customers", "reason": "budget"}
    assert refused[1] > 300


async def test_each_repetition_is_one_line_of_the_log_without_the_query() -> None:
    neighbour = Neighbour(503, httpx2.ReadError("x" * 100_000), 200)
    with capture_logs() as lines:
        async with calling(neighbour) as customers:
            await customers.get("/v1/customers?token=secret")
    assert [line["event"] for line in lines] == ["stamina.retry_scheduled"] * 2
    assert "customers is unavailable: it answers 503" in str(lines[0])
    assert "secret" not in str(lines)
    assert len(str(lines)) < 2000


async def test_no_call_is_repeated_with_a_budget_of_zero_percent() -> None:
    neighbour = Neighbour(503)
    async with calling(neighbour, neighbour_retry_percent=0) as customers:
        with pytest.raises(NeighbourUnavailable):
            await customers.get("/v1/customers")
    assert neighbour.calls == 1


def test_a_budget_saves_up_a_few_repetitions_and_no_more() -> None:
    budget = RetryBudget(20)
    for _ in range(1000):
        budget.add()
    assert [budget.take() for _ in range(11)] == [True] * 10 + [False]
    for _ in range(5):
        budget.add()
    assert [budget.take(), budget.take()] == [True, False]


async def test_a_repetition_shares_the_limit_of_the_call() -> None:
    neighbour = Neighbour(503, 60.0)
    async with calling(neighbour, timeout_seconds=2) as customers:
        with pytest.raises(NeighbourTimeout, match="customers is unavailable: no complete answer"):
            await customers.get("/v1/customers")
    assert neighbour.calls == 2
