"""A deadline travels: from a caller by a header into a request, and from there to statements and further calls."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from chassis import application as chassis_application
from chassis import deadline
from chassis.database.current_database import current_limit
from chassis.deadline import remaining
from chassis.http import reader, transaction
from chassis.messaging.time_limit import TimeLimit
from chassis.service import Service
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import SecretStr
from starlette.types import Message

from tests.chassis.serving import serving
from tests.chassis.sockets import listening
from tests.support.waiting import until

OWN_SECONDS = 20
HEADER = "X-Request-Timeout-Ms"
SLEEP = "SELECT pg_sleep(600)"
RUNNING = "SELECT count(*) FROM pg_stat_activity WHERE query = $1 AND state = 'active'"
MakeApp = Callable[..., FastAPI]

DURATIONS = {b"5000": 5, b"0005000": 5, b"999999999": OWN_SECONDS}
"""Values of the header, and the seconds that each value gives to a request."""

NO_DURATIONS = [b"", b"-1", b"+5", b"1.5", b"5s", b"1e3", b"0x10", b"5 0", b"5,", b"10_00", "٥".encode(), b"9" * 4000]


@pytest.fixture
def app_of_deadlines(make_app: MakeApp) -> FastAPI:
    """An application with routes that return the time that is left, and that take long."""
    app = make_app(request_timeout_seconds=OWN_SECONDS)

    @app.get("/left")
    async def left() -> float | None:
        return remaining()

    @app.get("/left-in-a-thread")
    def left_in_a_thread() -> float | None:
        return remaining()

    @app.get("/slow")
    async def slow() -> None:
        await asyncio.sleep(600)

    @app.get("/read")
    async def read() -> None:
        await reader().fetch(SLEEP)

    @app.post("/change")
    async def change() -> None:
        async with transaction() as uow:
            await uow.connection.execute(SLEEP)

    return app


@pytest.mark.parametrize(("value", "seconds"), [*DURATIONS.items(), *((value, OWN_SECONDS) for value in NO_DURATIONS)])
async def test_a_request_has_the_smaller_of_its_own_limit_and_a_well_formed_duration_of_the_caller(
    app_of_deadlines: FastAPI, value: bytes, seconds: float
) -> None:
    async with serving(app_of_deadlines) as client:
        for path in ("/left", "/left-in-a-thread"):
            left = (await client.get(path, headers=[(HEADER.encode(), value)])).json()
            assert seconds - 5 < left <= seconds  # a busy machine uses up a part of the time


async def test_a_header_that_is_repeated_is_ignored(app_of_deadlines: FastAPI) -> None:
    async with serving(app_of_deadlines) as client:
        left = (await client.get("/left", headers=[(HEADER, "5000"), (HEADER, "5000")])).json()
    assert left > 5


@pytest.mark.parametrize("milliseconds", ["200", "0", "9"])
@pytest.mark.parametrize(("method", "path"), [("GET", "/slow"), ("GET", "/read"), ("POST", "/change")])
async def test_a_request_whose_caller_has_no_time_left_ends_with_504(
    app_of_deadlines: FastAPI, milliseconds: str, method: str, path: str
) -> None:
    started = time.monotonic()
    async with serving(app_of_deadlines) as client:
        answer = await client.request(method, path, headers={HEADER: milliseconds})
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    assert "retry-after" not in answer.headers
    assert time.monotonic() - started < OWN_SECONDS


async def test_a_request_with_almost_no_time_left_does_not_begin(app_of_deadlines: FastAPI) -> None:
    begun = []

    @app_of_deadlines.get("/begin")
    async def begin() -> None:
        begun.append(True)

    async with serving(app_of_deadlines) as client:
        assert (await client.get("/begin", headers={HEADER: "5"})).status_code == 504
        assert (await client.get("/begin")).status_code == 200
    assert begun == [True]


async def test_a_websocket_has_no_deadline_and_no_key_of_its_caller(app_of_deadlines: FastAPI) -> None:
    @app_of_deadlines.websocket("/talk")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message["type"])

    sent: list[str] = []
    headers = [(HEADER.lower().encode(), b"5"), (b"idempotency-key", b"k1")]
    scope = {"type": "websocket", "path": "/talk", "root_path": "", "query_string": b"", "headers": headers}
    await app_of_deadlines(scope, receive, send)
    assert sent == ["websocket.accept", "websocket.close"]


async def test_the_servers_own_limit_is_still_answered_with_503(make_app: MakeApp) -> None:
    async with serving(make_app(request_timeout_seconds=0.2)) as client:
        answer = await client.get("/v1/sleep", params={"seconds": 600}, headers={HEADER: "60000"})
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "timed_out", "1")


@pytest.mark.parametrize(("method", "path"), [("GET", "/read"), ("POST", "/change")])
async def test_no_statement_runs_on_after_the_deadline(
    app_of_deadlines: FastAPI, connection: asyncpg.Connection, method: str, path: str
) -> None:
    async with listening(app_of_deadlines) as client:
        answer = asyncio.create_task(client.request(method, path, headers={HEADER: "1500"}))
        await until(lambda: connection.fetchval(RUNNING, SLEEP), lambda: answer)
        assert (await answer).status_code == 504
        await until(lambda: ended(connection))  # PostgreSQL stops the statement a moment later


async def ended(connection: asyncpg.Connection) -> bool:
    return not await connection.fetchval(RUNNING, SLEEP)


class Ends:
    """A time limit that passes without an effect in the process, as if the process were stopped."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    def when(self) -> float:
        return self._ends


