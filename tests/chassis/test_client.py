"""Calls to another service: they carry the trace, and no wait and no repetition is unbounded."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from chassis.client import service_client
from chassis.dev import embedded
from opentelemetry import context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"

Respond = Callable[[asyncio.StreamWriter], None]


@asynccontextmanager
async def other(port: int | socket.socket, respond: Respond) -> AsyncGenerator[list[str]]:
    """A minimal server in place of another service, on a port or a socket. Yields the heads of its requests."""
    heads: list[str] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        respond(writer)

    where: dict[str, Any] = {"host": "127.0.0.1", "port": port} if isinstance(port, int) else {"sock": port}
    async with await asyncio.start_server(talk, **where):
        yield heads


def answer(writer: asyncio.StreamWriter) -> None:
    writer.write(ANSWER)


def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


def say_nothing(writer: asyncio.StreamWriter) -> None:
    """Keep the connection open without an answer."""


async def test_the_trace_goes_along() -> None:
    port = embedded.free_port()
    span = NonRecordingSpan(SpanContext(trace_id=0xABC, span_id=7, is_remote=False, trace_flags=TraceFlags(1)))
    async with other(port, answer) as heads, service_client(f"http://127.0.0.1:{port}") as client:
        token = context.attach(trace.set_span_in_context(span))
        try:
            assert (await client.get("/there")).status_code == 204
        finally:
            context.detach(token)

    assert f"traceparent: 00-{0xABC:032x}-" in heads[0]


async def test_a_request_that_was_made_by_hand_has_the_same_limit() -> None:
    port = embedded.free_port()
    async with other(port, say_nothing), service_client("", timeout_seconds=0.2) as client:
        with pytest.raises(httpx2.TimeoutException):
            await client.send(httpx2.Request("GET", f"http://127.0.0.1:{port}/there"))


async def test_a_service_that_does_not_answer_is_given_up() -> None:
    port = embedded.free_port()
    began = time.monotonic()
    async with other(port, say_nothing), service_client(f"http://127.0.0.1:{port}", timeout_seconds=0.3) as client:
        with pytest.raises(httpx2.TimeoutException):
            await client.get("/there")

    assert time.monotonic() - began < 15


@pytest.mark.parametrize("options", [{}, {"timeout": httpx2.Timeout(1, read=0.5)}])
async def test_an_answer_that_comes_byte_by_byte_is_given_up_in_time(options: dict[str, Any]) -> None:
    port = embedded.free_port()
    dripping = set()

    def drip(writer: asyncio.StreamWriter) -> None:
        async def send() -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n")
            for _ in range(2000):
                writer.write(b"x")
                await asyncio.sleep(0.05)

        dripping.add(asyncio.create_task(send()))

    seconds = 60 if options else 0.5
    async with other(port, drip), service_client(f"http://127.0.0.1:{port}", timeout_seconds=seconds) as client:
        async with asyncio.timeout(60):
            with pytest.raises(httpx2.TimeoutException, match="no complete answer within"):
                await client.get("/there", **options)
        async with client.stream("GET", "/there", **options) as response:
            assert len([each async for each in anyway(response, 20)]) == 20
    for task in dripping:
        task.cancel()


async def anyway(response: httpx2.Response, count: int) -> AsyncGenerator[bytes]:
    """Read the first bytes of a stream."""
    async for each in response.aiter_raw(1):
        yield each
        count -= 1
        if not count:
            return


async def test_all_attempts_to_connect_share_one_limit() -> None:
    with socket.socket() as full, ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # a queue of connections that no program accepts
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        began = time.monotonic()
        async with service_client(f"http://127.0.0.1:{full.getsockname()[1]}", timeout_seconds=3) as client:
            with pytest.raises(httpx2.TimeoutException):
                await client.get("/there")

    assert time.monotonic() - began < 8  # three attempts would take 9 s


async def test_a_limit_of_none_is_no_limit() -> None:
    port = embedded.free_port()
    async with other(port, say_nothing), service_client(f"http://127.0.0.1:{port}", timeout_seconds=0.1) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await client.get("/there", timeout=None)


async def test_a_service_that_is_just_starting_is_tried_again() -> None:
    with socket.socket() as starting:
        starting.bind(("127.0.0.1", 0))
        async with service_client(f"http://127.0.0.1:{starting.getsockname()[1]}", timeout_seconds=60) as client:
            asking = asyncio.create_task(client.get("/there"))
            await asyncio.sleep(0.1)
            starting.listen()  # start to listen in one step, because the last attempt is half a second after the first
            async with other(starting, answer):
                assert (await asking).status_code == 204


async def test_a_request_that_may_have_arrived_is_not_repeated() -> None:
    port = embedded.free_port()
    async with other(port, hang_up) as heads, service_client(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.post("/there")

    assert len(heads) == 1


def test_code_that_imports_httpx_gets_the_classes_of_httpx2() -> None:
    code = """
import chassis, httpx, httpx2
from httpx import AsyncClient, HTTPError
from httpx._client import USE_CLIENT_DEFAULT
assert httpx is httpx2 and httpx2.__spec__.name == "httpx2"
assert (AsyncClient, HTTPError, USE_CLIENT_DEFAULT) == (httpx2.AsyncClient, httpx2.HTTPError, httpx2.USE_CLIENT_DEFAULT)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_httpx_stays_httpx_in_a_service_that_installs_httpx(tmp_path: Path) -> None:
    (tmp_path / "httpx.py").write_text("CLASSES = 'its own'")
    code = "import chassis, httpx2, httpx; assert httpx.CLASSES == 'its own'"
    subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )


def test_a_transport_of_another_library_is_refused_by_name() -> None:
    other: Any = type("MockTransport", (), {})()
    with pytest.raises(TypeError, match="is no transport of httpx2: write `import httpx2` in place of `import httpx`"):
        service_client("http://customers", transport=other)
