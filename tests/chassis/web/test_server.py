"""The real process, stopped while it works: each client that sent a request in time gets its answer."""

import asyncio
import gc
import http.client
import signal
import socket
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import AsyncGenerator, Iterable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import httpx2
import pytest
from chassis.web.packet_transport import PacketTransport
from chassis.web.server import spare_collector

from tests.chassis.processes import EXIT_TIMEOUT_SECONDS, Running, Start, environment
from tests.support.link import Link
from tests.support.paths import ROOT
from tests.support.waiting import until

pytestmark = pytest.mark.slow  # each starts a process of its own

ASLEEP = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
CONNECTING_SECONDS = 1.5
"""A client on a busy machine may take this long from the decision to send to the connection."""


@dataclass
class Load:
    """Clients that send one request after another until the server refuses to connect."""

    base: str
    sent: list[tuple[float, httpx2.Response | Exception]] = field(default_factory=list)
    """The start of each request, and its result."""

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        self._stop = asyncio.Event()
        keeping = [asyncio.create_task(self._keep_alive()) for _ in range(2)]
        renewing = [asyncio.create_task(self._renew()) for _ in range(2)]
        try:
            yield
        finally:
            self._stop.set()
            await asyncio.gather(*keeping, *renewing)

    def outcomes(self, begin: float, end: float) -> list[httpx2.Response | Exception]:
        return [outcome for began, outcome in self.sent if begin <= began < end]

    async def _keep_alive(self) -> None:
        async with httpx2.AsyncClient(base_url=self.base) as client:
            while not self._stop.is_set():
                await self._one(client)

    async def _renew(self) -> None:
        while not self._stop.is_set():
            async with httpx2.AsyncClient(base_url=self.base) as client:
                await self._one(client)

    async def _one(self, client: httpx2.AsyncClient) -> None:
        began = time.monotonic()
        try:
            self.sent.append((began, await client.get("/v1/things")))
        except httpx2.TransportError as error:
            self.sent.append((began, error))
        await asyncio.sleep(0.02)


async def ended(service: Running) -> int:
    return await asyncio.to_thread(service.wait)


async def test_under_load_every_request_sent_before_the_end_of_the_drain_is_answered(
    start: Start, connection: asyncpg.Connection
) -> None:
    drain = 4
    service = start(DRAIN_SECONDS=drain, SHUTDOWN_TIMEOUT_SECONDS=60)
    load = Load(service.base)
    async with httpx2.AsyncClient(base_url=service.base) as client, load.running():
        await until(lambda: load.sent)
        slow = asyncio.create_task(client.get("/v1/query-sleep", params={"seconds": drain + 1}, timeout=90))
        await until(lambda: connection.fetchval(ASLEEP))

        stopped_at = time.monotonic()
        service.tell(signal.SIGTERM)
        await asyncio.to_thread(service.wait_for, event="drain_started")
        ready, alive = await client.get("/readyz"), await client.get("/livez")
        code = await ended(service)
        took = time.monotonic() - stopped_at

    assert (ready.status_code, ready.json()["server"], alive.status_code) == (503, "draining", 200)
    last = stopped_at + drain - CONNECTING_SECONDS
    in_drain = load.outcomes(stopped_at, last)
    # How many requests there were depends on the machine, but some were sent in each half of the drain.
    assert load.outcomes(stopped_at, (stopped_at + last) / 2)
    assert load.outcomes((stopped_at + last) / 2, last)
    assert [outcome for outcome in load.outcomes(0, last) if not isinstance(outcome, httpx2.Response)] == []
    assert {outcome.status_code for outcome in in_drain if isinstance(outcome, httpx2.Response)} == {200}
    assert slow.result().status_code == 200
    assert code == 0
    assert took > drain


