"""The purchase of the example product as a workflow of Temporal, on its development server, with the use cases as they are."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import yaml
from chassis.dev.embedded import temporary_postgres
from chassis.dev.token_server import TokenServer

from examples.__main__ import SHOP
from tests.service.chaos.system import Part, create
from tests.support import brokers, temporal
from tests.support.commands import service_environment
from tests.support.how_to import blocks
from tests.support.paths import ROOT
from tests.support.services import Render
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("temporal")]

PAGE = "move-sagas-to-temporal.md"
MOVED = ROOT / "examples" / "temporal" / "orders"
COMMANDS = '    commands={"temporal": run_worker},\n'
TOO_MUCH = 10_000_000


def made(name: str, render: Render, folder: Path) -> Path:
    """Make a service of the example: its answers, and the files of its team."""
    service = folder / name
    shutil.copytree(render(**yaml.safe_load((SHOP / name / "answers.yml").read_text())), service)
    shutil.copytree(
        SHOP / name, service, dirs_exist_ok=True, ignore=shutil.ignore_patterns("answers.yml", "__pycache__")
    )
    return service


def changed(path: Path, *edits: tuple[str, str]) -> None:
    text = path.read_text()
    for old, new in edits:
        assert text.count(old) == 1, f"{path} has {old!r} {text.count(old)} times"
        text = text.replace(old, new)
    path.write_text(text)


@pytest.fixture(scope="module")
def orders(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service whose purchases Temporal runs."""
    temporal.program()
    service = made("orders", render, tmp_path_factory.mktemp("temporal"))
    shutil.copytree(MOVED, service, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    settings = "from orders.settings import Settings\n"
    changed(
        service / "src/orders/main.py",
        (settings, f"{settings}from orders.workflows.worker import run_worker\n"),
        ("    idempotency=IdempotencyKeys(),\n", f"    idempotency=IdempotencyKeys(),\n{COMMANDS}"),
    )
    changed(
        service / "tests/sagas/test_purchase.py",
        (
            "from chassis.messages import Contract\n",
            "from chassis.database import Database\nfrom chassis.messages import Contract\n",
        ),
        (
            'json=order_body())).json()["id"]\n',
            'json=order_body())).json()["id"]\n        await self.database.execute("UPDATE chassis.sagas SET version = 1")\n',
        ),
        (
            "    def __init__(self, client: AsyncClient, ",
            "    def __init__(self, database: Database, client: AsyncClient, ",
        ),
        ('        self.order_id = ""\n', '        self.order_id, self.database = "", database\n'),
        ("async def shop(client: AsyncClient, ", "async def shop(database: Database, client: AsyncClient, "),
        ("Shop(client, ", "Shop(database, client, "),
    )
    return service


def run(service: Path, *command: str, **settings: str) -> None:
    """Run a command of the service with the packages of this repository."""
    program = [str(Path(sys.executable).with_name(command[0])), *command[1:]]
    environment = service_environment(PYTHONPATH=str(service / "src"), **settings)
    done = subprocess.run(program, cwd=service, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_the_move_changes_no_use_case_of_the_saga() -> None:
    named = {path.name for path in (MOVED / "src/orders/usecases").glob("*.py")}
    assert named == {"purchase_workflows.py"}


def test_the_code_of_the_page_is_the_code_of_the_moved_service() -> None:
    code = "\n".join(path.read_text() for path in sorted(MOVED.rglob("*.py")))
    packages, *shown = blocks(PAGE)
    assert packages.count("uv add") == 2
    assert [text for text in shown if text.strip("\n") not in code] == [f"SERVICE = Service(\n    ...,\n{COMMANDS})\n"]


@pytest.mark.parametrize(
    "command",
    [
        "ruff format --check --quiet .",
        "ruff check --quiet .",
        f"ty check --no-progress --python {sys.prefix}",
        "lint-imports --no-cache",
        "python -m pytest -p no:cacheprovider tests/workflows tests/sagas tests/messaging tests/api/test_purchases.py",
    ],
    ids=lambda command: " ".join(command.split()[:4]),
)
def test_the_service_passes_the_gate_and_the_tests_of_running_sagas(command: str, orders: Path) -> None:
    run(orders, *command.split())


class Purchases:
    """The services orders and payments, on PostgreSQL, NATS and Temporal."""

    def __init__(self, parts: dict[str, Part], client: httpx2.Client, logs: Path) -> None:
        self.parts, self.client, self._logs = parts, client, logs

    def buy(self, amount: int) -> str:
        body: dict[str, Any] = {
            "customer_id": "0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d",
            "total": {"amount": amount, "currency": "EUR"},
            "lines": [{"sku": "A-1", "quantity": 1}],
        }
        return self.client.post("/v1/purchases", json=body).raise_for_status().json()["id"]

    def status(self, order_id: str) -> str:
        answer = self.client.get(f"/v1/orders/{order_id}")
        return answer.json()["status"] if answer.status_code == 200 else "deleted"

    def wait(self, order_id: str, status: str) -> None:
        wait_until(lambda: self.status(order_id) == status, self.shown)

    def shown(self) -> str:
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in sorted(self._logs.glob("*.log")))


@pytest.fixture
def purchases(orders: Path, render: Render, tmp_path: Path) -> Generator[Purchases]:
    payments = made("payments", render, tmp_path)
    with ExitStack() as stack:
        server = stack.enter_context(temporary_postgres())
        broker = stack.enter_context(brokers.BROKERS["nats"]())
        address = stack.enter_context(temporal.development_server())
        issuer = stack.enter_context(TokenServer("orders", path="/issuer").running())
        asyncio.run(create(server, ["orders", "payments"]))
        parts, port = {}, brokers.free_port()
        for service, command in ((payments, "work"), (orders, "serve"), (orders, "temporal")):
            settings = {
                "DATABASE_URL": urlsplit(server)._replace(path=f"/{service.name}").geturl(),
                "BROKER_URL": broker.url,
                "TEMPORAL_ADDRESS": address,
                "RUN_WORKER": str(command == "serve"),
                "DRAIN_SECONDS": "0",
                "OIDC_ISSUER": issuer.url,
                "OIDC_AUDIENCE": issuer.audience,
            }
            if command != "temporal":
                run(service, "python", "-m", service.name, "migrate", **settings)
            ports = {"HTTP_PORT": str(port if command == "serve" else brokers.free_port())}
            program = [sys.executable, "-m", service.name, command]
            name = f"{service.name} {command}"
            parts[name] = Part(program, tmp_path / f"{name}.log", PYTHONPATH=str(service / "src"), **settings, **ports)
            parts[name].start()
            stack.callback(parts[name].kill)
        headers = {"Authorization": f"Bearer {issuer.token('tester', scopes=['orders:read', 'purchases:write'])}"}
        client = stack.enter_context(httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60))
        made_ = Purchases(parts, client, tmp_path)
        wait_until(lambda: is_ready(client), made_.shown)
        yield made_


def is_ready(client: httpx2.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx2.TransportError:
        return False


def test_a_purchase_is_placed_or_cancelled_by_a_workflow_that_outlives_its_worker(purchases: Purchases) -> None:
    paid, refused = purchases.buy(1250), purchases.buy(TOO_MUCH)
    purchases.wait(paid, "placed")
    purchases.wait(refused, "deleted")
    worker = purchases.parts["orders temporal"]
    worker.kill()
    interrupted = [purchases.buy(1250) for _ in range(3)]
    worker.start()
    for order_id in interrupted:
        purchases.wait(order_id, "placed")
