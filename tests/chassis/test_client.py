"""Calls to another service: the trace goes along, and nothing is waited for or repeated without end."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from chassis import embedded
from chassis.client import service_client
from opentelemetry import context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"

Respond = Callable[[asyncio.StreamWriter], None]


@asynccontextmanager
async def other(port: int, respond: Respond) -> AsyncGenerator[list[str]]:
    """Another service, at its most terse. Yields the heads of the requests it got."""
    heads: list[str] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        respond(writer)

    async with await asyncio.start_server(talk, "127.0.0.1", port):
        yield heads


def answer(writer: asyncio.StreamWriter) -> None:
    writer.write(ANSWER)


def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


def say_nothing(writer: asyncio.StreamWriter) -> None:
    """Keep the connection and the caller waiting."""


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


async def test_a_service_that_does_not_answer_is_given_up() -> None:
    port = embedded.free_port()
    began = time.monotonic()
    async with other(port, say_nothing), service_client(f"http://127.0.0.1:{port}", timeout_seconds=0.3) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get("/there")

    assert time.monotonic() - began < 15


async def test_a_service_that_is_just_starting_is_tried_again() -> None:
    port = embedded.free_port()
    async with service_client(f"http://127.0.0.1:{port}") as client:
        asking = asyncio.create_task(client.get("/there"))
        await asyncio.sleep(0.1)
        async with other(port, answer):
            assert (await asking).status_code == 204


async def test_a_request_that_may_have_arrived_is_not_repeated() -> None:
    port = embedded.free_port()
    async with other(port, hang_up) as heads, service_client(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/there")

    assert len(heads) == 1