async def test_a_socket_of_the_parent_process_answers_requests_that_came_while_no_process_ran(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        first = start(listener=listener)
        first.tell()
        assert await ended(first) == 0

        async with httpx2.AsyncClient(base_url=first.base, timeout=EXIT_TIMEOUT_SECONDS) as client:
            waiting = asyncio.create_task(client.get("/v1/things"))
            start(listener=listener)
            assert (await waiting).status_code == 200


async def test_requests_sent_before_the_end_of_the_drain_are_answered_though_the_server_reads_late(
    start: Start,
) -> None:
    drain = 5  # seconds: enough for a busy machine to stop the server before the drain is over
    service = start(DRAIN_SECONDS=drain)
    host, _, port = service.base.removeprefix("http://").partition(":")
    request = b"GET /v1/things HTTP/1.1\r\nHost: tiny\r\n\r\n"
    with ExitStack() as stack:

        def connect() -> socket.socket:
            return stack.enter_context(socket.create_connection((host, int(port)), timeout=EXIT_TIMEOUT_SECONDS))

        kept_alive, unused = connect(), connect()
        kept_alive.sendall(request)
        assert status_of_answer(kept_alive) == (200, False)
        service.tell(signal.SIGTERM)
        await asyncio.to_thread(service.wait_for, event="drain_started")

        service.tell(signal.SIGSTOP)  # as if the machine had no time for the server
        connections = [kept_alive, unused, *(connect() for _ in range(20))]
        for connection in connections:
            connection.sendall(request)
        await asyncio.sleep(drain + 1)
        service.tell(signal.SIGCONT)

        assert [status_of_answer(connection) for connection in connections] == [(200, True)] * len(connections)
    assert await ended(service) == 0


async def test_a_head_that_arrives_in_part_before_the_end_is_awaited_and_answered(start: Start) -> None:
    service = start()
    host, _, port = service.base.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=EXIT_TIMEOUT_SECONDS) as connection:
        connection.sendall(b"GET /v1/things HTTP/1.1\r\n")
        service.tell(signal.SIGTERM)
        await asyncio.to_thread(service.wait_for, event="drain_ended")
        await asyncio.sleep(0.5)  # Uvicorn checks ten times a second whether it has to stop
        connection.sendall(b"Host: tiny\r\n\r\n")
        assert status_of_answer(connection) == (200, True)
    assert await ended(service) == 0


def status_of_answer(connection: socket.socket) -> tuple[int, bool]:
    """Return the status of the answer, and whether its headers close the connection."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    answer.read()
    return answer.status, answer.will_close


async def test_a_second_signal_ends_the_drain_and_running_requests_still_finish(start: Start) -> None:
    service = start(DRAIN_SECONDS=10 * EXIT_TIMEOUT_SECONDS)
    async with httpx2.AsyncClient(base_url=service.base) as client, httpx2.AsyncClient(base_url=service.base) as idle:
        await idle.get("/v1/things")  # its connection stays open, and must not delay the end
        slow = asyncio.create_task(client.get("/v1/sleep", params={"seconds": 1}))
        before = await client.get("/v1/things")
        service.tell(signal.SIGTERM)
        await asyncio.to_thread(service.wait_for, event="drain_started")
        during = await client.get("/v1/things")

        service.tell(signal.SIGTERM)
        code = await ended(service)

    assert "connection" not in before.headers
    # so that the client connects to another replica
    assert (during.status_code, during.headers["connection"]) == (200, "close")
    assert (await slow).status_code == 200
    assert code == 0


async def test_neither_endless_requests_nor_a_hung_database_hold_up_the_end(start: Start, link: Link) -> None:
    service = start(SHUTDOWN_TIMEOUT_SECONDS=1, DATABASE_URL=link.url)
    async with httpx2.AsyncClient(base_url=service.base, timeout=2 * EXIT_TIMEOUT_SECONDS) as client:
        await client.get("/v1/things")
        link.freeze()
        stuck = asyncio.create_task(client.get("/v1/things"))
        assert await asyncio.to_thread(link.holding.wait, 60)
        endless = asyncio.create_task(client.get("/v1/sleep", params={"seconds": 10 * EXIT_TIMEOUT_SECONDS}))
        await asyncio.to_thread(service.wait_for, event="sleep_began")
        began = time.monotonic()
        service.tell(signal.SIGINT)  # as Ctrl-C does

        assert await ended(service) == 0
        assert [(await each).status_code for each in (stuck, endless)] == [500, 500]

    assert time.monotonic() - began >= 1


async def is_ready(client: httpx2.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("command", ["serve", "work"])
async def test_an_idle_process_stops_in_time_while_database_and_broker_hang(
    start: Start, link: Link, command: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker:  # this broker accepts connections, and never sends a byte
        service = start(
            "-m",
            "tests.chassis.tiny_process",
            command,
            SHUTDOWN_TIMEOUT_SECONDS=1,
            DATABASE_URL=link.url,
            BROKER_URL=f"nats://127.0.0.1:{broker.getsockname()[1]}",
            RUN_WORKER=command == "serve",
        )
        async with httpx2.AsyncClient(base_url=service.base, timeout=60) as client:
            await until(lambda: is_ready(client))
        link.freeze()
        assert await asyncio.to_thread(link.holding.wait, 60)  # the gauges have sent a query, and get no answer
        began = time.monotonic()
        service.tell()

        assert await ended(service) == 0
        assert time.monotonic() - began < 25


BLOCKED = """
import time
from chassis.web import server
from tests.chassis.tiny.main import create_app

