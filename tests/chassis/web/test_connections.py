"""The limits of a connection, on real sockets: the amount and the speed of a client's bytes, and the order of answers."""

import asyncio
import gc
import re
import shutil
import subprocess
import sys
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from chassis.web import connections
from chassis.web.shared_limits import SharedLimits
from fastapi import FastAPI, Response
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.chassis.sockets import listening
from tests.support.waiting import until

MAX_BODY_BYTES = 256 * 1024
PATHS = ["/livez", "/v1/things", "/v1/bytes", "/nowhere"]
PADDING = b"b" * 65536
LIMIT_SECONDS = 60
LARGE = 400_000


@pytest.fixture
def shared() -> SharedLimits:
    return SharedLimits(max_connections=1000)


@pytest.fixture
async def client(make_app: Callable[..., FastAPI], shared: SharedLimits) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of a service with a route whose answer is larger than a connection's buffers."""
    app = make_app(max_body_bytes=MAX_BODY_BYTES)

    @app.get("/large")
    async def large() -> Response:
        return Response(b"x" * LARGE)

    async with listening(app, shared_limits=shared) as client:
        yield client


class Wire:
    """A plain connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        """Read the status and the body of the next answer. Status 0 means that the server closed the connection."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0, b""
        length = re.search(rb"(?i)content-length: (\d+)", head)
        assert length is not None, head
        return int(head.split()[1]), await self.reader.readexactly(int(length[1]))

    async def closed(self) -> bool:
        """Wait until the server has closed the connection. Returns False if the server sends something."""
        with suppress(ConnectionError):
            return await self.reader.read() == b""
        return True

    async def send_until_closed(self, piece: bytes, *, at_most: int) -> int:
        """Send the piece repeatedly. Returns the number of sent bytes before the server closed the connection."""
        sent = 0
        with suppress(ConnectionError):
            while sent < at_most and not self.writer.is_closing():
                self.writer.write(piece)
                await self.writer.drain()
                sent += len(piece)
                await asyncio.sleep(0)
        return sent


@asynccontextmanager
async def wire(client: httpx2.AsyncClient) -> AsyncGenerator[Wire]:
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            yield Wire(reader, writer)
    finally:
        writer.close()


def head(method: str, path: str, *fields: str, host: str = "Host: tiny") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *([host] if host else []), *fields, "", ""]
    return "\r\n".join(lines).encode()


def post(body: bytes) -> bytes:
    return head("POST", "/v1/bytes", f"Content-Length: {len(body)}") + body


ENDLESS = {
    "trailer value": (b"0\r\nx: ", PADDING),
    "trailers": (b"0\r\n", b"x: y\r\n" * 10_000),
    "trailer name": (b"0\r\n", PADDING),
    "chunk extension": (b"1;", PADDING),
    "extension of the last chunk": (b"0;", PADDING),
    "chunk size": (b"", b"0" * 65536),
    "extensions of small chunks": (b"", b"1;" + PADDING + b"\r\nx\r\n"),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("begin", "endless"), ENDLESS.values(), ids=ENDLESS)
async def test_the_framing_of_a_body_is_bounded(
    client: httpx2.AsyncClient, path: str, begin: bytes, endless: bytes
) -> None:
    async with wire(client) as attack:
        await attack.send(head("POST", path, "Transfer-Encoding: chunked") + begin)
        sent = await attack.send_until_closed(endless, at_most=64 * 1024 * 1024)
        assert sent < 16 * 1024 * 1024  # most of these bytes are still in the kernel's buffers
    assert (await client.get("/livez")).status_code == 200


@pytest.mark.parametrize("path", PATHS)
async def test_a_trailer_without_end_is_answered_with_400(client: httpx2.AsyncClient, path: str) -> None:
    async with wire(client) as attack:
        await attack.send(head("GET", path, "Transfer-Encoding: chunked"), b"0\r\n", b"x: " + b"b" * 20_000)
        assert (await attack.answer())[0] == 400
        assert await attack.closed()


async def test_a_trailer_does_not_become_a_header(client: httpx2.AsyncClient) -> None:
    async with wire(client) as sender:
        trailer = b"X-Request-ID: from-the-trailer\r\n\r\n"
        await sender.send(head("POST", "/v1/bytes", "Transfer-Encoding: chunked") + b"2\r\nab\r\n0\r\n" + trailer)
        answer = await sender.reader.readuntil(b"\r\n\r\n2")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"from-the-trailer" not in answer


