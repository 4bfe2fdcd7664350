"""The limits of a request, on real sockets: bytes, time, and the number of running requests."""

import asyncio
import gc
import time
import tracemalloc
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any
from unittest.mock import AsyncMock, Mock

import asyncpg
import httpx2
import pytest
from chassis.web import connections, limits
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from tests.chassis.sockets import listening
from tests.support.link import Link

MAX_BODY_BYTES = 2048
TIMEOUT_SECONDS = 0.5


@pytest.fixture
async def limited(make_app: Callable[..., FastAPI]) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of a service with a small limit of bodies."""
    async with listening(make_app(max_body_bytes=MAX_BODY_BYTES)) as client:
        yield client


@pytest.fixture
async def hurried(make_app: Callable[..., FastAPI]) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of a service that runs two small requests at once, for a short time."""
    app = make_app(max_body_bytes=MAX_BODY_BYTES, request_timeout_seconds=TIMEOUT_SECONDS, max_concurrent_requests=2)
    async with listening(app) as client:
        yield client


@asynccontextmanager
async def connected(client: httpx2.AsyncClient) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A plain connection to the same server."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    try:
        async with asyncio.timeout(60):
            yield reader, writer
    finally:
        writer.close()


async def chunks(*, size: int, count: int) -> AsyncGenerator[bytes]:
    """A body without a declared length."""
    for _ in range(count):
        yield b"x" * size


