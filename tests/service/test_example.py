"""`make demo`, and the example product that it starts: one trace, gates, killed services, and the end by Ctrl-C."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import asyncpg
import httpx2
import psutil
import pytest

from demo import __main__ as story
from demo import shop
from demo.service import DemoFailed, DemoService
from demo.shop import Product
from docs import pictures
from examples.__main__ import BUILD, SERVICES, SHOP, make_product
from fleet.up import control
from fleet.up.memory import Memory
from tests.support.commands import git, make, service_environment
from tests.support.paths import ROOT
from tests.support.waiting import wait_until

# These tests are one group, because `make demo` writes into build/, and its product is started once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("product"), pytest.mark.timeout(1800)]

DEMO_SECONDS = 1500
STALE = "run `make pictures`: a picture of README.md does not show what the programs show"

# Each span of a call or message between services, and each step of the saga, with its service and its parent.
TRACE = {
    ("POST /v1/checkouts", "storefront"): None,
    ("POST orders", "storefront"): "POST /v1/checkouts",
    ("POST /v1/purchases", "orders"): "POST orders",
    ("saga purchase request_payment", "orders"): "POST /v1/purchases",
    ("send payments.charge-card.v1", "orders"): "saga purchase request_payment",
    ("process payments.charge-card.v1", "payments"): "send payments.charge-card.v1",
    ("send payments.payment-charged.v1", "payments"): "process payments.charge-card.v1",
    ("process payments.payment-charged.v1", "orders"): "send payments.payment-charged.v1",
    ("saga purchase place_purchase", "orders"): "POST /v1/purchases",
    ("send orders.order-placed.v1", "orders"): "saga purchase place_purchase",
    ("process orders.order-placed.v1", "inventory"): "send orders.order-placed.v1",
    ("send inventory.stock-reserved.v1", "inventory"): "process orders.order-placed.v1",
    ("process inventory.stock-reserved.v1", "notifications"): "send inventory.stock-reserved.v1",
    ("send notifications.deliver-notification.v1", "notifications"): "process inventory.stock-reserved.v1",
    ("process notifications.deliver-notification.v1", "notifications"): "send notifications.deliver-notification.v1",
    ("send notifications.notification-sent.v1", "notifications"): "process notifications.deliver-notification.v1",
}


class Demo:
    """A run of `make demo` that has shown everything and waits for Ctrl-C."""

    def __init__(self, log: Path) -> None:
        self.log, self.memory = log, Memory(BUILD / ".fleet")
        with log.open("w") as output:
            # Where the tests run in the background of a shell, the demo inherits that SIGINT is ignored. Ctrl-C ends it all
            # the same, because the demo sets a handler of its own.
            self.process = subprocess.Popen(
                ["make", "demo"],
                cwd=ROOT,
                env=service_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def shown(self) -> str:
        return self.log.read_text()

    def services(self) -> dict[str, Any]:
        return {each["name"]: each for each in control.tell(self.memory, "status")["services"]}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Generator[Demo]:
    demo = Demo(tmp_path_factory.mktemp("demo") / "demo.log")
    try:
        wait_until(
            lambda: story.STAYS in demo.shown() or demo.process.poll() is not None, demo.shown, seconds=DEMO_SECONDS
        )
        assert demo.process.poll() is None, demo.shown()
        yield demo
    finally:
        with suppress(ProcessLookupError):
            os.killpg(demo.process.pid, signal.SIGINT)
        demo.process.wait(120)


@pytest.fixture
def product(demo: Demo) -> Product:
    return shop.current()


def test_the_demo_shows_every_step(demo: Demo) -> None:
    shown = demo.shown()
    refused = ("401 Unauthorized", "404 Not Found", "409 Conflict", "422 Unprocessable", "503 Service Unavailable")
    for status in ("201 Created", "200 OK", *refused):
        assert status in shown
    assert "first 200 after" in shown.partition("fleet up runs the code of")[0]
    # The pictures of README.md show the same.
    assert pictures.shape(pictures.text_in(pictures.TRACE)) == pictures.shape(pictures.trace_in(shown)), STALE
    addresses = pictures.dev_in((ROOT / "build/demo/billing/.dev/demo.log").read_text())
    assert pictures.shape(addresses) <= pictures.shape(pictures.text_in(pictures.DEV)), STALE


def spans_of(product: Product, trace_id: str) -> dict[str, dict[str, Any]]:
    entries = httpx2.get(f"{product.page}traces/{trace_id}", timeout=60).json()["entries"]
    return {each["id"]: each for each in entries if "name" in each}


def roots(spans: dict[str, dict[str, Any]]) -> list[str]:
    return [each["name"] for each in spans.values() if each["parent"] not in spans]


def test_a_checkout_is_one_trace_through_five_services_and_the_broker(demo: Demo, product: Product) -> None:
    trace_id = re.search(r"as one trace \((\w+)\)", demo.shown())[1]
    spans = spans_of(product, trace_id)
    assert roots(spans) == ["POST /v1/checkouts"]
    parents = {
        (each["name"], each["service"]): spans[each["parent"]]["name"] if each["parent"] in spans else None
        for each in spans.values()
        if (each["kind"] in {"SERVER", "PRODUCER", "CONSUMER"} or each["name"].startswith(("POST", "saga")))
        and "advance-saga" not in each["name"]
    }
    assert parents == TRACE
    kinds = {each["name"].split()[0]: each["kind"] for each in spans.values()}
    assert (kinds["send"], kinds["process"]) == ("PRODUCER", "CONSUMER")


TOO_MUCH = story.CHECKOUT | {"lines": [{"sku": "teapot", "quantity": 100}] * 3}
"""A checkout that costs too much: no card is charged for it."""

UNDONE = "saga purchase undo request_payment"


class Purchases:
    """The checkouts of a product that runs, and the sagas of its orders."""

    def __init__(self, product: Product, variables: dict[str, str]) -> None:
        self.product, self._variables = product, variables
        self._traces: dict[str, str] = {}
        self.clients = {name: product.client(name) for name in ("storefront", "orders", "payments")}

    def buy(self, checkout: dict[str, Any]) -> str:
        """Return the id of the order."""
        answer = self.clients["storefront"].post("/v1/checkouts", json=checkout).raise_for_status()
        order_id = answer.json()["order_id"]
        self._traces[order_id] = answer.headers["X-Request-Id"]
        return order_id

    def status(self, order_id: str) -> str:
        answer = self.clients["orders"].get(f"/v1/orders/{order_id}")
        return answer.json()["status"] if answer.status_code == 200 else "deleted"

    def outcomes(self, order_id: str) -> list[str]:
        """Return the outcome of each payment of the order, as the service payments has stored it."""
        found = self.clients["payments"].get("/v1/payments?limit=100").json()["items"]
        return [each["outcome"] for each in found if each["order_id"] == order_id]

    def let_time_out(self, order_id: str) -> None:
        """End the time in which the order has to be paid."""

        late = "UPDATE chassis.sagas SET deadline = now(), due_at = now() WHERE key = $1 AND state = 'waiting' RETURNING id"
        wait_until(lambda: self._sagas(late, order_id))

    def sagas(self, order_id: str, state: str) -> list[str]:
        """Return the id of the order's saga, if it is in this state."""
        shown = "CASE WHEN problem IS NULL THEN state ELSE 'parked' END"
        return self._sagas(f"SELECT id FROM chassis.sagas WHERE key = $1 AND {shown} = '{state}'", order_id)

    def _sagas(self, query: str, order_id: str) -> list[str]:
        async def ask() -> list[str]:
            connection = await asyncpg.connect(self._variables["DATABASE_URL"])
            try:
                return [str(row["id"]) for row in await connection.fetch(query, order_id)]
            finally:
                await connection.close()

        return asyncio.run(ask())

    def command(self, *arguments: str) -> str:
        command = [".venv/bin/python", "-m", "orders", "sagas", *arguments]
        done = subprocess.run(command, cwd=BUILD / "orders", env=self._variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def is_one_trace(self, order_id: str, *names: str) -> bool:
        """Return whether the spans of these names and of three services are one tree."""
        spans = spans_of(self.product, self._traces[order_id])
        found = {each["name"] for each in spans.values()}
        services = {each["service"] for each in spans.values()}
        is_whole = found >= set(names) and services >= {"storefront", "orders", "payments"}
        return is_whole and roots(spans) == ["POST /v1/checkouts"]


@pytest.fixture
def purchases(demo: Demo, product: Product) -> Generator[Purchases]:
    variables = psutil.Process(demo.services()["orders"]["pid"]).environ()
    purchases = Purchases(product, variables)
    yield purchases
    for client in purchases.clients.values():
        client.close()


def test_a_refused_checkout_and_a_late_charge_and_a_decision_of_a_person_are_one_trace_each(
    demo: Demo, product: Product, purchases: Purchases
) -> None:
    product.act("payments", "stop")
    wait_until(lambda: product.state("payments") == "stopped", demo.shown)
    late, placed = purchases.buy(story.CHECKOUT), purchases.buy(TOO_MUCH)
    # An employee places an order that is not paid for, so its compensation fails.
    purchases.clients["orders"].post(f"/v1/orders/{placed}/place", headers={"If-Match": "*"}).raise_for_status()
    purchases.let_time_out(late)
    wait_until(lambda: purchases.status(late) == "deleted", demo.shown)
    product.act("payments", "start")
    wait_until(lambda: product.state("payments") == "ready", demo.shown)

    refused = purchases.buy(TOO_MUCH)
    wait_until(lambda: purchases.status(refused) == "deleted", demo.shown)
    wait_until(lambda: purchases.outcomes(refused) == ["refunded"], demo.shown)
    wait_until(lambda: purchases.outcomes(late) == ["refunded"], demo.shown)

    [saga_id] = wait_until(lambda: purchases.sagas(placed, "parked"), demo.shown)
    assert "OrderAlreadyPlaced" in purchases.command("show", saga_id)
    purchases.command("retry", saga_id, "--by-hand")
    wait_until(lambda: purchases.sagas(placed, "abandoned"), demo.shown)
    assert (purchases.status(placed), purchases.outcomes(placed)) == ("placed", [])

    refund = (UNDONE, "process payments.refund-card.v1")
    for order_id, spans in ((refused, refund), (late, refund), (placed, (UNDONE,))):
        wait_until(lambda order_id=order_id, spans=spans: purchases.is_one_trace(order_id, *spans), demo.shown)


@pytest.mark.usefixtures("demo")
@pytest.mark.parametrize("name", SERVICES)
def test_a_service_passes_the_gates_with_the_files_of_its_team(name: str, postgres_url: str) -> None:
    own = [str(path.relative_to(SHOP / name)) for path in sorted((SHOP / name / "tests").glob("*/test_*.py"))]
    # No gate for specs/ runs, because `make setup` has just written specs/ from this code.
    gates = ("format-check", "lint", "types", "layers", "test")
    make(BUILD / name, "-k", "-j2", *gates, f"ARGS={' '.join(own)}", f"DATABASE_URL={postgres_url}")


@pytest.mark.usefixtures("demo")
def test_the_map_of_the_product_has_no_findings_but_an_event_for_nobody() -> None:
    # The command has a process of its own, because the readers of repositories live as long as their process.
    command = [sys.executable, "-m", "fleet", "map", f"--config={BUILD / 'fleet.toml'}"]
    shown = subprocess.run(command, env=service_environment(PYTHONPATH=str(ROOT)), capture_output=True, text=True)
    assert (shown.returncode, "map-event-unheard" in shown.stdout) == (0, True), shown.stdout + shown.stderr
    assert shown.stdout.endswith("5 services, 1 call, 5 events and 2 jobs between them; 1 warning\n")


@pytest.mark.parametrize("name", SERVICES)
def test_the_product_recovers_from_a_killed_service_while_the_others_stay_ready(
    demo: Demo, product: Product, name: str
) -> None:
    before = demo.services()
    os.kill(before[name]["pid"], signal.SIGKILL)
    wait_until(lambda: demo.services()[name]["restarts"] > before[name]["restarts"], demo.shown)
    for other in set(SERVICES) - {name}:
        assert httpx2.get(f"{product.urls[other]}/readyz", timeout=60).status_code == 200
    wait_until(lambda: demo.services()[name]["state"] == "ready", demo.shown)
    after = demo.services()
    assert {each for each in SERVICES if after[each]["pid"] != before[each]["pid"]} == {name}
    with product.client("storefront") as client:
        order = client.post("/v1/checkouts", json=story.CHECKOUT).raise_for_status().json()["order_id"]
    with product.client("notifications") as client:
        path = f"/v1/notifications/{order}"
        wait_until(lambda: client.get(path).json().get("status") == "sent", demo.shown)


@pytest.mark.parametrize(("ci", "status"), [("1", 0), ("", 1)])
def test_the_demo_ends_by_itself_only_on_ci(
    ci: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = ("BILLING", "Ahead", "started", "client_of", "expect", "show_billing", "Making", "running", "current")
    for name in (*steps, "clean_up_after_this_process"):
        monkeypatch.setattr(story, name, MagicMock())
    monkeypatch.setattr(story, "show_product", lambda product: None)
    monkeypatch.setenv("CI", ci)
    # Without CI, the demo waits until `fleet up` ends, and then fails.
    assert story.main() == status
    assert (story.STAYS in capsys.readouterr().out) == (status == 1)


def test_an_interrupted_demo_ends_the_installation_of_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shop, "INSTALL", ["sleep", "600"])
    with shop.Making() as making:
        group = making.process.pid
        # The child of a shell loses a signal that comes before the child has become its program.
        wait_until(lambda: [each.name() for each in psutil.Process(group).children()] == ["sleep"])
    wait_until(lambda: not _is_alive(group))


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("commits", "edited", "is_kept"), [(0, True, False), (1, False, False), (1, True, True), (2, False, True)]
)
def test_a_new_run_keeps_the_copy_that_somebody_has_changed(
    tmp_path: Path, commits: int, edited: bool, is_kept: bool
) -> None:
    service = DemoService("billing", tmp_path / "answers.yml", place=tmp_path)
    service.folder.mkdir()
    git(service.folder, "init", "--quiet")
    for _ in range(commits):
        git(service.folder, "commit", "--quiet", "--allow-empty", "--message", "Change")
    if edited:
        (service.folder / "edited").touch()
    kept = service.make_room()
    assert (kept is not None, service.folder.exists()) == (is_kept, False)
    assert len([*tmp_path.iterdir()]) == is_kept


