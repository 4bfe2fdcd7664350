"""A neighbour at the other end of a real connection, which sends whatever it likes, or nothing."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from chassis.dev import embedded
from chassis.neighbours import NeighbourSettings, NeighbourTimeout, NeighbourUnavailable

HEAD = b"HTTP/1.1 200 OK\r\n"
Respond = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def neighbour(respond: Respond, **settings: Any) -> AsyncGenerator[tuple[Any, list[bytes]]]:
    """A client of a neighbour that serves each connection by `respond`, and the heads of the requests that have arrived."""
    heads: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            await respond(writer)
        writer.close()

    port = embedded.free_port()
    url = {"customers_url": f"http://127.0.0.1:{port}"}
    known = Settings.model_validate({"database_url": "postgresql://x/y", **url, **settings})
    async with await asyncio.start_server(talk, "127.0.0.1", port), known.client_for("customers") as client:
        yield client, heads


class Settings(NeighbourSettings):
    customers_url: str


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Content-Length: 2000\r\n\r\n")
    for _ in range(2000):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def say_nothing(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close the connection without an answer."""


async def send_endlessly(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Connection: close\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def send_more_than_announced(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(100):
        writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        await writer.drain()
    writer.write(b"0\r\n\r\n")


async def announce_ten_gigabytes(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Content-Length: 10000000000\r\n\r\n" + b"x" * 1000)
    await writer.drain()
    await asyncio.sleep(60)


async def send_headers_endlessly(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    while True:
        writer.write(b"X-Filler: " + b"x" * 8000 + b"\r\n")
        await writer.drain()


async def send_garbage(writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x16\x03\x01 this is TLS\r\n\r\n")


async def send_a_long_status(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 " + b"\xff" * 20_000 + b"\x00\r\n\r\n")


@pytest.mark.parametrize("respond", [drip, say_nothing])
async def test_a_slow_neighbour_costs_no_more_than_the_limit(respond: Respond) -> None:
    async with neighbour(respond, neighbour_timeout_seconds=2) as (customers, heads):
        began = time.monotonic()
        with pytest.raises(NeighbourTimeout):
            await customers.get("/v1/customers")
        assert time.monotonic() - began < 15
    assert len(heads) == 1


@pytest.mark.parametrize(
    ("respond", "reason", "calls"),
    [
        (hang_up, "RemoteProtocolError", 3),
        (send_endlessly, "its answer has more than 1000000 bytes", 1),
        (send_more_than_announced, "its answer has more than 1000000 bytes", 1),
        (announce_ten_gigabytes, "its answer has more than 1000000 bytes", 1),
        (send_headers_endlessly, "RemoteProtocolError", 3),
        (send_garbage, "RemoteProtocolError", 3),
        (send_a_long_status, "RemoteProtocolError", 3),
    ],
)
async def test_a_hostile_answer_is_a_failure_of_the_neighbour(respond: Respond, reason: str, calls: int) -> None:
    limits = {"neighbour_max_answer_bytes": 10**6, "neighbour_timeout_seconds": 30}
    async with neighbour(respond, **limits) as (customers, heads):
        with pytest.raises(NeighbourUnavailable, match=reason) as failure:
            await customers.get("/v1/customers")
        assert not isinstance(failure.value, NeighbourTimeout)
        assert len(str(failure.value)) < 500
    assert len(heads) == calls


async def test_a_post_that_may_have_arrived_is_sent_once_over_a_real_connection() -> None:
    async with neighbour(hang_up) as (customers, heads):
        with pytest.raises(NeighbourUnavailable):
            await customers.post("/v1/customers", json={"name": "Ada"})
    assert len(heads) == 1


async def test_a_neighbour_that_comes_back_is_called_again() -> None:
    settings = Settings.model_validate(
        {"database_url": "postgresql://x/y", "customers_url": f"http://127.0.0.1:{embedded.free_port()}"}
    )
    async with settings.client_for("customers") as customers:
        with pytest.raises(NeighbourUnavailable, match="ConnectError"):
            await customers.post("/v1/customers", json={})

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD + b"Content-Length: 2\r\n\r\n{}")

        port = int(settings.customers_url.rpartition(":")[2])
        async with await asyncio.start_server(answer, "127.0.0.1", port):
            assert (await customers.get("/v1/customers")).json() == {}
