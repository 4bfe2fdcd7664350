"""A product of three services as real processes: what happens to callers, to the others and to the processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import suppress
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx2
import psutil
import pytest
from chassis.dev.embedded import postgresql
from chassis.dev.viewer import server as viewer
from click.shell_completion import ShellComplete

from fleet.main import app
from fleet.up import control
from fleet.up.memory import Memory
from tests.fleet.command_line import completed
from tests.support.answers import VARIANTS
from tests.support.commands import service_environment
from tests.support.paths import ROOT
from tests.support.query import ask
from tests.support.services import Birth, Render, lend_packages
from tests.support.waiting import until, wait_until

# One product at a time, because each product uses both cores while its services start.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("product")]

STOREFRONT = """
from chassis.client import service_client
from chassis.identity import public
from fastapi import APIRouter, Request

router = APIRouter(prefix="/v1/checkouts")


@router.get("")
@public("a page of the shop")
async def list_orders(request: Request) -> list[str]:
    settings = request.app.state.settings
    async with service_client(str(settings.shipping_url), auth=settings.token_for("shipping")) as shipping:
        answer = await shipping.get("/v1/shipments")
        answer.raise_for_status()
        return [str(item["id"]) for item in answer.json()["items"]]
"""

RATES = {
    "openapi": "3.1.0",
    "info": {"title": "rates", "version": "1"},
    "paths": {
        "/v1/rates": {
            "get": {
                "operationId": "read_rates",
                "responses": {
                    "200": {
                        "description": "",
                        "content": {
                            "application/json": {
                                "schema": {"type": "object", "properties": {"rate": {"type": "integer"}}}
                            }
                        },
                    }
                },
            }
        }
    },
}


class Product:
    """The services, and the run of `fleet up` on them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.memory = folder, Memory(folder / ".fleet")
        self.log = folder / "output.log"

    def fleet(self, *arguments: str) -> CompletedProcess[str]:
        """Run a command in this process, which has imported `fleet` already."""
        return completed(*arguments, f"--config={self.folder / 'fleet.toml'}")

    def fleet_up(self, *arguments: str) -> CompletedProcess[str]:
        """Run `fleet up`, which starts programs, in a process of its own."""
        command = [sys.executable, "-m", "fleet", "up", *arguments, f"--config={self.folder / 'fleet.toml'}"]
        environment = service_environment(PYTHONPATH=str(ROOT))
        return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=self.folder)

    def start(self) -> subprocess.Popen[bytes]:
        """Start `fleet up` as a shell starts a program in the background: SIGINT is ignored."""
        command = [sys.executable, "-m", "fleet", "up", "--keep", f"--config={self.folder / 'fleet.toml'}"]
        with self.log.open("w") as log:
            run = subprocess.Popen(
                ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *command],
                env=service_environment(PYTHONPATH=str(ROOT)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: run.poll() is not None or self.has_settled(), self.log.read_text, seconds=600)
        return run

    def has_settled(self) -> bool:
        return bool(self.memory.running()) and all(one["state"] != "starting" for one in self.services().values())

    def services(self) -> dict[str, Any]:
        return {one["name"]: one for one in control.tell(self.memory, "status")["services"]}

    def await_state(self, state: str) -> None:
        """Wait until every service has this state."""
        wait_until(lambda: {one["state"] for one in self.services().values()} == {state}, self.log.read_text)

    def url(self, name: str, path: str) -> str:
        return self.services()[name]["url"] + path

    def database(self, package: str) -> str:
        port = Path(self.postgres_home, "port").read_text()
        password = json.loads((self.memory.folder / "memory.json").read_text())["databases"][package]
        return f"postgresql://{package}:{password}@127.0.0.1:{port}/{package}"

    @property
    def postgres_home(self) -> Path:
        return postgresql._identity((self.memory.folder / "postgres").resolve())[1]

    def processes(self) -> list[psutil.Process]:
        """Find all processes of the run, by their folder or their arguments."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                places = " ".join([process.cwd(), *process.cmdline()])
                if process.status() != psutil.STATUS_ZOMBIE and any(
                    str(place) in places for place in (self.folder, self.postgres_home)
                ):
                    found.append(process)
        return found


@pytest.fixture(scope="module")
def product(render: Render, birth: Birth, tmp_path_factory: pytest.TempPathFactory) -> Generator[Product]:
    """A service with a worker, its caller, and a service whose chassis is older than sockets that are passed on."""
    folder = tmp_path_factory.mktemp("product")
    shipping = birth(**VARIANTS["queues-nats"])
    sources = {"shipping": shipping, "storefront": render(service_name="storefront", auth="oidc")}
    sources["ledger"] = render(service_name="ledger", auth="none")
    for name, source in sources.items():
        shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns(".venv", ".git"))
        lend_packages(shipping, folder / name)
    (folder / "storefront/src/storefront/api/checkouts.py").write_text(STOREFRONT)
    settings = folder / "storefront/src/storefront/settings.py"
    settings.write_text(settings.read_text() + "\n    shipping_url: str\n")
    of_chassis = folder / "ledger/chassis/src/chassis"
    older = (
        (of_chassis / "settings/settings.py")
        .read_text()
        .replace("http_fd: Annotated[int, Field(ge=3)] | None", "unused: None")
    )
    (of_chassis / "settings/settings.py").write_text(older)
    server = of_chassis / "web/server.py"
    server.write_text(server.read_text().replace("settings.http_fd", "None"))
    (folder / "ledger/specs/uses").mkdir(parents=True)
    (folder / "ledger/specs/uses/rates.json").write_text(json.dumps(RATES))
    entries = [f'[[service]]\npath = "{name}"\n' for name in ("shipping", "storefront", "ledger")]
    (folder / "fleet.toml").write_text("".join(entries))
    product = Product(folder)
    run = product.start()
    yield product
    if product.memory.running():
        product.fleet("down")
    run.kill()
    run.wait()
    postgresql.delete(product.memory.folder / "postgres")


def _if_ready(shown: CompletedProcess[str]) -> CompletedProcess[str] | None:
    return shown if shown.returncode == 0 else None


def test_all_services_are_ready_and_the_table_names_an_older_chassis(product: Product) -> None:
    shown = wait_until(lambda: _if_ready(product.fleet("up", "--status")), product.log.read_text)
    assert "ledger: its chassis takes no socket, so calls fail while it restarts" in shown.stdout
    assert "fleet up runs the code of shipping, storefront, ledger, as you" in product.log.read_text()
    assert json.loads(product.fleet("up", "--status", "--format", "json").stdout)["services"][0]["name"] == "shipping"
    assert "Application startup complete" in product.fleet("logs", "shipping").stdout
    refused = product.fleet_up()
    assert (refused.returncode, "another `fleet up` runs on" in refused.stderr) == (1, True)


def test_no_role_can_read_the_database_of_another_service(product: Product) -> None:
    own = product.database("shipping")
    assert ask(own, "SELECT count(*) >= 0 FROM shipping.alembic_version")
    for other in ("storefront", "postgres", "template1"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=f'permission denied for database "{other}"'):
            ask(urlsplit(own)._replace(path=f"/{other}").geturl(), "SELECT 1")


async def test_a_call_between_services_has_a_token_and_is_one_trace(product: Product) -> None:
    async with httpx2.AsyncClient(timeout=60, trust_env=False) as client:
        answer = await client.get(product.url("storefront", "/v1/checkouts"))
        assert (answer.status_code, answer.json()) == (200, [])
        page = control.tell(product.memory, "status")["addresses"]["page"]

        async def trace() -> list[str]:
            shown = await client.get(f"{page}traces/{answer.headers['x-request-id']}.txt")
            lines = [line for line in shown.text.splitlines() if "GET /v1/" in line]
            return lines if len(lines) > 1 else []

        shown = await until(trace)
    indents = [len(line) - len(line.lstrip()) for line in shown]
    assert [line.split()[:2] for line in shown] == [["GET", "/v1/checkouts"], ["GET", "/v1/shipments"]]
    assert indents[0] < indents[1]


def test_callers_wait_for_a_restart(product: Product) -> None:
    before, is_over = product.services()["shipping"], threading.Event()
    url = product.url("shipping", "/livez")
    results: list[int | str] = []

    def call() -> None:
        while not is_over.is_set():
            try:
                results.append(httpx2.get(url, timeout=60, trust_env=False).status_code)
            except httpx2.HTTPError as error:
                results.append(type(error).__name__)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    restarted = product.fleet("restart", "shipping")
    is_over.set()
    for caller in callers:
        caller.join()
    assert restarted.returncode == 0, restarted.stdout
    assert set(results) == {200}
    after = product.services()["shipping"]
    assert (after["pid"] != before["pid"], after["restarts"]) == (True, before["restarts"] + 1)


async def answers(client: httpx2.AsyncClient, url: str, status: int) -> bool:
    return (await client.get(url)).status_code == status


async def test_the_page_shows_stops_and_starts_the_services(product: Product) -> None:
    page = control.tell(product.memory, "status")["addresses"]["page"]
    before = product.services()["shipping"]["restarts"]
    async with httpx2.AsyncClient(base_url=page, timeout=60, trust_env=False) as client:
        shown = (await client.get("product")).json()
        assert [one["name"] for one in shown["services"]] == ["shipping", "storefront", "ledger"]
        assert all(one["url"] == product.url(one["name"], "") for one in shown["services"])
        assert (await client.get("services/shipping/parked")).json() == []
        assert (await client.get("services/ledger/parked")).status_code == 409
        for action, status in (("stop", 503), ("start", 200)):
            assert (await client.post(f"services/shipping/{action}")).status_code == 200
            await until(partial(answers, client, product.url("shipping", "/livez"), status), product.log.read_text)
    assert product.services()["shipping"]["restarts"] == before + 1


def test_a_service_is_stopped_and_started_by_commands_while_the_others_run(product: Product) -> None:
    before = product.services()
    stopped = product.fleet("stop", "shipping")
    assert (stopped.returncode, "stopped" in stopped.stdout, "storefront" in stopped.stdout) == (0, True, False)
    assert httpx2.get(product.url("shipping", "/livez"), timeout=60, trust_env=False).status_code == 503
    assert product.fleet("stop", "shipping").returncode == 0
    assert product.fleet("start", "shipping").returncode == 0
    started = product.services()
    assert started["shipping"]["restarts"] == before["shipping"]["restarts"] + 1
    assert product.fleet("start", "shipping").returncode == 0
    assert product.services()["shipping"]["pid"] == started["shipping"]["pid"], (
        "a service that runs is not started again"
    )
    assert started["storefront"]["pid"] == before["storefront"]["pid"]


def test_the_shell_completes_the_names_of_the_services(product: Product) -> None:
    config = f"--config={product.folder / 'fleet.toml'}"
    environment = {"_FLEET_COMPLETE": "bash_complete", "COMP_WORDS": f"fleet logs {config} s", "COMP_CWORD": "3"}
    shown = subprocess.run(
        [Path(sys.executable).with_name("fleet")],
        env=service_environment(PYTHONPATH=str(ROOT), **environment),
        capture_output=True,
        text=True,
        cwd=product.folder,
    )
    assert shown.stdout.split() == ["plain,shipping", "plain,storefront"], shown.stderr
    for command in ("stop", "start", "restart"):
        found = ShellComplete(app, {}, "fleet", "_FLEET_COMPLETE").get_completions([command, config], "s")
        assert [one.value for one in found] == ["shipping", "storefront"]


def test_a_command_for_a_service_that_does_not_run_names_the_services(product: Product) -> None:
    for command in ("stop", "start", "restart"):
        refused = product.fleet(command, "orders")
        assert (refused.returncode, refused.stderr) == (
            1,
            "fleet: `fleet up` runs no service orders: it runs shipping, storefront, ledger\n",
        )


def test_a_broken_service_answers_503_and_shows_its_traceback_until_a_save(product: Product) -> None:
    file = product.folder / "storefront/src/storefront/api/checkouts.py"
    content = file.read_text()
    file.write_text(f"{content}\nraise KeyError('\x1b[31mmissing')\n")
    wait_until(lambda: product.services()["storefront"]["state"] == "broken", product.log.read_text)
    answer = httpx2.get(product.url("storefront", "/v1/checkouts"), timeout=60, trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (503, "not_running")
    shown = product.fleet("up", "--status")
    assert (shown.returncode, "checkouts.py" in shown.stdout, "\x1b[31m" in shown.stdout) == (1, True, False)
    assert "KeyError: '\\x1b[31mmissing'" in shown.stdout
    assert product.fleet("restart", "storefront").returncode == 1
    file.write_text(content)
    product.await_state("ready")


def test_killed_servers_and_services_start_again(product: Product) -> None:
    shipping, restarts = product.services()["shipping"]["pid"], product.services()["shipping"]["restarts"]
    others = product.services()["storefront"]["restarts"]
    servers = [
        each.pid
        for each in product.processes()
        if {"-D", str(product.memory.folder / "nats/server.json")} & {*each.cmdline()}
    ]
    assert len(servers) == 2
    killed = [*servers, shipping]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: product.services()["shipping"]["restarts"] > restarts, product.log.read_text)
    wait_until(lambda: "PostgreSQL has ended" in product.log.read_text())
    product.await_state("ready")
    assert product.services()["storefront"]["restarts"] == others
    assert httpx2.get(product.url("storefront", "/v1/checkouts"), timeout=60, trust_env=False).status_code == 200


def test_nothing_outlives_a_killed_or_ended_fleet_up(product: Product, tmp_path: Path) -> None:
    ports = {name: one["url"] for name, one in product.services().items()}
    (run,) = [each for each in product.processes() if "up" in each.cmdline()]
    run.kill()
    wait_until(lambda: not product.processes(), lambda: [each.cmdline() for each in product.processes()])

    again = product.start()
    product.await_state("ready")
    assert {name: one["url"] for name, one in product.services().items()} == ports
    page = control.tell(product.memory, "status")["addresses"]["page"]
    kept = httpx2.get(f"{page}traces?text=checkouts", timeout=60, trust_env=False).json()
    assert kept["traces"], "--keep keeps the traces of the run that was killed"
    again.send_signal(signal.SIGTERM)
    assert again.wait(120) == 0
    assert not product.processes()
    assert product.log.read_text().endswith("all services have ended\n")
    assert "no `fleet up` runs on" in product.fleet("down").stderr

    with viewer.running(tmp_path) as other:
        detached = product.fleet_up("--detach", "--around", "ledger", f"--otlp={other.endpoint}")
        assert detached.returncode == 0, detached.stdout + detached.stderr
        assert list(product.services()) == ["ledger"]
        (stub,) = control.tell(product.memory, "status")["stubs"]
        assert f"rates is a stub, which answers from {product.folder}/ledger/specs/uses/rates.json" in detached.stdout
        assert "rates is a stub, which has no process" in product.fleet("stop", "rates").stderr
        assert httpx2.get(f"{stub['url']}/v1/rates", trust_env=False, timeout=60).json() == {"rate": 1}
        httpx2.get(product.url("ledger", "/v1/nothing"), trust_env=False, timeout=60)
        wait_until(lambda: other.store.traces()["count"], product.log.read_text)
        assert product.fleet("down").returncode == 0
    assert not product.processes()
