"""A process with the memory of a pod survives all requests that a client without credentials can send."""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from tests.chassis.processes import Running, Start

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("memory")]

MEMORY_BYTES = 256 * 2**20
"""The limit in template/deploy/base/deployment.yaml.jinja."""

ATTACK_SECONDS = float(os.environ.get("ATTACK_SECONDS", "0.5"))
"""How long other clients ask during an attack: more than an endless attack needs to fill the memory. `make chaos` sets more."""
ANSWER_SECONDS = 100
"""How long an answer to another client may take on a busy machine."""

CAGED = """
import os, sys

with open(sys.argv[1], "w") as processes:
    processes.write(str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "tests.chassis.tiny", "serve"])
"""

KIB = b"x" * 1024


@contextmanager
def cage(memory_bytes: int) -> Generator[Path]:
    """A memory cgroup, of version 1 or 2. Skips the test if this user may not make a cgroup."""
    root = Path("/sys/fs/cgroup")
    version_1 = (root / "memory").is_dir()
    folder = (root / "memory" if version_1 else root) / f"slipway-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    try:
        try:
            (folder / ("memory.limit_in_bytes" if version_1 else "memory.max")).write_text(str(memory_bytes))
        except OSError as error:
            pytest.skip(f"no memory cgroup can be limited here: {error}")
        yield folder / "cgroup.procs"
    finally:
        deadline = time.monotonic() + 30
        while True:
            try:
                folder.rmdir()
                break
            except OSError:  # a process in the cgroup has not ended yet
                assert time.monotonic() < deadline, "the caged process does not end"
                time.sleep(0.1)


@pytest.fixture(scope="module")
def processes() -> Generator[Path]:
    """The cgroup that this module's processes enter."""
    with cage(MEMORY_BYTES) as processes:
        yield processes


@pytest.fixture(scope="module")
def running(processes: Path) -> Generator[list[Running]]:
    """The processes in the cgroup. They leave it before its removal."""
    running: list[Running] = []
    yield running
    for each in running:
        each.process.stop()


@pytest.fixture
def caged(start: Start, processes: Path, running: list[Running]) -> Running:
    """The tiny service in the cgroup, which sends its traces to a missing receiver. It is started again only after its end."""
    if not running or running[-1].process.child.poll() is not None:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "DRAIN_SECONDS": 0}
        running.append(start("-c", CAGED, str(processes), **settings))
    return running[-1]


class Attacker:
    """Connections to one server, each of which sends its bytes and stays open."""

    def __init__(self, service: Running) -> None:
        url = httpx2.URL(service.base)
        self.host, self.port = url.host, url.port
        self.writers: list[asyncio.StreamWriter] = []
        self.tasks: list[asyncio.Task[None]] = []

    def on(
        self, connections: int, send: Callable[[asyncio.StreamWriter], Awaitable[None]], *, read: bool = True
    ) -> None:
        self.tasks += [asyncio.create_task(self._attack(send, read)) for _ in range(connections)]

    async def _attack(self, send: Callable[[asyncio.StreamWriter], Awaitable[None]], read: bool) -> None:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(self.host, self.port, limit=1024)
            self.writers.append(writer)
            if read:
                self.tasks.append(asyncio.create_task(_drop(reader)))
            await send(writer)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for writer in self.writers:
            writer.transport.abort()