def code(response: httpx2.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["code"]


async def test_a_body_of_the_allowed_size_is_accepted_in_every_framing(limited: httpx2.AsyncClient) -> None:
    whole = await limited.post("/v1/bytes", content=b"x" * MAX_BODY_BYTES)
    in_chunks = await limited.post("/v1/bytes", content=chunks(size=MAX_BODY_BYTES // 4, count=4))

    assert whole.json() == in_chunks.json() == MAX_BODY_BYTES


async def test_a_body_with_too_large_a_content_length_is_refused(limited: httpx2.AsyncClient) -> None:
    assert code(await limited.post("/v1/bytes", content=b"x" * (MAX_BODY_BYTES + 1))) == (413, "request_too_large")


async def test_a_body_that_turns_out_too_large_is_refused(limited: httpx2.AsyncClient) -> None:
    refused = await limited.post("/v1/bytes", content=chunks(size=MAX_BODY_BYTES // 4, count=5))

    assert code(refused) == (413, "request_too_large")


async def test_a_json_body_that_turns_out_too_large_is_refused(limited: httpx2.AsyncClient) -> None:
    refused = await limited.post(
        "/v1/things",
        content=chunks(size=MAX_BODY_BYTES, count=2),
        headers={"Content-Type": "application/json"},
    )

    assert code(refused) == (413, "request_too_large")


async def test_a_large_body_is_not_read_to_its_end(limited: httpx2.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncGenerator[bytes]:
        nonlocal sent
        while True:
            sent += 65536
            yield b"x" * 65536

    async with asyncio.timeout(60):
        try:
            response = await limited.post("/v1/bytes", content=endless())
        except httpx2.TransportError:
            return  # the server has closed the connection
    assert response.status_code == 413


async def test_a_request_too_many_is_asked_to_come_back(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(max_concurrent_requests=2)
    begun, proceed = asyncio.Semaphore(0), asyncio.Event()

    @app.get("/hold")
    async def hold() -> None:
        begun.release()
        await proceed.wait()

    async with listening(app) as client:
        running = [asyncio.create_task(client.get("/hold")) for _ in range(2)]
        async with asyncio.timeout(60):
            for _ in running:
                await begun.acquire()

        refused = await client.get("/v1/sleep", params={"seconds": 0})
        alive = await client.get("/livez")
        proceed.set()

        assert code(refused) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert alive.status_code == 200
        assert [(await task).status_code for task in running] == [200, 200]


@pytest.mark.parametrize("framing", ["Content-Length: 2", "Transfer-Encoding: chunked"])
async def test_bodies_that_do_not_arrive_take_no_place(make_app: Callable[..., FastAPI], framing: str) -> None:
    app = make_app(max_concurrent_requests=2, request_timeout_seconds=3)
    async with listening(app) as client, AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(connected(client)) for _ in range(20)]
        for _, writer in slow:
            writer.write(f"POST /v1/bytes HTTP/1.1\r\nHost: tiny\r\n{framing}\r\n\r\n1".encode())
            await writer.drain()
        await asyncio.sleep(0.3)

        assert (await client.get("/v1/sleep", params={"seconds": 0})).status_code == 200
        assert (await client.post("/v1/bytes", content=b"abc")).json() == 3

        for reader, _ in slow:  # the answer, and then the end of the connection
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 408 "), answer
            assert b'"code":"request_timeout"' in answer


async def test_the_oldest_of_too_many_bodies_makes_room(
    make_app: Callable[..., FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 100_000
    monkeypatch.setattr(limits, "MAX_BODIES_BYTES", 2 * size)
    async with listening(make_app(max_body_bytes=size)) as client, AsyncExitStack() as stack:
        begun = [await stack.enter_async_context(connected(client)) for _ in range(3)]
        for _, writer in begun:
            writer.write(b"POST /v1/bytes HTTP/1.1\r\nHost: tiny\r\nContent-Length: %d\r\n\r\n" % size)
            writer.write(b"x" * (size - 1))
            await writer.drain()
            await asyncio.sleep(0.2)
        (refused, _), *others = begun
        assert b'"code":"overloaded"' in await refused.readuntil(b"}")
        for reader, writer in others:
            writer.write(b"x")
            assert (await reader.readuntil(b"%d" % size)).startswith(b"HTTP/1.1 200 ")
        for _ in range(3):  # each body returns the bytes that it counted
            assert (await client.post("/v1/bytes", content=b"x" * size)).status_code == 200


def test_refused_bodies_do_not_widen_the_bound() -> None:
    bodies = limits.BodyMemory(max_bytes=100)
    first, second, third = (limits.Body(100, Mock(asyncio.Timeout)) for _ in range(3))
    bodies.count(first, 60)
    bodies.count(second, 60)
    assert first.refused
    with pytest.raises(TimeoutError):
        bodies.count(first, 60)  # its task reads one more chunk before it notices the refusal
    for body in (first, second):
        bodies.remove(body)
    with pytest.raises(TimeoutError):
        bodies.count(third, 101)


@pytest.mark.slow
async def test_a_body_that_comes_in_tiny_pieces_takes_little_more_memory_than_its_size() -> None:
    size = 500_000  # so that the memory of other threads, which is counted too, is small in comparison
    pieces = iter([b"%02d" % (number % 100) for number in range(size // 2)])
    received: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        received.append((await receive())["body"])

    async def receive() -> Message:
        piece = next(pieces, b"")
        return {"type": "http.request", "body": bytes(bytearray(piece)), "more_body": bool(piece)}

    limited = limits.Limits(app, max_body_bytes=size, timeout_seconds=60, max_concurrent=1)
    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": [(b"transfer-encoding", b"chunked")],
        "app": FastAPI(),
    }
    tracemalloc.start()
    try:
        await limited(scope, receive, AsyncMock())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(received[0]) == size
    assert most < 4 * size


@pytest.mark.slow
@pytest.mark.parametrize("body", ["[" * 100_000, "9" * 100_000, '{"name": ' * 10_000])
async def test_large_bodies_that_are_not_json_leave_nothing_behind(make_app: Callable[..., FastAPI], body: str) -> None:
    def failures() -> list[object]:
        return [each for each in gc.get_objects() if isinstance(each, HTTPException | RequestValidationError)]

    gc.collect()
    before = len(failures())  # other test modules may hold such exceptions as parameters
    gc.disable()
    try:
        async with listening(make_app()) as client:
            for _ in range(3):
                headers = {"Content-Type": "application/json"}
                assert code(await client.post("/v1/things", content=body, headers=headers))[0] == 400
        assert len(failures()) == before
    finally:
        gc.enable()


async def test_a_request_that_takes_too_long_is_told_to_come_back(hurried: httpx2.AsyncClient) -> None:
    refused = await hurried.get("/v1/sleep", params={"seconds": 600})  # the client gives up after a tenth of that

    assert code(refused) == (503, "timed_out")
    assert "retry-after" in refused.headers


async def test_the_transaction_of_a_request_that_takes_too_long_is_rolled_back(
    hurried: httpx2.AsyncClient, connection: asyncpg.Connection
) -> None:
    slow = await hurried.post("/v1/things/slow", params={"seconds": 600}, json={"name": "lamp"})

    assert code(slow) == (503, "timed_out")
    assert await connection.fetchval("SELECT count(*) FROM tiny.things") == 0
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep%'"
    async with asyncio.timeout(60):
        while await connection.fetchval(f"{waiting} AND pid <> pg_backend_pid() AND state <> 'idle'"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_timeout_that_is_not_ours_is_a_bug_and_not_a_slow_request(limited: httpx2.AsyncClient) -> None:
    assert code(await limited.get("/v1/failures/timeout")) == (500, "internal_error")


async def test_places_are_free_again_after_every_kind_of_end(hurried: httpx2.AsyncClient) -> None:
    async def until_free() -> None:
        async with asyncio.timeout(60):
            while (await hurried.get("/v1/sleep", params={"seconds": 0})).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    for _ in range(3):  # more requests than may run at the same time
        await hurried.get("/v1/sleep", params={"seconds": 600})  # timed out
        await hurried.get("/v1/failures/bug")
        await hurried.post("/v1/bytes", content=chunks(size=MAX_BODY_BYTES, count=2))
        await until_free()  # otherwise the next request would be over the limit, and refused at once
        with pytest.raises(httpx2.ReadTimeout):  # the client disconnects
            await hurried.get("/v1/sleep", params={"seconds": 600}, timeout=httpx2.Timeout(60, read=0.05))

    await until_free()


async def test_an_endless_head_is_refused_before_the_memory_is_full(limited: httpx2.AsyncClient) -> None:
    async with connected(limited) as (reader, writer):
        writer.write(b"GET /livez HTTP/1.1\r\n")
        with suppress(ConnectionError):  # the server closes the connection while the test sends
            for number in range(100_000):
                writer.write(b"X-%d: %s\r\n" % (number, b"x" * 1000))
                await writer.drain()
        assert number < 10_000
        with suppress(ConnectionError):
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")


async def test_a_head_of_common_size_may_come_in_pieces(limited: httpx2.AsyncClient) -> None:
    async with connected(limited) as (reader, writer):
        for _ in range(2):  # two requests on one connection
            for piece in (b"GET /livez HT", b"TP/1.1\r\nHost: x\r\nCookie: ", b"x" * 30_000, b"\r\n\r\n"):
                writer.write(piece)
                await asyncio.sleep(0.05)
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")


async def test_a_large_body_is_no_large_head(make_app: Callable[..., FastAPI]) -> None:
    size = 4 * connections.MAX_HEAD_BYTES
    async with listening(make_app(max_body_bytes=size)) as client:
        for _ in range(2):
            answer = await client.post("/v1/bytes", content=chunks(size=1000, count=size // 1000))
            assert answer.json() == size // 1000 * 1000


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nX-"])
async def test_nobody_holds_a_connection_without_a_request(
    make_app: Callable[..., FastAPI], monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_SECONDS", 0.3)
    async with listening(make_app(), timeout_keep_alive=1) as client, connected(client) as (reader, writer):
        for each in sent or [0]:  # at the slowest allowed speed, and the last byte never comes
            writer.write(bytes([each]) if sent else b"")
            await asyncio.sleep(0.02)
        with suppress(ConnectionError):  # the server closed the connection while the test was sending
            assert await reader.read() == b""


@pytest.mark.slow
async def test_a_database_that_hangs_delays_no_answer_beyond_the_timeout(
    make_app: Callable[..., FastAPI], link: Link
) -> None:
    app = make_app(database_url=link.url, request_timeout_seconds=1, database_pool_size=1)
    async with listening(app) as client:

        async def until_it_works() -> httpx2.Response:
            async with asyncio.timeout(60):
                while (answer := await client.get("/v1/things")).status_code != 200:
                    pass
            return answer

        await until_it_works()

        link.freeze()
        started = time.monotonic()
        answers = await asyncio.gather(*[client.post("/v1/things", json={"name": f"lamp {n}"}) for n in range(60)])
        assert {answer.status_code for answer in answers} == {503}
        assert time.monotonic() - started < 45  # one after the other they would take 60 s

        link.restore()
        assert (await until_it_works()).json() == []


async def ticks(*, seconds: float, count: int) -> AsyncGenerator[bytes]:
    for number in range(count):
        if number:
            await asyncio.sleep(seconds)
        yield b"tick"


@pytest.fixture
async def streaming(make_app: Callable[..., FastAPI]) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of a server whose requests may take half a second, with streams that take longer."""
    app = make_app(request_timeout_seconds=TIMEOUT_SECONDS)

    @app.get("/stream")
    async def stream(seconds: float, count: int) -> StreamingResponse:
        return StreamingResponse(ticks(seconds=seconds, count=count))

    @app.get("/late")
    async def late() -> StreamingResponse:
        await asyncio.sleep(600)
        return StreamingResponse(ticks(seconds=0, count=1))

    async with listening(app) as client:
        yield client


async def test_a_stream_may_take_longer_than_a_request(streaming: httpx2.AsyncClient) -> None:
    response = await streaming.get("/stream", params={"seconds": TIMEOUT_SECONDS / 5, "count": 15})

    assert response.content == b"tick" * 15
    assert response.elapsed.total_seconds() > 2 * TIMEOUT_SECONDS


async def test_a_stream_that_falls_silent_is_cut_and_is_no_failure_of_the_service(
    streaming: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with capture_logs() as logged, pytest.raises(httpx2.RemoteProtocolError):
        await streaming.get("/stream", params={"seconds": 600, "count": 2})

    assert [(line["event"], line["log_level"]) for line in logged] == [("answer_cut", "warning")]
    assert not any(record.exc_info or record.levelname == "ERROR" for record in caplog.records)


async def test_a_stream_that_does_not_begin_in_time_is_answered_as_any_slow_request(
    streaming: httpx2.AsyncClient,
) -> None:
    assert code(await streaming.get("/late")) == (503, "timed_out")


async def test_a_client_that_leaves_a_stream_leaves_no_failure_behind(
    streaming: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with capture_logs() as logged:
        async with streaming.stream("GET", "/stream", params={"seconds": 0.05, "count": 1_000_000}) as response:
            await anext(response.aiter_raw())
        # gives the server time for the end of the stream above
        await streaming.get("/stream", params={"seconds": TIMEOUT_SECONDS / 2, "count": 4})

    assert logged == []
    assert not any(record.exc_info or record.levelname == "ERROR" for record in caplog.records)


@pytest.fixture
async def uploads(make_app: Callable[..., FastAPI]) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of a server with a small limit of bodies, except on some routes."""
    app = make_app(max_body_bytes=MAX_BODY_BYTES)

    async def count(request: Request) -> int:
        return len(await request.body())

    app.add_api_route("/large/{name}", count, methods=["PUT"], max_body_size=4 * MAX_BODY_BYTES)
    app.add_api_route("/large/{name}", count, methods=["POST"])
    app.add_api_route("/tiny", count, methods=["PUT"], max_body_size=10)
    all_large = APIRouter(prefix="/all-large", max_body_size=4 * MAX_BODY_BYTES)
    all_large.add_api_route("/{name}", count, methods=["PUT"])
    around = APIRouter(prefix="/around")
    around.include_router(all_large)
    app.include_router(around)
    async with listening(app) as client:
        yield client


@pytest.mark.parametrize("in_chunks", [False, True])
@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [
        ("PUT", "/large/photo", 4 * MAX_BODY_BYTES),
        ("POST", "/large/photo", MAX_BODY_BYTES),
        ("PUT", "/around/all-large/photo", 4 * MAX_BODY_BYTES),
        ("PUT", "/tiny", 10),
        ("POST", "/v1/bytes", MAX_BODY_BYTES),
    ],
)
async def test_a_route_may_have_a_limit_of_its_own_for_bodies(
    uploads: httpx2.AsyncClient, method: str, path: str, limit: int, in_chunks: bool
) -> None:
    def body(size: int) -> Any:
        return chunks(size=1, count=size) if in_chunks and size < 100 else chunks(size=size, count=1)

    for size, status in ((limit, 200), (limit + 1, 413)):
        content = body(size) if in_chunks else b"x" * size
        response = await uploads.request(method, path, content=content)
        if status == 200:
            assert response.json() == size
        else:
            assert code(response) == (413, "request_too_large")
            assert str(limit) in response.json()["detail"]
