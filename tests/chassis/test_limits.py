"""What one request may take, on real sockets: bytes, time, and a place among those running."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from tests.chassis.conftest import listening
from tests.chassis.link import Link

MAX_BODY_BYTES = 2048
TIMEOUT_SECONDS = 0.5


@pytest.fixture
async def limited(make_app: Callable[..., FastAPI]) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of a service that takes two requests at once, small ones, for a short time."""
    app = make_app(max_body_bytes=MAX_BODY_BYTES, request_timeout_seconds=TIMEOUT_SECONDS, max_concurrent_requests=2)
    async with listening(app) as client:
        yield client


async def chunks(*, size: int, count: int) -> AsyncGenerator[bytes]:
    """A body that does not say its length."""
    for _ in range(count):
        yield b"x" * size


def code(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["code"]


async def test_a_body_of_the_allowed_size_is_taken_however_it_is_sent(limited: httpx.AsyncClient) -> None:
    whole = await limited.post("/v1/bytes", content=b"x" * MAX_BODY_BYTES)
    in_chunks = await limited.post("/v1/bytes", content=chunks(size=MAX_BODY_BYTES // 4, count=4))

    assert whole.json() == in_chunks.json() == MAX_BODY_BYTES


async def test_a_body_that_says_it_is_too_large_is_refused(limited: httpx.AsyncClient) -> None:
    assert code(await limited.post("/v1/bytes", content=b"x" * (MAX_BODY_BYTES + 1))) == (413, "request_too_large")


async def test_a_body_that_turns_out_too_large_is_refused(limited: httpx.AsyncClient) -> None:
    refused = await limited.post("/v1/bytes", content=chunks(size=MAX_BODY_BYTES // 4, count=5))

    assert code(refused) == (413, "request_too_large")


async def test_a_json_body_that_turns_out_too_large_is_refused(limited: httpx.AsyncClient) -> None:
    refused = await limited.post(
        "/v1/things",
        content=chunks(size=MAX_BODY_BYTES, count=2),
        headers={"Content-Type": "application/json"},
    )

    assert code(refused) == (413, "request_too_large")


async def test_a_large_body_is_not_read_to_its_end(limited: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncGenerator[bytes]:
        nonlocal sent
        while True:
            sent += 65536
            yield b"x" * 65536

    async with asyncio.timeout(10):
        try:
            response = await limited.post("/v1/bytes", content=endless())
        except httpx.TransportError:
            return  # the server has hung up
    assert response.status_code == 413


async def test_one_request_too_many_is_told_to_come_back(limited: httpx.AsyncClient) -> None:
    running = [asyncio.create_task(limited.get("/v1/sleep", params={"seconds": 0.3})) for _ in range(2)]
    await asyncio.sleep(0.1)

    refused = await limited.get("/v1/sleep", params={"seconds": 0})
    alive = await limited.get("/livez")

    assert code(refused) == (503, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert alive.status_code == 200
    assert [(await task).status_code for task in running] == [200, 200]


async def test_a_request_that_takes_too_long_is_told_to_come_back(limited: httpx.AsyncClient) -> None:
    started = time.monotonic()
    refused = await limited.get("/v1/sleep", params={"seconds": 30})

    assert code(refused) == (503, "timed_out")
    assert "retry-after" in refused.headers
    assert time.monotonic() - started < TIMEOUT_SECONDS + 15  # it sleeps for 30


async def test_the_transaction_of_a_request_that_takes_too_long_is_rolled_back(
    limited: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    slow = await limited.post("/v1/things/slow", params={"seconds": 30}, json={"name": "lamp"})

    assert code(slow) == (503, "timed_out")
    assert await connection.fetchval("SELECT count(*) FROM tiny.things") == 0
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep%'"
    assert await connection.fetchval(f"{waiting} AND pid <> pg_backend_pid() AND state <> 'idle'") == 0


async def test_a_timeout_that_is_not_ours_is_a_bug_and_not_a_slow_request(limited: httpx.AsyncClient) -> None:
    assert code(await limited.get("/v1/failures/timeout")) == (500, "internal_error")


async def test_places_are_free_again_after_every_kind_of_end(limited: httpx.AsyncClient) -> None:
    for _ in range(3):  # more often than there are places
        await limited.get("/v1/sleep", params={"seconds": 30})  # timed out
        await limited.get("/v1/failures/bug")
        await limited.post("/v1/bytes", content=chunks(size=MAX_BODY_BYTES, count=2))
        with pytest.raises(httpx.ReadTimeout):  # the client goes away
            await limited.get("/v1/sleep", params={"seconds": 0.2}, timeout=httpx.Timeout(60, read=0.05))

    async with asyncio.timeout(60):
        while (await limited.get("/v1/sleep", params={"seconds": 0})).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_a_database_that_hangs_delays_no_answer_beyond_the_timeout(
    make_app: Callable[..., FastAPI], link: Link
) -> None:
    app = make_app(database_url=link.url, request_timeout_seconds=1, database_pool_size=1)
    async with listening(app) as client:
        assert (await client.get("/v1/things")).status_code == 200

        link.freeze()
        started = time.monotonic()
        answers = await asyncio.gather(*[client.post("/v1/things", json={"name": f"lamp {n}"}) for n in range(20)])
        assert {answer.status_code for answer in answers} == {503}
        assert time.monotonic() - started < 12  # not one after the other

        link.restore()
        assert (await client.get("/v1/things")).json() == []