async def _drop(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(65536):
            pass


def head(method: str, path: str, *fields: str) -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: tiny", *fields, "", "")).encode()


def once(*pieces: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    async def send(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return send


def endless(begin: bytes, piece: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while True:
            writer.write(piece)
            await writer.drain()

    return send


def dripping(begin: bytes, piece: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.2)

    return send


def json_post(body: str) -> bytes:
    content = body.encode()
    return head("POST", "/v1/things", "Content-Type: application/json", f"Content-Length: {len(content)}") + content


def chunked(path: str) -> bytes:
    return head("POST", path, "Transfer-Encoding: chunked")


def sized(path: str, size: int, method: str = "POST") -> bytes:
    return head(method, path, f"Content-Length: {size}")


MIB = 2**20
MANY_FIELDS = "{" + ",".join(f'"{number:06}":0' for number in range(MIB // 11)) + "}"
AHEAD = head("GET", "/v1/things") * (300_000 // 40)

# For each attack: the number of connections, the bytes of one connection, and whether the attacker reads the answers.
ATTACKS = {
    "a trailer without end to a probe": (20, endless(head("GET", "/livez", "Transfer-Encoding: chunked") + b"0\r\nx: ", 64 * KIB), True),
    "trailers without end": (20, endless(chunked("/v1/bytes") + b"0\r\n", b"x: y\r\n" * 10_000), True),
    "an extension without end": (20, endless(chunked("/v1/bytes") + b"1;", 64 * KIB), True),
    "chunks of one byte": (10, endless(chunked("/v1/bytes"), b"1\r\nx\r\n" * 10_000), True),
    "a body without end to a probe": (20, endless(chunked("/livez"), b"10000\r\n" + 64 * KIB + b"\r\n"), True),
    "a body without end to no route": (20, endless(chunked("/nowhere"), b"10000\r\n" + 64 * KIB + b"\r\n"), True),
    "a request line without end": (50, endless(b"GET /", 64 * KIB), True),
    "a header without end": (50, endless(b"GET / HTTP/1.1\r\nx: ", 64 * KIB), True),
    "headers without end": (50, endless(b"GET / HTTP/1.1\r\n", b"x: y\r\n" * 10_000), True),
    "empty lines without end": (20, endless(b"", b"\r\n" * 32_768), True),
    "idle connections": (4000, once(b""), True),
    "half request lines": (2000, once(b"GET /" + 60 * KIB), True),
    "half heads of tiny headers": (2000, once(b"GET / HTTP/1.1\r\n" + b"x:y\r\n" * 199), True),
    "dripping heads": (2000, dripping(b"GET / HTTP/1.1\r\n", b"x: " + KIB + b"\r\n"), True),
    "small bodies that do not end": (2000, once(sized("/v1/bytes", MIB), 60 * KIB), True),
    "large bodies that do not end": (400, once(sized("/v1/bytes", MIB), KIB * 1023), True),
    "dripping bodies": (1000, dripping(chunked("/v1/bytes"), b"4000\r\n" + KIB * 16 + b"\r\n"), True),
    "bodies that are read as streams": (50, endless(chunked("/v1/upload"), b"10000\r\n" + 64 * KIB + b"\r\n"), True),
    "streams that do not end": (400, once(sized("/v1/upload", 2**30), KIB * 1023), True),
    "large bodies that wait": (400, once(sized("/v1/sleep?seconds=1", MIB, "GET"), KIB * 1024), True),
    "large bodies": (100, endless(b"", sized("/v1/bytes", MIB) + KIB * 1024), True),
    "requests sent ahead": (100, once(head("GET", "/v1/sleep?seconds=1") + AHEAD), True),
    "bodies sent ahead": (50, endless(b"", (sized("/v1/bytes", 30_000) + b"x" * 30_000) * 20), True),
    "answers that nobody reads": (150, once(AHEAD), False),  # one of more than 200 requests at once is answered with 503
    "large answers that nobody reads": (20, endless(b"", head("GET", "/openapi.json") * 50), False),
    "requests without end": (20, endless(b"", head("GET", "/livez") * 1000), True),
    "long paths": (20, endless(b"", head("GET", "/" + "x" * 60_000)), True),
    "long queries": (5, endless(b"", head("GET", "/v1/things?" + "a&" * 30_000)), True),
    "long trace states": (20, endless(b"", head("GET", "/v1/things", f"traceparent: 00-{'a' * 32}-{'b' * 16}-01", *(f"tracestate: {key}=" + "x" * 250 for key in range(190)))), True),
    "long cookies": (20, endless(b"", head("GET", "/v1/things", "Cookie: " + "a=b;" * 15_000)), True),
    "fields that nobody knows": (4, endless(b"", json_post(MANY_FIELDS)), True),
    "lists of lists": (4, endless(b"", json_post('{"name": [' + ",".join(["[]"] * (MIB // 3 - 10)) + "]}")), True),
    "deep lists": (10, endless(b"", json_post('{"name": ' + "[" * (MIB - 100))), True),
    "long numbers": (10, endless(b"", json_post('{"name": ' + "9" * (MIB - 100) + "}")), True),
    "long texts": (10, endless(b"", json_post(json.dumps({"name": "x" * (MIB - 100)}))), True),
    "offers of another protocol": (5, endless(b"", head("POST", "/v1/bytes", "Connection: Upgrade", "Upgrade: h2c", "Content-Length: 3") + b"abc"), True),
}  # fmt: skip


@pytest.mark.parametrize(("connections", "send", "read"), ATTACKS.values(), ids=ATTACKS)
async def test_no_request_ends_the_process_and_others_are_answered_meanwhile(
    caged: Running, connections: int, send: Callable[[asyncio.StreamWriter], Awaitable[None]], read: bool
) -> None:
    attacker = Attacker(caged)
    attacker.on(connections, send, read=read)
    try:
        answers = await _ask(caged, seconds=ATTACK_SECONDS)
    finally:
        await attacker.stop()
    assert caged.process.child.poll() is None, "the process has ended"
    assert answers == {200}
    assert await _ask(caged, seconds=0) == {200}
    print("peak MiB", _peak_mib(caged))  # noqa: T201


async def _ask(service: Running, *, seconds: float) -> set[int]:
    """Return the statuses of other clients' requests meanwhile, each on a connection of its own."""
    statuses = set()
    until = time.monotonic() + seconds
    while True:
        async with httpx2.AsyncClient(base_url=service.base, timeout=ANSWER_SECONDS) as client:
            statuses.add((await client.get("/livez")).status_code)
        async with httpx2.AsyncClient(base_url=service.base, timeout=ANSWER_SECONDS) as client:
            statuses.add((await client.get("/v1/things")).status_code)
        async with httpx2.AsyncClient(base_url=service.base, timeout=ANSWER_SECONDS) as client:
            statuses.add((await client.post("/v1/bytes", content=b"lamp")).status_code)
        if time.monotonic() > until:
            return statuses
        await asyncio.sleep(0.05)


def _peak_mib(service: Running) -> int:
    status = Path(f"/proc/{service.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024
