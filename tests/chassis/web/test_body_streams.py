"""A route that reads its body as a stream, on real sockets: the limits of its bytes, its time and its memory."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Annotated
from unittest.mock import Mock

import httpx2
import pytest
from chassis.http import streams_body
from chassis.web import bodies, limits
from fastapi import APIRouter, Body, FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.types import Message
from structlog.testing import capture_logs

from tests.chassis.sockets import listening

MAX_BYTES = 200_000
TIMEOUT_SECONDS = 0.5

Serve = Callable[..., FastAPI]


@pytest.fixture
def seen() -> asyncio.Queue[int]:
    """The sizes of the parts that the route has read."""
    return asyncio.Queue()


@pytest.fixture
def serve(make_app: Serve, seen: asyncio.Queue[int]) -> Serve:
    """Make a service with routes that read their bodies as streams."""

    def make(**settings: object) -> FastAPI:
        app = make_app(max_body_bytes=2048, **settings)
        router = APIRouter(prefix="/scans", max_body_size=MAX_BYTES)

        @router.put("/{name}")
        @streams_body
        async def store(request: Request) -> int:
            size = 0
            async for part in request.stream():
                size += len(part)
                if part:
                    seen.put_nowait(len(part))
            return size

        @router.put("/{name}/slowly")
        @streams_body
        async def store_slowly(request: Request) -> None:
            async for _ in request.stream():
                await asyncio.sleep(600)

        @router.put("/{name}/unread")
        @streams_body
        async def leave_unread(request: Request) -> None:
            await asyncio.sleep(600)

        @router.put("/{name}/echoed", max_body_size=2**22)
        @streams_body
        async def echo(request: Request) -> StreamingResponse:
            return StreamingResponse(request.stream())

        @router.put("/{name}/answered", max_body_size=2**22)
        @streams_body
        async def answer_in_parts(request: Request) -> StreamingResponse:
            return StreamingResponse(parts(len(await request.body()), 1))

        @router.put("/{name}/parsed")
        @streams_body
        async def parse(body: Annotated[bytes, Body()]) -> int:
            return len(body)

        @router.post("/{name}")
        async def whole(request: Request) -> int:
            return len(await request.body())

        app.include_router(router)
        return app

    return make


async def parts(*sizes: int, pause_seconds: float = 0) -> AsyncGenerator[bytes]:
    for size in sizes:
        yield b"x" * size
        await asyncio.sleep(pause_seconds)


def code(response: httpx2.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


async def test_the_route_has_the_first_part_before_the_client_sends_the_second(
    serve: Serve, seen: asyncio.Queue[int]
) -> None:
    async def body() -> AsyncGenerator[bytes]:
        for size in (1000, 2000):
            yield b"x" * size
            assert await seen.get() == size

    async with asyncio.timeout(60), listening(serve()) as client:
        assert (await client.put("/scans/one", content=body())).json() == 3000


@pytest.mark.parametrize("in_chunks", [False, True])
async def test_a_body_beyond_the_limit_of_its_route_is_refused(serve: Serve, in_chunks: bool) -> None:
    async with listening(serve()) as client:
        for size in (MAX_BYTES, MAX_BYTES + 1):
            content = parts(*[size // 2] * 2, size % 2) if in_chunks else b"x" * size
            response = await client.put("/scans/one", content=content)
            if size == MAX_BYTES:
                assert response.json() == MAX_BYTES
            else:
                assert code(response) == (413, "request_too_large")
                assert str(MAX_BYTES) in response.json()["detail"]


async def test_a_refused_body_has_the_same_answer_if_fastapi_reads_the_body_for_a_parameter(serve: Serve) -> None:
    async with listening(app := serve()) as client:
        for sizes, answer in ((3 * [MAX_BYTES // 3], 200), (3 * [MAX_BYTES], (413, "request_too_large"))):
            response = await client.put("/scans/one/parsed", content=parts(*sizes))
            assert answer == (response.status_code if response.is_success else code(response))
        _limits(app)._body_memory.max_bytes = 100
        assert code(await client.put("/scans/one/parsed", content=parts(200))) == (503, "overloaded")


async def test_a_body_may_arrive_for_longer_than_a_request_may_take(serve: Serve) -> None:
    async with listening(serve(request_timeout_seconds=1.5)) as client:
        response = await client.put("/scans/one", content=parts(*[20_000] * 8, pause_seconds=0.25))
        assert response.json() == 160_000
        assert response.elapsed.total_seconds() > 1.5


@pytest.mark.parametrize("dripping", [False, True])
async def test_a_client_that_sends_nothing_or_a_byte_now_and_then_keeps_no_place(serve: Serve, dripping: bool) -> None:
    async with asyncio.timeout(60), listening(serve(request_timeout_seconds=TIMEOUT_SECONDS)) as client:
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(b"PUT /scans/one HTTP/1.1\r\nHost: tiny\r\nContent-Length: 100000\r\n\r\nx")
        answer = asyncio.create_task(reader.readuntil(b"}"))
        while not answer.done():
            writer.write(b"x" * dripping)
            await asyncio.sleep(TIMEOUT_SECONDS / 10)
        writer.close()
        assert (await answer).startswith(b"HTTP/1.1 408 ")
        assert b'"code":"request_timeout"' in await answer


@pytest.mark.parametrize("route", ["slowly", "unread"])
async def test_a_route_that_takes_too_long_for_a_part_is_not_the_fault_of_the_client(serve: Serve, route: str) -> None:
    async with listening(serve(request_timeout_seconds=TIMEOUT_SECONDS)) as client:
        assert code(await client.put(f"/scans/one/{route}", content=b"x" * 10)) == (503, "timed_out")


@pytest.mark.parametrize("size", [10, 3_000_000])
async def test_a_streamed_answer_that_reads_the_body_is_cut_and_loses_nothing_silently(serve: Serve, size: int) -> None:
    async with listening(serve()) as client:
        assert len((await client.put("/scans/one/answered", content=b"x" * size)).content) == size + 1
        with pytest.raises(httpx2.TransportError):
            await client.put("/scans/one/echoed", content=b"x" * size)


async def test_bodies_that_arrive_slowly_take_only_a_share_of_the_places(
    serve: Serve, seen: asyncio.Queue[int]
) -> None:
    told = asyncio.Event()

    async def held() -> AsyncGenerator[bytes]:
        yield b"x"
        await told.wait()

    async with asyncio.timeout(60), listening(serve(max_concurrent_requests=8)) as client:
        running = [asyncio.create_task(client.put("/scans/one", content=held())) for _ in range(2)]
        for _ in running:
            await seen.get()
        assert code(await client.put("/scans/one", content=b"x")) == (503, "overloaded")
        assert (await client.post("/scans/one", content=b"x")).json() == 1
        told.set()
        assert [(await task).json() for task in running] == [1, 1]
        assert (await client.put("/scans/one", content=b"x")).json() == 1


async def test_a_client_that_leaves_in_the_middle_leaves_no_failure_behind(
    serve: Serve, seen: asyncio.Queue[int], caplog: pytest.LogCaptureFixture
) -> None:
    async def leaving() -> AsyncGenerator[bytes]:
        yield b"x"
        await seen.get()
        raise RuntimeError("gone")

    async with asyncio.timeout(60), listening(app := serve()) as client:
        with capture_logs() as logged, pytest.raises(RuntimeError, match="gone"):
            await client.put("/scans/one", content=leaving())
        while _limits(app).running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert logged == []
    assert not any(record.exc_info or record.levelname == "ERROR" for record in caplog.records)


def _limits(app: FastAPI) -> limits.Limits:
    layer = app.middleware_stack
    while not isinstance(layer, limits.Limits):
        layer = getattr(layer, "_app", None) or layer.app  # ty: ignore[missing-union-attribute]
    return layer


async def test_the_memory_of_all_bodies_bounds_the_parts_and_not_the_whole() -> None:
    memory = bodies.BodyMemory(max_bytes=100)
    sent = iter([60, 60, 60, 90])

    async def receive() -> Message:
        return {"type": "http.request", "body": b"x" * next(sent), "more_body": True}

    stream, other = (bodies.Body(1000, Mock(expired=lambda: False)) for _ in range(2))
    reading = bodies.BodyStream(stream, receive, memory, timeout_seconds=60)
    for _ in range(3):  # together more than the bound, but one part after the other
        await reading.receive()
    memory.count(other, 40)
    assert (stream.refused, other.refused) == (False, False)
    await reading.receive()
    assert (stream.refused, other.refused) == (False, True), "the oldest of the bodies makes room"


async def test_a_request_that_still_cleans_up_after_its_time_limit_makes_room_and_fails_no_other_request() -> None:
    memory = bodies.BodyMemory(max_bytes=100)

    async def end_slowly() -> None:
        async with asyncio.timeout(0) as deadline:
            memory.count(bodies.Body(1000, deadline), 90)
            try:
                await asyncio.sleep(600)
            finally:
                memory.count(other, 20)

    other = bodies.Body(1000, Mock(expired=lambda: False))
    with pytest.raises(TimeoutError):
        await end_slowly()
    assert not other.refused


async def test_a_large_limit_of_a_stream_does_not_widen_the_memory_of_bodies(serve: Serve) -> None:
    app = serve()

    @app.put("/anything", max_body_size=2**40)
    @streams_body
    async def anything(request: Request) -> int:
        return sum([len(part) async for part in request.stream()])

    async with listening(app) as client:
        assert (await client.put("/anything", content=b"x" * 100_000)).json() == 100_000
        assert _limits(app)._body_memory.max_bytes == limits.MAX_BODIES_BYTES
