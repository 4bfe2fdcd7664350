"""A container of a service, from its operator's view: environment variables, ports, logs, exit status."""

import contextlib
import json
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
from chassis.dev.embedded import free_port

from tests.support.engine import Engine

LIMIT_SECONDS = 90
LOOK_SECONDS = 0.5
"""How often a wait asks the engine whether the container still runs. Each question starts a program."""

PRODUCTION = (
    *("--network", "host"),
    *("--read-only", "--tmpfs", "/tmp"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)
"""The restrictions of deploy/base. The container uses the machine's network, for the tests' Postgres and broker."""

T = TypeVar("T")


@dataclass(frozen=True)
class Container:
    """A started container, which may have ended since."""

    engine: Engine
    id: str
    port: int

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **options: Any) -> httpx2.Response | None:
        """Get a path of the container. Raises an error of HTTPX if no process answers."""
        try:
            return httpx2.get(f"{self.base}{path}", timeout=60, **options)
        except httpx2.TransportError:
            return None

    def output(self) -> tuple[str, str]:
        """Return standard output and standard error, up to now."""
        done = self.engine.docker("logs", self.id)
        return done.stdout, done.stderr

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the events of that name in the log."""
        lines = [json.loads(line) for line in self.output()[0].splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == name]

    def ended(self) -> int:
        """Wait for the end of the container, and return the exit status."""
        return int(self.engine.docker("wait", self.id).stdout)

    def until(self, what: str, condition: Callable[[], T]) -> T:
        """Return the first true value of the condition. Raises AssertionError if the container ends, or too late."""
        looked = time.monotonic()
        deadline = looked + LIMIT_SECONDS
        while not (found := condition()):
            if time.monotonic() - looked > LOOK_SECONDS:
                running = self.engine.inspect(self.id)["State"]["Running"]
                assert running, f"it ended before {what}: {self.output()}"
                looked = time.monotonic()
            assert time.monotonic() < deadline, f"not {what}: {self.output()}"
            time.sleep(0.05)
        return found

    def until_ready(self) -> httpx2.Response:
        return self.until("ready", lambda: (answer := self.get("/readyz")) and answer.is_success and answer)

    def stop(self, patience_seconds: int = 60) -> int:
        """Stop as every engine and orchestrator does: SIGTERM (the image may name another signal), later SIGKILL."""
        self.engine.docker("stop", "--time", str(patience_seconds), self.id)
        return self.ended()


@contextlib.contextmanager
def started(
    engine: Engine, image: str, *command: str, options: tuple[str, ...] = (), **settings: Any
) -> Generator[Container]:
    """Run a container with the restrictions of production, on a port of its own, and remove it at the end."""
    port = settings.setdefault("HTTP_PORT", free_port())
    settings.setdefault("DRAIN_SECONDS", 0)
    environment = [part for name, value in settings.items() for part in ("--env", f"{name}={value}")]
    made = engine.docker("run", "--detach", *PRODUCTION, *environment, *options, image, *command)
    container = Container(engine, made.stdout.strip(), int(port) if str(port).isdecimal() else 0)
    try:
        yield container
    finally:
        engine.docker("rm", "--force", "--volumes", container.id)


def run(engine: Engine, image: str, *command: str, **settings: Any) -> tuple[int, str]:
    """Run a command to its end, and return its exit status and its output."""
    with started(engine, image, *command, **settings) as container:
        status = container.ended()
        return status, "".join(container.output())
