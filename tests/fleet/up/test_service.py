"""One service with a damaged checkout or an odd answer: the run of the other services goes on."""

import asyncio
import shutil
from pathlib import Path

import pytest
from chassis.dev.embedded import free_port

from fleet.processes.programs import Guard
from fleet.up.checkout_state import migrations
from fleet.up.health import ask
from fleet.up.memory import Memory
from fleet.up.output import Output
from fleet.up.product import Checkout
from fleet.up.service import ProductService, StartFailed, Tools
from fleet.up.supervisor import Supervisor
from fleet.up.wiring import Shared
from tests.fleet.up.checkouts import checkout


@pytest.fixture
def orders(tmp_path: Path) -> Checkout:
    return checkout(tmp_path / "orders", "orders")


def service(one: Checkout, folder: Path, told: list[str]) -> ProductService:
    def output(name: str) -> Output:
        return Output(folder / f"logs/{name}.log", lambda _: None)

    shared: asyncio.Future[Shared] = asyncio.get_running_loop().create_future()
    guard = object.__new__(Guard)  # nothing starts here
    return ProductService(one, free_port(), Tools(Memory(folder), guard, shared, [one], output, told.append))


async def test_a_checkout_that_was_moved_breaks_its_service_alone(orders: Checkout, tmp_path: Path) -> None:
    shutil.rmtree(orders.folder)
    told: list[str] = []
    one = service(orders, tmp_path, told)
    run = asyncio.create_task(one.run())
    async with asyncio.timeout(10):
        while one.state == "starting" and not run.done():  # noqa: ASYNC110 (the states change in many places)
            await asyncio.sleep(0.01)
    assert (run.done(), one.state) == (False, "broken")
    assert told[-1] == f"orders {one.problem}"
    assert f"{orders.folder}" in one.problem
    run.cancel()
    await asyncio.wait([run])


async def test_a_file_that_an_editor_locks_is_no_migration(orders: Checkout) -> None:
    versions = orders.folder / "src/orders/migrations/versions"
    versions.mkdir(parents=True)
    (versions / "0001_create_orders.py").touch()
    (orders.folder / "uv.lock").touch()
    before = migrations(orders, "url")
    (versions / ".#0001_create_orders.py").symlink_to("somebody@here.123")  # as Emacs does
    assert migrations(orders, "url") == before


async def test_an_answer_of_any_depth_is_no_usable_answer() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 500_000)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        with pytest.raises(ValueError, match="nests too deeply"):
            await ask(server.sockets[0].getsockname()[1], "/readyz", 5)


async def test_code_behind_a_link_restarts_its_service(orders: Checkout, tmp_path: Path) -> None:
    told: list[str] = []
    elsewhere = tmp_path / "platform/chassis/src"
    one = service(orders, tmp_path, told)
    supervisor = object.__new__(Supervisor)
    supervisor._tell = told.append
    supervisor._restart_changed({elsewhere: one}, [elsewhere / "chassis/http.py"])
    assert told == ["orders restarts: ../platform/chassis/src/chassis/http.py was saved"]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 Service Unavailable\r\n\r\n{}", b""], ids=["503", "nothing"])
async def test_a_service_whose_livez_fails_three_times_in_a_row_is_ended(
    orders: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    asked: list[bytes] = []

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split()[1])
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n{}" if len(asked) <= 4 else answer)
        writer.close()

    class Running:
        ended = asyncio.get_running_loop().create_future()

        async def stop(self) -> None:
            self.ended.set_result(-9)

    monkeypatch.setattr("fleet.up.service.LOOK_SECONDS", 0.01)
    one = service(orders, tmp_path, [])
    one.process = Running()  # ty: ignore[invalid-assignment]
    server = await asyncio.start_server(reply, "127.0.0.1", one.port)
    async with server, asyncio.timeout(30):
        with pytest.raises(StartFailed, match="and was ended"):
            await one._watch()
    assert asked == [b"/livez", b"/readyz"] * 2 + [b"/livez"] * 3
    assert (one.process.ended.done(), one.state) == (True, "unready")