server.CLOSE_SECONDS = 1
app = create_app()

@app.get("/block")
async def block() -> None:
    print('{"event": "blocked"}', flush=True)
    time.sleep(600)

server.serve(app)
"""


def test_a_process_that_hangs_ends_by_itself_and_says_where(start: Start) -> None:
    service = start("-c", BLOCKED, SHUTDOWN_TIMEOUT_SECONDS=1)
    host, _, port = service.base.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"GET /block HTTP/1.1\r\nHost: tiny\r\n\r\n")
        service.wait_for(event="blocked")
        service.tell()

        assert service.wait() == 1

    assert "in block" in service.output.read_text()


def test_a_taken_port_is_an_error_that_names_the_port_and_the_setting(database_url: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = subprocess.run(
            [sys.executable, "-m", "tests.chassis.tiny", "serve"],
            env=environment(DATABASE_URL=database_url, HTTP_PORT=port),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )

    assert result.returncode == 1
    assert "address already in use" in result.stdout
    assert f"127.0.0.1:{port}" in result.stdout
    assert "set HTTP_PORT to a free port" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


class Wire:
    """A transport that records the data of each write."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.closed_after: int | None = None

    def write(self, data: bytes) -> None:
        self.pieces.append(data)

    def writelines(self, data: Iterable[bytes]) -> None:
        self.pieces.append(b"".join(data))

    def close(self) -> None:
        self.closed_after = len(self.pieces)

    def get_write_buffer_size(self) -> int:
        return 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the packets of a connection")
def test_an_answer_is_one_packet(start: Start) -> None:
    service = start()
    host, _, port = service.base.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        for asked in (1, 2, 3):
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: tiny\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(65536)
            # tcpi_data_segs_in of struct tcp_info in linux/tcp.h
            (packets,) = struct.unpack_from("I", connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 152)
            assert packets == asked, answer


async def test_head_and_body_are_sent_in_one_piece() -> None:
    wire = Wire()
    transport = PacketTransport(wire, asyncio.get_running_loop())

    for _ in range(2):  # as on a connection with two requests
        transport.write(b"head ")
        transport.write(b"body")
    transport.write(b"")  # as Uvicorn ends a response without a body

    await asyncio.sleep(0)
    assert wire.pieces == [b"head body", b"head body"]


async def test_a_head_does_not_wait_for_a_body_and_a_close_waits_for_both() -> None:
    wire = Wire()
    transport = PacketTransport(wire, asyncio.get_running_loop())

    transport.write(b"head")
    await asyncio.sleep(0)
    assert wire.pieces == [b"head"]

    transport.write(b"body")
    transport.close()
    assert (wire.pieces, wire.closed_after) == ([b"head", b"body"], 2)


async def test_the_head_of_a_streamed_answer_comes_before_its_body(start: Start) -> None:
    service = start()
    async with httpx2.AsyncClient(base_url=service.base, timeout=60) as client:
        async with client.stream("GET", "/v1/late-body", params={"seconds": 60}) as answer:
            assert answer.status_code == 200
        whole = await client.get("/v1/late-body", params={"seconds": 0})

    assert whole.text == "here it is"


def test_objects_of_the_start_are_not_scanned_and_cycles_are_still_collected() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me = self

    before = gc.get_threshold()
    try:
        spare_collector()
        assert gc.get_freeze_count() > 0
        left = weakref.ref(Cycle())
        assert left() is not None
        kept = [[] for _ in range(2 * gc.get_threshold()[0])]
        assert left() is None, f"{len(kept)} containers later, nobody had looked"
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def test_the_handshake_of_a_websocket_is_a_request_like_any_other(start: Start) -> None:
    service = start()
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    with httpx2.Client(base_url=service.base) as client:
        refused = client.get("/v1/live", headers=handshake)
        assert (refused.status_code, refused.json()["code"]) == (404, "route_not_found")
        assert client.get("/livez").status_code == 200
