"""The example product in the demo: made in the background, run by `fleet up`, and asked as its customers would."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2

from demo.background import Background
from demo.service import ROOT, DemoFailed, environment, run

CONFIG = ROOT / "build" / "shop" / "fleet.toml"
STOP_SECONDS = 60
INSTALL = ["uv", "sync", "--quiet", "--inexact", "--no-default-groups", "--extra", "up"]
FLEET = [sys.executable, "-m", "fleet"]
READY = "Ctrl-C or `fleet down` ends all"


class Making(Background):
    """Install `fleet`, and make the services."""

    def __init__(self) -> None:
        super().__init__("the example product was", INSTALL, [sys.executable, "-m", "examples"])


@dataclass(frozen=True)
class Product:
    """The addresses of a product that runs. `page` ends with a slash."""

    urls: Mapping[str, str]
    page: str
    issuer: str

    def client(self, service: str) -> httpx2.Client:
        """A client whose token has all scopes of the service."""
        token = httpx2.post(self.issuer, data={"audience": service}, timeout=30).json()["access_token"]
        return httpx2.Client(
            base_url=self.urls[service], timeout=60, headers={"Authorization": f"Bearer {token}"}, trust_env=False
        )

    def act(self, service: str, action: str) -> None:
        """Press a button of the page: stop, start or restart."""
        httpx2.post(f"{self.page}services/{service}/{action}", timeout=60).raise_for_status()

    def state(self, service: str) -> str:
        states = httpx2.get(f"{self.page}product", timeout=60).json()["services"]
        return next(each["state"] for each in states if each["name"] == service)

    def trace(self, trace_id: str) -> list[str]:
        """Return the lines of a trace, as the page writes them; no lines if the trace has not arrived."""
        answer = httpx2.get(f"{self.page}traces/{trace_id}.txt", timeout=60)
        return answer.text.splitlines() if answer.status_code == 200 else []


def current() -> Product:
    """Ask `fleet up --status`. Raises DemoFailed unless all services are ready."""
    shown = run([*FLEET, "up", f"--config={CONFIG}", "--status", "--format", "json"], check=False)
    if shown.returncode != 0:
        raise DemoFailed("`fleet up` did not start every service; its lines above have the reason")
    state = json.loads(shown.stdout)
    urls = {service["name"]: service["url"] for service in state["services"]}
    return Product(urls, state["addresses"]["page"], state["addresses"]["tokens"].split()[-1])


@contextmanager
def running() -> Generator[subprocess.Popen[str]]:
    """`fleet up` with empty databases, until every service has started. Its lines are shown. At the end all is stopped."""
    process = subprocess.Popen(
        [*FLEET, "up", f"--config={CONFIG}", "--fresh"],
        cwd=ROOT,
        env=environment(COLUMNS="120"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    has_settled = threading.Event()
    reader = threading.Thread(target=_show, args=(process, has_settled), daemon=True)
    reader.start()
    try:
        has_settled.wait()
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        reader.join()


def _show(process: subprocess.Popen[str], has_settled: threading.Event) -> None:
    assert process.stdout
    for line in process.stdout:
        print(f"  {line.rstrip()}", flush=True)
        if READY in line:
            has_settled.set()
    has_settled.set()
