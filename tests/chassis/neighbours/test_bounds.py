"""The bounds of a call: the deadline, calls at the same time, and the size and shape of an answer."""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from chassis.database.current_database import current_limit
from chassis.neighbours import NeighbourSettings, NeighbourTimeout, NeighbourUnavailable

from tests.chassis.calling import Neighbour, calling


class Until:
    """A limit that ends after some seconds."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    def when(self) -> float:
        return self._ends


@contextmanager
def deadline(seconds: float) -> Generator[None]:
    """Act as a request or message with that time left."""
    token = current_limit.set(Until(seconds))
    try:
        yield
    finally:
        current_limit.reset(token)


@pytest.mark.parametrize(
    ("left", "own", "milliseconds"), [(60, 5, (4000, 5000)), (2, 5, (1000, 1980)), (None, 5, (4000, 5000))]
)
async def test_a_call_sends_the_smaller_of_its_limit_and_the_deadline(
    left: float | None, own: float, milliseconds: tuple[int, int]
) -> None:
    neighbour = Neighbour(200)
    async with calling(neighbour, timeout_seconds=own) as customers:
        if left is None:
            await customers.get("/v1/customers")
        else:
            with deadline(left):
                await customers.get("/v1/customers", headers={"X-Request-Timeout-Ms": "999999"})
    (sent,) = neighbour.requests[0].headers.get_list("X-Request-Timeout-Ms")
    assert milliseconds[0] <= int(sent) <= milliseconds[1]


async def test_each_repetition_sends_the_time_that_is_left_then() -> None:
    neighbour = Neighbour(httpx2.ConnectError("refused"), 503, 200)
    async with calling(neighbour) as customers:
        await customers.get("/v1/customers")
    sent = [int(request.headers["X-Request-Timeout-Ms"]) for request in neighbour.requests]
    assert sent == sorted(sent, reverse=True)
    assert sent[0] <= 5000


async def test_a_call_ends_at_the_deadline() -> None:
    neighbour = Neighbour(60.0)
    async with calling(neighbour) as customers:
        with deadline(0.15), pytest.raises(NeighbourTimeout):
            await customers.get("/v1/customers")
    assert neighbour.calls == 1


async def test_a_call_with_nearly_no_time_left_is_not_sent(measured: Any) -> None:
    neighbour = Neighbour(200)
    async with calling(neighbour) as customers:
        with deadline(0.01), pytest.raises(NeighbourTimeout, match="no time is left"):
            await customers.get("/v1/customers")
    assert neighbour.calls == 0
    assert measured()["slipway.neighbour.refused"] == [({"slipway.neighbour": "customers", "reason": "deadline"}, 1)]


async def test_a_call_without_any_limit_is_sent_without_the_header() -> None:
    neighbour = Neighbour(200)
    async with calling(neighbour) as customers:
        await customers.get("/v1/customers", timeout=None)
    assert "X-Request-Timeout-Ms" not in neighbour.requests[0].headers


async def test_a_call_that_its_task_cancels_is_no_failure_of_the_neighbour() -> None:
    async with calling(Neighbour(60.0)) as customers:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await customers.get("/v1/customers")


async def test_calls_beyond_the_bound_fail_at_once_and_others_go_on(measured: Any) -> None:
    neighbour = Neighbour(0.1)
    async with calling(neighbour, neighbour_calls_at_once=3) as customers:
        calls = [customers.get("/v1/customers") for _ in range(10)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(each, NeighbourUnavailable) for each in results) == 7
        assert (await customers.get("/v1/customers")).status_code == 200
    assert measured()["slipway.neighbour.refused"] == [({"slipway.neighbour": "customers", "reason": "concurrency"}, 7)]


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"x" * 65536


async def test_an_answer_that_is_too_large_ends_with_the_call() -> None:
    neighbour = Neighbour(httpx2.Response(200, content=endless()))
    async with calling(neighbour, neighbour_max_answer_bytes=10**6) as customers:
        with pytest.raises(NeighbourUnavailable, match="its answer has more than 1000000 bytes"):
            await customers.get("/v1/customers")
    assert neighbour.calls == 1


async def test_the_head_of_a_large_resource_is_an_answer() -> None:
    head = httpx2.Response(200, headers={"Content-Length": "10000000000", "Content-Encoding": "gzip"})
    async with calling(Neighbour(head)) as customers:
        assert (await customers.head("/v1/scans/1")).headers["Content-Length"] == "10000000000"


async def test_a_stream_may_have_any_size() -> None:
    async with calling(
        Neighbour(httpx2.Response(200, content=endless())), neighbour_max_answer_bytes=1024
    ) as customers:
        size = 0
        async with customers.stream("GET", "/v1/scans/1") as answer:
            async for part in answer.aiter_bytes():
                size += len(part)
                if size > 10**6:
                    break


@pytest.mark.parametrize("length", [{}, {"Content-Length": "9733"}], ids=["chunked", "with a length"])
async def test_a_compressed_answer_is_refused_unread(length: dict[str, str]) -> None:
    body = httpx2.ByteStream(gzip.compress(bytes(10**7)))
    bomb = httpx2.Response(200, headers={"Content-Encoding": "gzip", **length}, stream=body)
    async with calling(Neighbour(bomb)) as customers:
        with pytest.raises(NeighbourUnavailable, match="its answer is compressed"):
            await customers.get("/v1/customers")


@pytest.mark.parametrize("error", [httpx2.ReadTimeout(""), httpx2.ReadError(""), httpx2.RemoteProtocolError("")])
async def test_a_stream_that_breaks_off_is_a_failure_of_the_neighbour(error: httpx2.TransportError) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"part"
        raise error

    async with (
        calling(Neighbour(httpx2.Response(200, content=parts()))) as customers,
        customers.stream("GET", "/v1/scans/1") as answer,
    ):
        with pytest.raises(NeighbourUnavailable) as failure:
            await answer.aread()
    assert isinstance(failure.value, NeighbourTimeout) == isinstance(error, httpx2.TimeoutException)


async def test_a_loop_of_redirects_is_a_failure_that_is_not_repeated() -> None:
    neighbour = Neighbour(httpx2.Response(302, headers={"Location": "/v1/customers"}))
    async with calling(neighbour) as customers:
        with pytest.raises(NeighbourUnavailable, match="TooManyRedirects"):
            await customers.get("/v1/customers", follow_redirects=True)
    assert neighbour.calls == 21


async def test_the_credentials_of_a_client_stay_with_its_neighbour() -> None:
    neighbour = Neighbour(200)
    async with calling(neighbour, auth=httpx2.BasicAuth("billing", "secret")) as customers:
        await customers.get("/v1/customers")
        await customers.get("http://elsewhere/v1/customers")
    assert ["Authorization" in request.headers for request in neighbour.requests] == [True, False]


@pytest.mark.parametrize("name", ["", "Customers", "customers/x", "a@b", "customers.evil", "-a", "a" + "\n"])
def test_a_name_that_no_service_can_have_is_refused(name: str) -> None:
    settings = NeighbourSettings.model_validate({"database_url": "postgresql://x/y"})
    with pytest.raises(ValueError, match="is no name of a service: use small letters, digits and single hyphens"):
        settings.client_for(name)


class Named(NeighbourSettings):
    customers_url: str | None = None
    user_profile_url: str = "http://127.0.0.1:8001"


@pytest.mark.parametrize(
    ("values", "name", "url"),
    [
        ({}, "customers", "http://customers/"),
        ({"neighbour_url": "https://{name}.{name}-production"}, "customers", "https://customers.customers-production/"),
        ({"customers_url": "http://127.0.0.1:9/base"}, "customers", "http://127.0.0.1:9/base/"),
        ({}, "user-profile", "http://127.0.0.1:8001/"),
    ],
)
async def test_a_neighbour_is_called_at_its_own_url_or_at_the_default(values: Any, name: str, url: str) -> None:
    settings = Named.model_validate({"database_url": "postgresql://x/y", **values})
    async with settings.client_for(name) as client:
        assert str(client.base_url) in (url, url.rstrip("/"))


@pytest.mark.parametrize("url", ["customers", "ftp://{name}", "http://customers"])
def test_a_default_url_without_a_place_for_the_name_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"must be a URL with \{name\} in it"):
        NeighbourSettings.model_validate({"database_url": "postgresql://x/y", "neighbour_url": url})
