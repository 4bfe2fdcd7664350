"""One service with a damaged checkout or an odd answer: the run of the other services goes on."""

import asyncio
import os
import shutil
import socket
import sys
from pathlib import Path

import pytest
from chassis.dev.embedded import free_port

from fleet.errors import FleetError
from fleet.processes.programs import Guard
from fleet.up.checkout_state import is_installed, is_moved, migrations
from fleet.up.health import ask
from fleet.up.memory import Memory
from fleet.up.output import Output
from fleet.up.product import Checkout
from fleet.up.saves import restart_changed
from fleet.up.service import START_SECONDS, ProductService, StartFailed, Tools
from fleet.up.wiring import Shared
from tests.fleet.up.checkouts import checkout
from tests.support.waiting import until


@pytest.fixture
def orders(tmp_path: Path) -> Checkout:
    return checkout(tmp_path / "orders", "orders")


def service(one: Checkout, folder: Path, told: list[str], guard: Guard | None = None) -> ProductService:
    def output(name: str) -> Output:
        return Output(folder / f"logs/{name}.log", lambda _: None)

    shared: asyncio.Future[Shared] = asyncio.get_running_loop().create_future()
    guard = guard or object.__new__(Guard)  # nothing starts here
    return ProductService(one, free_port(), Tools(Memory(folder), guard, shared, [one], output, told.append))


async def test_a_checkout_that_was_moved_breaks_its_service_alone(orders: Checkout, tmp_path: Path) -> None:
    shutil.rmtree(orders.folder)
    told: list[str] = []
    one = service(orders, tmp_path, told)
    await run_until_broken(one)
    assert told[-1] == f"orders {one.problem}"
    assert f"{orders.folder}" in one.problem


async def run_until_broken(one: ProductService) -> None:
    run = asyncio.create_task(one.run())
    try:
        await until(lambda: run.done() or one.state != "starting")
        assert (run.done(), one.state) == (False, "broken"), one.problem
    finally:
        run.cancel()
        await asyncio.wait([run])


HANGS = """#!/bin/sh
case "$*" in *serve) touch serving; exec sleep 600 ;; esac
"""


def installed_service(orders: Checkout, tmp_path: Path, guard: Guard, program: str) -> ProductService:
    """Make a service whose environment is installed, and whose Python is this program."""
    python = orders.folder / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(program)
    python.chmod(0o755)
    for path in ("uv.lock", ".venv/.ready"):
        (orders.folder / path).touch()
    one = service(orders, tmp_path, [], guard)
    one._tools.shared.set_result(Shared({"orders": one.port}, {"orders": "postgresql://orders"}))
    return one


async def test_a_service_whose_start_hangs_is_stopped_at_once(orders: Checkout, tmp_path: Path) -> None:
    guard = Guard(os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT))
    one = installed_service(orders, tmp_path, guard, HANGS)
    run = asyncio.create_task(one.run())
    try:
        await until((orders.folder / "serving").exists, lambda: one.problem)
        one.ask("stop")
        await until(one.has_settled, lambda: one.problem, seconds=START_SECONDS / 2)
        assert one.state == "stopped"
    finally:
        run.cancel()
        await asyncio.wait([run])
        guard.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no signals without names")
async def test_a_service_that_is_ended_by_a_signal_without_a_name_is_broken_and_the_others_go_on(
    orders: Checkout, tmp_path: Path
) -> None:
    guard = Guard(os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT))
    one = installed_service(orders, tmp_path, guard, '#!/bin/sh\ncase "$*" in *serve) kill -40 $$ ;; esac\n')
    try:
        await run_until_broken(one)
    finally:
        guard.close()
    assert one.problem == "it was ended by signal 40"