@asynccontextmanager
async def limited(seconds: float) -> AsyncGenerator[None]:
    outer = current_limit.set(Ends(seconds))
    try:
        yield
    finally:
        current_limit.reset(outer)


@asynccontextmanager
async def pooled(url: str, **options: Any) -> AsyncGenerator[deadline.Database]:
    async with deadline.Database(
        SecretStr(url), pool_size=1, name="tiny", command_timeout_seconds=60, **options
    ) as database:
        yield database


async def test_the_database_stops_a_statement_of_a_transaction_that_the_process_does_not_stop(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "SPARE_SECONDS", 0)
    async with pooled(database_url) as database, limited(0.3):
        with pytest.raises(asyncpg.QueryCanceledError, match="statement timeout"):
            async with database.unit_of_work() as uow:
                await uow.connection.execute(SLEEP)


async def test_the_limit_of_a_transaction_ends_with_the_transaction(database_url: str) -> None:
    shown = "SHOW statement_timeout"
    async with pooled(database_url) as database:
        async with limited(30), database.unit_of_work() as uow:
            assert 25_000 < await milliseconds(uow.connection) <= 31_000
        # more time is left than any statement has, so the server gets no limit
        async with limited(60), database.unit_of_work() as uow:
            assert await uow.connection.fetchval(shown) == "0"
        assert [row[0] for row in await database.fetch(shown)] == ["0"]


async def milliseconds(connection: Any) -> int:
    return await connection.fetchval("SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'")


async def test_a_shorter_limit_of_the_role_stays(database_url: str) -> None:
    url = urlsplit(database_url)._replace(query="options=-c%20statement_timeout%3D7s").geturl()
    async with pooled(url) as database, limited(30), database.unit_of_work() as uow:
        assert await milliseconds(uow.connection) == 7_000


async def test_a_transaction_behind_a_pooler_gets_no_limit_because_the_limit_of_its_role_is_unknown(
    database_url: str,
) -> None:
    async with pooled(database_url, transaction_pooler=True) as database, limited(30), database.unit_of_work() as uow:
        assert await milliseconds(uow.connection) == 0


async def test_each_call_of_a_chain_has_less_time_left(make_app: MakeApp) -> None:
    customers, orders = (make_app(request_timeout_seconds=seconds) for seconds in (15, OWN_SECONDS))

    @customers.get("/left")
    async def left() -> float | None:
        return remaining()

    async with serving(customers) as neighbour:

        @orders.get("/chain")
        async def chain() -> list[Any]:
            calls = []
            for _ in range(2):
                left = remaining()
                assert left is not None
                calls.append((left, (await neighbour.get("/left", headers={HEADER: str(int(left * 1000))})).json()))
                await asyncio.sleep(0.05)
            return [*calls, remaining()]

        async with serving(orders) as client:
            (first, found), (second, found_later), at_the_end = (
                await client.get("/chain", headers={HEADER: "10000"})
            ).json()
            # The neighbour's limit can begin earlier than its request, because the clock of the event loop stands still while
            # other tasks run. The two services are therefore not compared across the calls.
            assert 10 >= first > second > at_the_end > 0
            assert first >= found > 0
            assert second >= found_later > 0
            # The limit of the neighbour is the smaller one here.
            (mine, found), *_ = (await client.get("/chain")).json()
            assert mine > 15 >= found > 10


async def test_a_handler_of_a_message_has_the_time_that_is_left_of_its_limit() -> None:
    assert remaining() is None
    with closing(TimeLimit(30)) as limit:
        for _ in range(2):
            with limit:
                await asyncio.sleep(0.05)
                left = remaining()
                assert left is not None
                assert 20 < left <= 29.96
    assert remaining() is None


async def test_no_time_is_left_when_the_deadline_is_over() -> None:
    async with limited(-5):
        assert remaining() == 0


async def test_a_service_without_the_part_ignores_the_header_and_has_no_504(
    make_app: MakeApp, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = chassis_application.api(service).openapi()
    assert (
        document["components"]["responses"]["GatewayTimeout"]["description"]
        == "Gateway Timeout: `deadline_exceeded`, `neighbour_timeout`."
    )
    documented = set(document["paths"]["/v1/things"]["get"]["responses"])
    monkeypatch.setattr(chassis_application, "has_module", lambda _: False)
    without = set(chassis_application.api(service).openapi()["paths"]["/v1/things"]["get"]["responses"])
    assert documented - without == {"504"}
    async with serving(make_app()) as client:
        answer = await client.get("/v1/sleep", params={"seconds": 0.1}, headers={HEADER: "5"})
    assert answer.status_code == 200


async def test_a_stream_that_sends_something_now_and_then_may_outlast_the_deadline(make_app: MakeApp) -> None:
    app = make_app()
    left: list[float | None] = []

    @app.get("/stream")
    async def stream() -> Any:
        async def ticks() -> AsyncGenerator[bytes]:
            for _ in range(4):
                left.append(remaining())
                yield b"tick"
                await asyncio.sleep(0.5)

        return StreamingResponse(ticks())

    async with listening(app) as client:
        answer = await client.get("/stream", headers={HEADER: "1500"})
    assert answer.content == b"tick" * 4
    assert all(each for each in left)