def test_a_new_run_uses_the_installed_packages_of_the_last_run(tmp_path: Path) -> None:
    service = DemoService("billing", tmp_path / "answers.yml", place=tmp_path)
    for folder in (".venv", ".dev", "src"):
        (service.folder / folder).mkdir(parents=True)
    (service.folder / "link").symlink_to(tmp_path / "missing")
    assert service.make_room() is None
    assert [path.name for path in service.folder.iterdir()] == [".venv"]


def test_a_product_that_runs_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Memory, "running", lambda memory: {"port": 1})
    (tmp_path / "orders").mkdir()
    with pytest.raises(DemoFailed, match="end it by `fleet down --config"):
        make_product(tmp_path)
    assert (tmp_path / "orders").exists()


def processes() -> list[list[str]]:
    """Return the command lines of all processes of the demo, by their folder or their arguments."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            places = " ".join([process.cwd(), *process.cmdline()])
            if process.status() != psutil.STATUS_ZOMBIE and any(
                str(place) in places for place in (BUILD, ROOT / "build/demo")
            ):
                found.append(process.cmdline())
    return found


PRODUCT_ALONE = """
from unittest.mock import MagicMock
from demo import __main__ as story

for name in ("BILLING", "Ahead", "started", "client_of", "expect", "show_billing", "show_product", "Making"):
    setattr(story, name, MagicMock())
story.main()
"""
"""The demo with the product of an earlier run, and without the steps before and after its start."""


def test_ctrl_c_ends_the_demo_and_its_processes(demo: Demo) -> None:
    assert len(processes()) > len(SERVICES)
    os.killpg(demo.process.pid, signal.SIGINT)
    demo.process.wait(120)
    wait_until(lambda: not processes(), processes)
    assert "all services have ended" in demo.shown()
    assert "Traceback" not in demo.shown()


@pytest.mark.usefixtures("demo")
def test_a_killed_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    with log.open("w") as output:
        command = [sys.executable, "-c", PRODUCT_ALONE]
        demo = subprocess.Popen(command, cwd=ROOT, env=service_environment(), stdout=output, stderr=output)
    # It is killed while the services start.
    wait_until(lambda: len(processes()) > len(SERVICES) or demo.poll() is not None, log.read_text)
    assert demo.poll() is None, log.read_text()
    demo.kill()
    demo.wait()
    wait_until(lambda: not processes(), processes)
