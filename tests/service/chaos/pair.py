"""Two generated services in processes of their own: orders asks customers by typed functions, over a link that counts."""

import asyncio
import contextlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import psutil

from tests.service.chaos.system import START_TIMEOUT_SECONDS, Part, Postgres, create
from tests.support import brokers
from tests.support.commands import service_environment
from tests.support.link import Link
from tests.support.otlp import OtlpReceiver
from tests.support.paths import ROOT

CALLS_AT_ONCE = 8
CALL_SECONDS = 2
REQUEST_SECONDS = 20
"""The deadline of a request of orders."""
POOL_SIZE = 5

ANSWERS = {"chassis_parts": ["neighbours", "idempotency"], "auth": "none"}
AGGREGATES = {"customers": "Customer: {name: text}", "orders": "Order: {customer_id: uuid}"}

SIGN_UPS = '''\
"""Sign-ups: a customer, in the service of customers, and the first order of this customer."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx2
from chassis import fields
from chassis.http import ResourceRoute, new_id, transaction, utc_now
from fastapi import APIRouter, Depends, FastAPI, Request

from orders.api.orders import OrderDetails
from orders.domain.orders import Order
from orders.neighbours.customers import NewCustomer, create_customer
from orders.usecases.orders import CreateOrder, create_order


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with app.state.settings.client_for("customers") as customers:
        app.state.customers = customers
        yield


async def _customers(request: Request) -> httpx2.AsyncClient:
    return request.app.state.customers


Customers = Annotated[httpx2.AsyncClient, Depends(_customers)]

router = APIRouter(prefix="/v1/sign-ups", tags=["sign-ups"], route_class=ResourceRoute, lifespan=_lifespan)


class NewSignUp(fields.RequestModel):
    name: str


@router.post("", status_code=201, response_model=OrderDetails)
async def create_sign_up(body: NewSignUp, customers: Customers) -> Order:
    """Create a customer and an order."""
    customer = await create_customer(customers, NewCustomer(name=body.name))
    command = CreateOrder(order_id=new_id(), customer_id=customer.id)
    async with transaction() as uow:
        return await create_order(command, uow, now=utc_now())
'''
"""The route that a team writes by the pages `call-another-service` and `call-with-types`."""


class Wire(Link):
    """A link between the services that counts the requests of the caller, and can let the answers drip."""

    requests = 0
    dripping = False

    def carry(self, data: bytes, sink: socket.socket) -> None:
        if sink.getpeername()[1] == self._target[1]:
            self.requests += len(re.findall(rb"^(?:GET|POST) /v1/", data, re.MULTILINE))
        elif self.dripping:
            for byte in data:
                sink.sendall(bytes([byte]))
                time.sleep(0.05)
            return
        sink.sendall(data)


@dataclass
class Pair:
    """The running services, and the links from orders to customers and from customers to its database."""

    orders: Part
    customers: Part
    wire: Wire
    database: Link
    databases: dict[str, str]
    base: str
    folder: Path

    def connections(self) -> int:
        """Return how many connections orders has to customers."""
        found = psutil.Process(self.orders.pid).net_connections("tcp")
        return sum(each.raddr != () and each.raddr.port == self.wire.port for each in found)

    def memory_mib(self) -> float:
        return psutil.Process(self.orders.pid).memory_info().rss / 2**20

    def logs(self) -> str:
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in sorted(self.folder.glob("*.log")))


def write_orders(orders: Path, customers: Path) -> None:
    """Let orders call customers: the typed functions, the setting of the address, and one route."""
    _run(customers, "-m", "customers", "specs")
    environment = service_environment(PYTHONPATH=str(ROOT))
    fleet = [sys.executable, "-m", "fleet", "client", "customers", "create_customer", "--from", str(customers)]
    subprocess.run(fleet, cwd=orders, env=environment, check=True, capture_output=True)
    settings = orders / "src/orders/settings.py"
    field = "\n    customers_url: HttpUrl | None = None\n"
    settings.write_text(
        settings.read_text().replace("\n\n\nclass", "\nfrom pydantic import HttpUrl\n\n\nclass", 1) + field
    )
    (orders / "src/orders/api/sign_ups.py").write_text(SIGN_UPS)


@contextlib.contextmanager
def pair(render: Callable[..., Path], receiver: OtlpReceiver) -> Generator[Pair]:
    """Generate, migrate and start both services on one PostgreSQL server. Stop them at the end."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="calls-", ignore_cleanup_errors=True)))
        folder.chmod(0o755)
        services = {name: folder / name for name in AGGREGATES}
        for name, service in services.items():
            shutil.copytree(render(service_name=name, aggregates=AGGREGATES[name], **ANSWERS), service)
        write_orders(services["orders"], services["customers"])
        (folder / "postgres").mkdir()
        postgres = Postgres(folder / "postgres", brokers.free_port())
        postgres.start()
        stack.callback(postgres.stop)
        databases = {name: urlsplit(postgres.url)._replace(path=f"/{name}").geturl() for name in services}
        asyncio.run(create(postgres.url, list(databases)))
        ports = {name: brokers.free_port() for name in services}
        wire = stack.enter_context(Wire(f"tcp://127.0.0.1:{ports['customers']}"))
        database = stack.enter_context(Link(databases["customers"]))
        traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "TRACE_SAMPLE_RATIO": "0"}
        usual = {"DRAIN_SECONDS": "0", "DATABASE_POOL_SIZE": str(POOL_SIZE), **traces}
        own = {
            "customers": {"DATABASE_URL": database.url},
            "orders": {
                "DATABASE_URL": databases["orders"],
                "CUSTOMERS_URL": f"http://127.0.0.1:{wire.port}",
                "NEIGHBOUR_TIMEOUT_SECONDS": str(CALL_SECONDS),
                "NEIGHBOUR_CALLS_AT_ONCE": str(CALLS_AT_ONCE),
                "REQUEST_TIMEOUT_SECONDS": str(REQUEST_SECONDS),
            },
        }
        parts = {}
        for name, service in services.items():
            _run(service, "-m", name, "migrate", DATABASE_URL=databases[name])
            environment = {"PYTHONPATH": str(service / "src"), "HTTP_PORT": str(ports[name]), **usual, **own[name]}
            parts[name] = Part([sys.executable, "-m", name, "serve"], folder / f"{name}.log", **environment)
            parts[name].start()
            stack.callback(parts[name].stop)
        made = Pair(
            parts["orders"],
            parts["customers"],
            wire,
            database,
            databases,
            f"http://127.0.0.1:{ports['orders']}",
            folder,
        )
        for port in ports.values():
            _await(f"http://127.0.0.1:{port}", made)
        yield made


def _run(service: Path, *arguments: str, **settings: str) -> None:
    environment = service_environment(PYTHONPATH=str(service / "src"), **settings)
    done = subprocess.run([sys.executable, *arguments], cwd=service, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)


def _await(base: str, made: Pair) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        with contextlib.suppress(httpx2.HTTPError):
            if httpx2.get(f"{base}/readyz", timeout=10).status_code == 200:
                return
        if time.monotonic() > deadline:
            raise RuntimeError(f"a service did not start:\n{made.logs()}")
        time.sleep(0.05)
