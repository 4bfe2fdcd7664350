"""`make demo`, and the example product that it starts: one trace, gates, killed services, and the end by Ctrl-C."""

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

# One group, because `make demo` writes into build/, and its product is started once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("example"), pytest.mark.timeout(1800)]

DEMO_SECONDS = 1500
STALE = "run `make pictures`: a picture of README.md does not show what the programs show"

# Each span in which services meet, with its service and its parent.
TRACE = {
    ("POST /v1/checkouts", "storefront"): None,
    ("POST orders", "storefront"): "POST /v1/checkouts",
    ("POST /v1/purchases", "orders"): "POST orders",
    ("POST payments", "orders"): "POST /v1/purchases",
    ("POST /v1/charges", "payments"): "POST payments",
    ("send orders.order-placed.v1", "orders"): "POST /v1/purchases",
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
            # The child of a background shell ignores SIGINT, unless it handles the signal itself.
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


def test_a_checkout_is_one_trace_through_five_services_and_the_broker(demo: Demo, product: Product) -> None:
    trace_id = re.search(r"as one trace \((\w+)\)", demo.shown())[1]
    entries = httpx2.get(f"{product.page}traces/{trace_id}", timeout=60).json()["entries"]
    spans = {each["id"]: each for each in entries if "name" in each}
    assert [each["name"] for each in spans.values() if each["parent"] not in spans] == ["POST /v1/checkouts"]
    parents = {
        (each["name"], each["service"]): spans[each["parent"]]["name"] if each["parent"] in spans else None
        for each in spans.values()
        if each["kind"] != "CLIENT" or each["name"].startswith("POST")
    }
    assert parents == TRACE
    kinds = {each["name"].split()[0]: each["kind"] for each in spans.values()}
    assert (kinds["send"], kinds["process"]) == ("PRODUCER", "CONSUMER")


@pytest.mark.usefixtures("demo")
@pytest.mark.parametrize("name", SERVICES)
def test_a_service_passes_the_gates_with_the_files_of_its_team(name: str, postgres_url: str) -> None:
    own = [str(path.relative_to(SHOP / name)) for path in sorted((SHOP / name / "tests").glob("*/test_*.py"))]
    gates = ("format-check", "lint", "types", "layers", "specs-check", "test")
    make(BUILD / name, "-k", "-j2", *gates, f"ARGS={' '.join(own)}", f"DATABASE_URL={postgres_url}")


@pytest.mark.usefixtures("demo")
def test_the_map_of_the_product_has_no_findings_but_an_event_for_nobody() -> None:
    # In a process of its own, because the readers of repositories live as long as their process.
    command = [sys.executable, "-m", "fleet", "map", f"--config={BUILD / 'fleet.toml'}"]
    shown = subprocess.run(command, env=service_environment(PYTHONPATH=str(ROOT)), capture_output=True, text=True)
    assert (shown.returncode, "map-event-unheard" in shown.stdout) == (0, True), shown.stdout + shown.stderr
    assert shown.stdout.endswith("5 services, 2 calls, 3 events and 0 jobs between them; 1 warning\n")


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
    for name in ("BILLING", "started", "client_of", "expect", "show_billing", "Making", "running", "current"):
        monkeypatch.setattr(story, name, MagicMock())
    monkeypatch.setattr(story, "show_product", lambda product: None)
    monkeypatch.setenv("CI", ci)
    assert story.main() == status  # without CI, the demo waits for `fleet up`, whose end is a failure
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


def test_ctrl_c_ends_the_demo_and_its_processes(demo: Demo) -> None:
    assert len(processes()) > len(SERVICES)
    os.killpg(demo.process.pid, signal.SIGINT)
    demo.process.wait(120)
    wait_until(lambda: not processes(), processes)
    assert "all services have ended" in demo.shown()
    assert "Traceback" not in demo.shown()
