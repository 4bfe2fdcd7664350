"""The tiny service in a process of its own."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from chassis.dev import embedded

from tests.chassis.tiny.main import SERVICE
from tests.support.paths import ROOT

START_TIMEOUT_SECONDS = 120
EXIT_TIMEOUT_SECONDS = 90
LOG_TIMEOUT_SECONDS = 60


@dataclass
class Running:
    """The tiny service in a process of its own."""

    base: str
    process: embedded.Process
    output: Path

    @property
    def pid(self) -> int:
        return self.process.child.pid

    def events(self, **facts: object) -> list[dict[str, Any]]:
        """Return the log lines (JSON) of the process, or only the lines with these fields."""
        lines = [json.loads(line) for line in self.output.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if all(line.get(name) == fact for name, fact in facts.items())]

    def wait_for(self, **facts: object) -> dict[str, Any]:
        """Wait for the log line with these fields: a line may be written after the answer was sent."""
        deadline = time.monotonic() + LOG_TIMEOUT_SECONDS
        while not (found := self.events(**facts)):
            assert time.monotonic() < deadline, f"{facts} was not logged:\n{self.output.read_text()}"
            time.sleep(0.02)
        (line,) = found
        return line

    def tell(self, signal_: signal.Signals = signal.SIGTERM) -> None:
        os.kill(self.pid, signal_)

    def wait(self) -> int:
        """Wait for the end of the process, and return its exit status."""
        return self.process.child.wait(EXIT_TIMEOUT_SECONDS)


Start = Callable[..., Running]


def environment(**settings: object) -> dict[str, str]:
    """Return this process's environment without settings of the chassis, and with these settings."""
    known = {name.upper() for name in SERVICE.settings.model_fields}
    ours = {
        name: it for name, it in os.environ.items() if name not in known and not name.startswith(("OTEL_", "PYTEST_"))
    }
    return ours | {"PYTHONPATH": str(ROOT)} | {name: str(value) for name, value in settings.items()}


def start_process(
    folder: Path, command: Sequence[str], settings: dict[str, object], listener: socket.socket | None = None
) -> Running:
    """Start a service on a free port, or on the listening socket."""
    if listener is None:
        port, passed = embedded.free_port(), []
    else:
        port, passed = listener.getsockname()[1], [listener.fileno()]
        settings = settings | {"HTTP_FD": listener.fileno()}
    output = folder / f"service-{port}.log"
    with output.open("w") as log:
        process = embedded.spawn(
            [*command],
            stop_signal=signal.SIGKILL,  # reached only by a test that failed before it stopped the service itself
            env=environment(HTTP_PORT=port, **settings),
            cwd=ROOT,
            stdout=log,
            stderr=log,
            pass_fds=passed,
        )
    return Running(f"http://127.0.0.1:{port}", process, output)


def await_start(service: Running) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    with closing(httpx2.Client(base_url=service.base)) as client:
        while True:
            try:
                client.get("/livez")
                return
            except httpx2.TransportError:
                assert service.process.child.poll() is None, service.output.read_text()
                assert time.monotonic() < deadline, service.output.read_text()
                time.sleep(0.05)