async def test_a_body_in_chunks_of_one_byte_is_taken(client: httpx2.AsyncClient) -> None:
    async with wire(client) as sender:
        size = 20_000
        await sender.send(head("POST", "/v1/bytes", "Transfer-Encoding: chunked"), b"1\r\nx\r\n" * size, b"0\r\n\r\n")
        assert await sender.answer() == (200, b"20000")


async def test_bodies_in_tiny_chunks_are_parsed_in_turns(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected, chunks, parsed = 20, 10_000, 0

    def count(self: HttpToolsProtocol, body: bytes) -> None:
        nonlocal parsed
        parsed += 1
        on_body(self, body)

    on_body = HttpToolsProtocol.on_body
    monkeypatch.setattr(HttpToolsProtocol, "on_body", count)
    async with AsyncExitStack() as stack:
        senders = [await stack.enter_async_context(wire(client)) for _ in range(connected)]
        for sender in senders:
            await sender.send(head("POST", "/v1/bytes", "Transfer-Encoding: chunked"))
        for sender in senders:  # all within one iteration of the event loop
            sender.writer.write(b"1\r\nx\r\n" * chunks + b"0\r\n\r\n")
        most = 0
        while parsed < connected * chunks:
            before = parsed
            await asyncio.sleep(0)
            most = max(most, parsed - before)
        assert [await sender.answer() for sender in senders] == [(200, b"%d" % chunks)] * connected
    at_once = connections.CHUNKS_AT_ONCE + connections.PIECE_BYTES / len(b"1\r\nx\r\n") + 1
    assert most <= at_once * (connected + 1)


async def test_chunks_of_other_connections_are_parsed_after_an_error_of_ours(
    make_app: Callable[..., FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = 0

    def fail_once(self: connections.Protocol) -> None:
        nonlocal failures
        failures += 1
        if failures == 1:
            raise RuntimeError("a fault of ours")
        continue_parsing(self)

    continue_parsing = connections.Protocol.continue_parsing
    monkeypatch.setattr(connections.Protocol, "continue_parsing", fail_once)
    size = connections.PIECE_BYTES
    body = b"1\r\nx\r\n" * size + b"0\r\n\r\n"
    app = make_app(request_timeout_seconds=2)  # the first request ends by this limit, because nothing reads its body
    async with listening(app) as client, wire(client) as first, wire(client) as second:
        await first.send(head("POST", "/v1/bytes", "Transfer-Encoding: chunked") + body)
        await until(lambda: failures)
        await second.send(head("POST", "/v1/bytes", "Transfer-Encoding: chunked") + body)
        assert await second.answer() == (200, b"%d" % size)


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
async def test_line_ends_do_not_wait_unparsed(make_app: Callable[..., FastAPI], line_end: bytes) -> None:
    shared = SharedLimits(max_connections=10)
    async with (
        listening(make_app(max_body_bytes=MAX_BODY_BYTES), shared_limits=shared) as client,
        wire(client) as sender,
    ):
        size = 100_000
        await sender.send(head("POST", "/v1/bytes", "Transfer-Encoding: chunked") + b"%x\r\n" % size)
        await sender.send(line_end * (size // len(line_end)))
        await asyncio.sleep(0.1)
        await until(lambda: shared.held_bytes < len(b"\r\n\r\n"))
        await sender.send(b"\r\n0\r\n\r\n")
        assert await sender.answer() == (200, b"%d" % size)


async def test_a_chunked_body_may_come_in_any_pieces(client: httpx2.AsyncClient) -> None:
    body = b"a\r\n\r\nb\r\n"
    request = head("POST", "/v1/bytes", "Transfer-Encoding: chunked") + b"8;a=b\r\n" + body + b"\r\n0\r\nx: y\r\n\r\n"
    async with wire(client) as sender:
        for cut in range(1, len(request)):
            await sender.send(request[:cut])
            await asyncio.sleep(0)
            await sender.send(request[cut:] + head("GET", "/livez"))
            assert await sender.answer() == (200, b"8"), request[:cut]
            assert (await sender.answer())[0] == 200, request[:cut]


async def test_a_head_is_bounded_in_one_piece_too(client: httpx2.AsyncClient) -> None:
    for fields in (["X: " + "x" * 70_000], ["X: y"] * (connections.MAX_HEAD_FIELDS + 1)):
        async with wire(client) as attack:
            await attack.send(head("GET", "/livez", *fields))
            assert (await attack.answer())[0] == 400
            assert await attack.closed()


@pytest.mark.parametrize("begin", [b"GET /", b"\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n", b"G", b"GET / HTTP/1.1\r\nX:"])
@pytest.mark.parametrize("endless", [b"x" * 1000, b"\r\n" * 500, b"x: y\r\n" * 200])
async def test_an_endless_head_is_refused(client: httpx2.AsyncClient, begin: bytes, endless: bytes) -> None:
    async with wire(client) as attack:
        await attack.send(begin)
        await attack.send_until_closed(endless, at_most=64 * 1024 * 1024)
        status, _ = await attack.answer()
        assert status in (0, 400)  # 0: the server reset the connection while the test was sending
        assert await attack.closed()


async def test_the_bytes_of_a_body_do_not_count_as_a_head(client: httpx2.AsyncClient) -> None:
    async with wire(client) as sender:
        next_head = head("GET", "/livez")
        await sender.send(post(b"x" * 90_000) + next_head[:10])
        assert await sender.answer() == (200, b"90000")
        await sender.send(next_head[10:])
        assert (await sender.answer())[0] == 200


async def test_requests_sent_ahead_are_answered_in_order(client: httpx2.AsyncClient) -> None:
    async with wire(client) as sender:
        sizes = [number * 7 % 300 for number in range(300)]
        sending = asyncio.create_task(sender.send(b"".join(post(b"\r\n" * (size // 2)) for size in sizes)))
        assert [await sender.answer() for _ in sizes] == [(200, b"%d" % (size // 2 * 2)) for size in sizes]
        await sending


async def test_a_bad_request_is_refused_after_the_answers_to_earlier_requests(client: httpx2.AsyncClient) -> None:
    async with wire(client) as sender:
        await sender.send(head("GET", "/v1/sleep?seconds=0.2") + post(b"abc") + b"no request at all\r\n\r\n")
        assert [(await sender.answer())[0] for _ in range(3)] == [200, 200, 400]
        assert await sender.closed()


async def test_a_request_with_a_broken_body_is_not_run(make_app: Callable[..., FastAPI]) -> None:
    app, ran = make_app(), []

    @app.post("/run")
    async def run() -> None:
        ran.append(True)

    async with listening(app) as client:
        for encoding, body in (("chunked", b"no size\r\n"), ("gzip", b"x"), ("gzip, chunked", b"0\r\n\r\n")):
            async with wire(client) as sender:
                await sender.send(head("POST", "/run", f"Transfer-Encoding: {encoding}") + body)
                assert (await sender.answer())[0] == 400
                assert await sender.closed()
    assert ran == []


@pytest.mark.slow
async def test_thousands_of_requests_sent_ahead_are_all_answered(client: httpx2.AsyncClient) -> None:
    count = 3 * sys.getrecursionlimit()
    async with wire(client) as sender:
        sending = asyncio.create_task(sender.send(head("GET", "/livez") * count))
        for _ in range(count):
            assert (await sender.answer())[0] == 200
        await sending


OFFER = [
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
]


@pytest.mark.parametrize("cut", [10, 120, 200, 250])
async def test_an_offer_of_another_protocol_is_ignored(client: httpx2.AsyncClient, cut: int) -> None:
    for offer in (OFFER, ["connection: keep-alive, upgrade", "UPGRADE: websocket"]):
        async with wire(client) as sender:
            request = head("POST", "/v1/bytes", *offer, "Content-Length: 90") + b"x" * 90
            await sender.send(request[:cut])
            await asyncio.sleep(0.02)
            await sender.send(request[cut:] + post(b"abc"))
            assert await sender.answer() == (200, b"90")
            assert await sender.answer() == (200, b"3")


async def test_make_dev_ignores_an_offer_of_another_protocol_too(make_app: Callable[..., FastAPI]) -> None:
    async with listening(make_app(), http="chassis.dev.http_protocol:Protocol") as client, wire(client) as sender:
        await sender.send(head("POST", "/v1/bytes", *OFFER, "Content-Length: 3") + b"abc" + post(b"defg"))
        assert await sender.answer() == (200, b"3")
        assert await sender.answer() == (200, b"4")


async def test_an_offer_with_a_chunked_body_is_ignored(client: httpx2.AsyncClient) -> None:
    async with wire(client) as sender:
        await sender.send(head("POST", "/v1/bytes", *OFFER, "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n")
        assert await sender.answer() == (200, b"3")


async def test_connect_is_refused(client: httpx2.AsyncClient) -> None:
    async with wire(client) as sender:
        await sender.send(head("CONNECT", "example.com:443"))
        assert (await sender.answer())[0] == 400
        assert await sender.closed()


JAVA = """
import java.net.URI;
import java.net.http.*;

class Post {
    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newHttpClient();
        for (var body : new String[] {"{\\"name\\": \\"lamp\\"}", "{\\"name\\": \\"desk\\"}"}) {
            var request = HttpRequest.newBuilder(URI.create(arguments[0]))
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(body)).build();
            System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode());
        }
    }
}
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java here")
async def test_the_http_client_of_java_can_post(client: httpx2.AsyncClient, tmp_path: Path) -> None:
    program = tmp_path / "Post.java"
    program.write_text(JAVA)
    command = ["java", str(program), f"{client.base_url}/v1/things"]
    ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=120)
    assert ran.stdout.split() == ["201", "201"], ran.stderr


HOSTS = [
    ("HTTP/1.1", [], 400),
    ("HTTP/1.1", ["Host: a", "Host: a"], 400),
    ("HTTP/1.1", ["Host: a", "host: b"], 400),
    ("HTTP/1.1", ["Host: a b"], 400),
    ("HTTP/1.1", ["Host: a/b@c"], 400),
    ("HTTP/1.1", ["Host:"], 200),
    ("HTTP/1.1", ["Host: [::1]:8000"], 200),
    ("HTTP/1.0", [], 200),
    ("HTTP/1.0", ["Host: a", "Host: b"], 400),
]


@pytest.mark.parametrize(("version", "hosts", "status"), HOSTS)
async def test_a_request_has_one_host(client: httpx2.AsyncClient, version: str, hosts: list[str], status: int) -> None:
    async with wire(client) as sender:
        await sender.send("\r\n".join((f"GET /livez {version}", *hosts, "", "")).encode())
        answered, body = await sender.answer()
    assert answered == status
    if status == 400:
        assert b"Host" in body


@pytest.mark.parametrize("version", ["HTTP/2.0", "HTTP/0.9", ""])
async def test_a_request_is_of_a_version_that_is_spoken_here(client: httpx2.AsyncClient, version: str) -> None:
    async with wire(client) as sender:
        await sender.send(f"GET /livez {version}".strip().encode() + b"\r\nHost: tiny\r\n\r\n")
        assert (await sender.answer())[0] == 400
        assert await sender.closed()


async def test_a_body_is_asked_for_only_if_the_client_expects_that_and_the_route_reads_a_body(
    make_app: Callable[..., FastAPI],
) -> None:
    expect, length = "Expect: 100-continue", "Content-Length: 3"
    app = make_app(max_body_bytes=MAX_BODY_BYTES, max_concurrent_requests=1)
    begun, ended = asyncio.Event(), asyncio.Event()

    @app.get("/hold")
    async def hold() -> None:
        begun.set()
        await ended.wait()

    async with listening(app) as client:
        for request, asked in (
            (head("POST", "/v1/bytes", expect, length), True),
            (head("POST", "/v1/bytes", expect, "Transfer-Encoding: chunked"), True),
            (head("POST", "/v1/bytes", expect, length).replace(b"HTTP/1.1", b"HTTP/1.0") + b"abc", False),
            (head("POST", "/v1/bytes", expect, "Content-Length: 0"), False),
            (head("GET", "/livez", expect), False),
            (head("POST", "/v1/bytes", expect, f"Content-Length: {MAX_BODY_BYTES + 1}"), False),
        ):
            async with wire(client) as sender:
                await sender.send(request)
                assert (b" 100 " in await sender.reader.readline()) == asked, request
        async with wire(client) as busy, wire(client) as sender:
            await busy.send(head("GET", "/hold"))
            await begun.wait()
            await sender.send(head("POST", "/v1/bytes", expect, length))
            assert (await sender.answer())[0] == 503
            ended.set()


async def test_no_request_is_taken_for_the_body_that_an_expectation_announced(client: httpx2.AsyncClient) -> None:
    async with wire(client) as sender:
        expecting = head("POST", "/v1/bytes", "Expect: 100-continue", f"Content-Length: {MAX_BODY_BYTES + 1}")
        await sender.send(expecting)
        assert (await sender.answer())[0] == 413
        assert await sender.closed()


@pytest.mark.slow
@pytest.mark.parametrize("body", [b"x" * 10, b"5\r\nhello\r\n"], ids=["never ends", "comes in chunks"])
async def test_a_body_that_nobody_reads_has_an_end(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.3)
    framing = "Transfer-Encoding: chunked" if b"\r\n" in body else f"Content-Length: {2 * MAX_BODY_BYTES}"
    async with wire(client) as sender:
        await sender.send(head("POST", "/v1/bytes", framing))
        async with asyncio.timeout(LIMIT_SECONDS):
            with suppress(ConnectionError):
                while not sender.reader.at_eof():
                    await sender.send(body if b"\r\n" not in body else body * 10_000)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(sender.reader.read(1000), 0.05)


async def test_a_request_follows_a_body_that_nobody_read(client: httpx2.AsyncClient) -> None:
    async with wire(client) as sender:
        body = b"x" * (MAX_BODY_BYTES + 1)
        await sender.send(head("POST", "/v1/bytes", f"Content-Length: {len(body)}"))
        assert (await sender.answer())[0] == 413
        await sender.send(body + post(b"abc"))
        assert await sender.answer() == (200, b"3")


HEAD = b" HTTP/1.1\r\nhost: x\r\n"
POST = b"POST /slow" + HEAD + b"content-length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        pytest.param(POST, 1, id="one-request"),
        pytest.param(POST * 3, 3, id="requests-sent-ahead"),
        pytest.param(POST[:-1], 0, id="body-that-lacks-a-byte"),
        pytest.param(POST[:-4], 0, id="head-that-lacks-its-end"),
        pytest.param(b"", 0, id="nothing"),
    ],
)
async def test_a_client_that_will_send_no_more_gets_the_answers_to_its_complete_requests(
    make_app: Callable[..., FastAPI], sent: bytes, answers: int
) -> None:
    app = make_app()

    @app.post("/slow")
    async def slow() -> None:
        await asyncio.sleep(0.1)  # otherwise the answer would be sent before the end of the stream is read

    async with listening(app) as client, wire(client) as one:
        await one.send(sent)
        one.writer.write_eof()
        assert [(await one.answer())[0] for _ in range(answers)] == [200] * answers
        assert await one.closed()


async def test_a_new_connection_has_time_for_its_first_request_when_the_server_stops(
    make_app: Callable[..., FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[connections.Protocol] = []

    def http(**options: Any) -> connections.Protocol:
        made.append(connections.Protocol(shared_limits=SharedLimits(max_connections=1000), **options))
        return made[-1]

    monkeypatch.setattr(connections, "FIRST_REQUEST_SECONDS", LIMIT_SECONDS)
    async with listening(make_app(), http=http) as client, wire(client) as used, wire(client) as new:
        await used.send(head("GET", "/livez"))
        assert (await used.answer())[0] == 200
        await until(lambda: len(made) == 2)
        for each in made:
            each.shutdown()
        assert await used.closed()
        await new.send(head("GET", "/livez"))
        assert (await new.answer())[0] == 200

        monkeypatch.setattr(connections, "FIRST_REQUEST_SECONDS", 0.1)
        async with wire(client) as silent:
            await until(lambda: len(made) == 3)
            made[2].shutdown()
            assert await silent.closed()


async def test_a_client_that_reads_no_answer_is_disconnected(
    client: httpx2.AsyncClient, shared: SharedLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "STALL_SECONDS", 0.3)
    count = 200
    async with wire(client) as sender:
        sender.writer.transport.pause_reading()  # ty: ignore[missing-attribute]
        await sender.send(head("GET", "/large") * count)
        await until(lambda: shared.held_bytes > 0)
        await until(lambda: shared.held_bytes == 0)  # nothing is kept for a client that was disconnected
        sender.writer.transport.resume_reading()  # ty: ignore[missing-attribute]
        with suppress(ConnectionError):
            assert len(await sender.reader.read()) < count * LARGE


async def test_a_client_that_reads_slowly_gets_every_answer(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "STALL_SECONDS", 1)
    count = 40
    async with wire(client) as sender:
        sending = asyncio.create_task(sender.send(head("GET", "/large") * count + post(b"abc")))
        for _ in range(count):
            await asyncio.sleep(0.05)
            assert len((await sender.answer())[1]) == LARGE
        assert await sender.answer() == (200, b"3")
        await sending


async def test_a_connection_too_many_replaces_the_connection_that_has_waited_longest(
    make_app: Callable[..., FastAPI],
) -> None:
    async with listening(make_app(), shared_limits=SharedLimits(max_connections=3)) as client, wire(client) as busy:
        await busy.send(head("GET", "/v1/sleep?seconds=1"))
        async with wire(client) as slow, wire(client) as idle:
            await slow.send(b"GET /")
            await asyncio.sleep(0.1)
            await idle.send(head("GET", "/livez"))
            assert (await idle.answer())[0] == 200
            async with wire(client) as late:
                await late.send(head("GET", "/livez"))
                assert (await late.answer())[0] == 200
                assert await slow.closed()
            assert (await busy.answer())[0] == 200


async def test_all_connections_together_hold_no_more_than_their_room(make_app: Callable[..., FastAPI]) -> None:
    shared = SharedLimits(max_connections=1000, max_held_bytes=100_000)
    async with listening(make_app(), shared_limits=shared) as client:
        async with wire(client) as first, wire(client) as second, wire(client) as third:
            for number, each in enumerate((first, second, third), 1):
                await each.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000)
                await until(lambda number=number: shared.held_bytes > min(number, 2) * 40_000)
            assert await first.closed()
            for each in (second, third):
                await each.send(b"\r\nHost: tiny\r\n\r\n")
                assert (await each.answer())[0] == 404
            assert shared.held_bytes == 0
            await second.send(head("GET", "/v1/sleep?seconds=1") + head("GET", "/livez"))
            await until(lambda: shared.held_bytes > 0)
        await until(lambda: shared.held_bytes == 0)


async def test_bodies_that_the_application_has_not_read_yet_count_too() -> None:
    shared, go, messages = (
        SharedLimits(max_connections=10, max_held_bytes=100_000),
        asyncio.Event(),
        asyncio.Queue[Message](),
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        messages.put_nowait(await receive())

    half = b"POST / HTTP/1.1\r\nHost: tiny\r\nContent-Length: 120000\r\n\r\n" + b"x" * 60_000
    async with (
        listening(app, shared_limits=shared, lifespan="off") as client,
        wire(client) as first,
        wire(client) as second,
    ):
        async with asyncio.timeout(LIMIT_SECONDS):
            await first.send(half)
            await until(lambda: shared.held_bytes >= 60_000)
            await second.send(half)
            assert await first.closed()
            go.set()
            cut, read = sorted([await messages.get(), await messages.get()], key=lambda each: each["type"])
    assert cut == {"type": "http.disconnect"}, "a body that was cut must not pass for a whole one"
    assert len(read["body"]) == 60_000
    assert shared.held_bytes == 0


async def test_a_body_that_nobody_read_is_not_kept_after_its_answer() -> None:
    shared = SharedLimits(max_connections=10)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.1)
        await Response()(scope, receive, send)

    async with listening(app, shared_limits=shared, lifespan="off") as client, wire(client) as sender:
        await sender.send(post(b"x" * 50_000))
        assert (await sender.answer())[0] == 200
        assert shared.held_bytes == 0


@pytest.mark.slow
async def test_connections_with_bodies_leave_nothing_for_the_garbage_collector(
    make_app: Callable[..., FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = weakref.WeakSet[connections.Protocol]()
    connection_made = connections.Protocol.connection_made

    def remember(self: connections.Protocol, transport: object) -> None:
        alive.add(self)
        connection_made(self, transport)

    monkeypatch.setattr(connections.Protocol, "connection_made", remember)
    async with listening(make_app(max_body_bytes=MAX_BODY_BYTES)) as client:
        gc.collect()
        gc.disable()
        try:
            for body in (b"x" * 50_000, b"x" * 10):
                async with wire(client) as answered, wire(client) as aborted:
                    await answered.send(post(body))
                    assert await answered.answer() == (200, b"%d" % len(body))
                    await aborted.send(post(body)[:-1])
                    await asyncio.sleep(0.1)
                    aborted.writer.transport.abort()
            await until(lambda: not alive)
        finally:
            gc.enable()