async def test_a_service_whose_installation_hangs_is_stopped_at_once(orders: Checkout, tmp_path: Path) -> None:
    (orders.folder / "Makefile").write_text("setup:\n\ttouch installing && exec sleep 600\n")
    guard = Guard(os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT))
    one = service(orders, tmp_path, [], guard)
    run = asyncio.create_task(one.run())
    try:
        await until((orders.folder / "installing").exists, lambda: one.problem)
        one.ask("stop")
        await until(one.has_settled, lambda: one.problem, seconds=START_SECONDS / 2)
        assert (one.state, one.problem) == ("stopped", "")
        assert one.process
        assert one.process.ended.done()
    finally:
        run.cancel()
        await asyncio.wait([run])
        guard.close()


SETUP = "setup:\n\tmkdir .venv && touch uv.lock .venv/.ready && exit 7\n"
"""A `make setup` that fails: at `mkdir` if there is an environment, and else with status 7 after it has made one."""


async def test_an_environment_that_was_moved_with_its_checkout_is_made_again(orders: Checkout, tmp_path: Path) -> None:
    packages = orders.folder / ".venv/lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    for path in ("uv.lock", ".venv/.ready"):
        (orders.folder / path).touch()
    (packages / "orders.pth").write_text(str(orders.folder / "src"))
    assert not is_moved(orders)
    (packages / "orders.pth").write_text(str(tmp_path / "elsewhere/orders/src"))
    assert is_moved(orders)
    (orders.folder / "Makefile").write_text(SETUP)
    told: list[str] = []
    guard = Guard(os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT))
    try:
        one = service(orders, tmp_path, told, guard)
        with pytest.raises(StartFailed, match="Error 7"):
            await one._install()
    finally:
        guard.close()
    assert told == ["orders is installed by `make setup`, because its environment was made for another folder"]
    assert not is_moved(orders)


def write_moved(one: Checkout, environment: Path) -> None:
    """Write an environment that was made for another folder."""
    packages = environment / "lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    for path in (one.folder / "uv.lock", environment / ".ready"):
        path.touch()
    (packages / "orders.pth").write_text("/elsewhere/orders/src")


async def test_a_moved_environment_that_was_deleted_by_half_counts_as_missing(
    orders: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise OSError("the run was killed")

    write_moved(orders, orders.folder / ".venv")
    monkeypatch.setattr(shutil, "rmtree", fail)
    assert is_installed(orders.folder)
    with pytest.raises(OSError, match="killed"):
        await service(orders, tmp_path, [])._install()
    assert not is_installed(orders.folder)


async def test_an_environment_that_several_checkouts_share_by_a_link_is_not_deleted(
    orders: Checkout, tmp_path: Path
) -> None:
    write_moved(orders, tmp_path / "shared")
    (orders.folder / ".venv").symlink_to(tmp_path / "shared")
    with pytest.raises(FleetError, match=r"does not start: its \.venv is a link to an environment of another folder"):
        await service(orders, tmp_path, [])._install()
    assert (tmp_path / "shared/.ready").exists()


async def test_a_port_that_another_program_has_taken_from_an_older_chassis_is_named_with_the_remedy(
    orders: Checkout, tmp_path: Path
) -> None:
    settings = orders.folder / "chassis/src/chassis/settings"
    settings.mkdir(parents=True)
    (settings / "settings.py").write_text("http_port: int\n")
    one = service(orders, tmp_path, [])
    with socket.create_server(("127.0.0.1", one.port)):
        await run_until_broken(one)
    assert one.problem.startswith(f"cannot listen on port {one.port}, which another program has taken")
    assert one.problem.endswith("end that program and save a file, or run `make update` in the service")


async def test_a_file_that_an_editor_locks_is_no_migration(orders: Checkout) -> None:
    versions = orders.folder / "src/orders/migrations/versions"
    versions.mkdir(parents=True)
    (versions / "0001_create_orders.py").touch()
    (orders.folder / "uv.lock").touch()
    before = migrations(orders, "url")
    (versions / ".#0001_create_orders.py").symlink_to("somebody@here.123")  # Emacs locks a file by such a link
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
    restart_changed({elsewhere: one}, [elsewhere / "chassis/http.py"], told.append)
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
