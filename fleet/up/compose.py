"""Kafka and RabbitMQ, which have no wheel, from the Compose file of a service, where Docker or Podman runs."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chassis.dev.embedded import EmbeddedServerError, spawn
from chassis.dev.embedded.child_process import Server

from fleet.up.memory import Memory
from fleet.up.product import Checkout

PROGRAMS = ("docker", "podman")
URLS = {"kafka": "kafka://127.0.0.1:{}", "rabbitmq": "amqp://guest:guest@127.0.0.1:{}"}
GREETINGS = {"kafka": bytes.fromhex("0000000c001200000000000100026d65"), "rabbitmq": b"AMQP\0\0\x09\x01"}
"""The first bytes of a client. A broker that answers them is ready; the port of a container is open before that."""

COMMAND_SECONDS = 60
START_SECONDS = 600
"""The engine may have to fetch the image."""

STOP_SECONDS = "3"
"""The time for the container to stop, less than the patience of the watchdog of `spawn`."""


@dataclass(frozen=True)
class ComposeBroker:
    """A broker of the Compose file in `folder`, in a project of its own, so that the file's other containers stay untouched."""

    kind: str
    folder: Path
    program: str
    project: str
    _is_given_up: threading.Event = field(default_factory=threading.Event, compare=False)

    def start(self, log: Path, port: int, management_port: int) -> Server:
        """Start the container, and wait until the broker answers. Raises EmbeddedServerError."""
        ports = {"BROKER_PORT": str(port), "RABBITMQ_PORT": str(management_port)}
        log.parent.mkdir(exist_ok=True)
        with log.open("wb") as output:
            # The program is not detached: when this process ends, even by kill -9, the program ends and stops the container.
            process = spawn(
                self._command("up", "--no-deps", "--timeout", STOP_SECONDS, self.kind),
                stop_signal=signal.SIGTERM,
                cwd=self.folder,
                env=_environment() | ports,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + START_SECONDS
        while not _answers(port, GREETINGS[self.kind]):
            is_given_up = self._is_given_up.wait(0.1)
            if is_given_up or process.child.poll() is not None or time.monotonic() > deadline:
                process.stop()
                how = "was ended while it started" if is_given_up else "does not run"
                raise EmbeddedServerError(f"{self.kind} of {self.folder}/compose.yaml {how}: see {log}")
        return Server(URLS[self.kind].format(port), process)

    def give_up(self) -> None:
        """Make a start that waits for the broker fail, because the run ends."""
        self._is_given_up.set()

    def forget(self) -> None:
        """Delete the data of earlier runs."""
        self._run("down", "--volumes", "--timeout", "0")

    def is_there(self) -> bool:
        """Return whether the Compose file has the broker, and can be read. Compose looks for a missing file in folders above."""
        return (self.folder / "compose.yaml").is_file() and self.kind in self._run("config", "--services").split()

    def _command(self, *arguments: str) -> list[str]:
        return [self.program, "compose", "--project-name", self.project, *arguments]

    def _run(self, *arguments: str) -> str:
        return _run(self._command(*arguments), self.folder).stdout


def find_brokers(kinds: Collection[str], services: Sequence[Checkout], memory: Memory) -> dict[str, ComposeBroker]:
    """Return the brokers of these kinds that an engine of this machine can start from the Compose file of a service."""
    found: dict[str, ComposeBroker] = {}
    if program := _program() if kinds else None:
        run = hashlib.sha256(str(memory.folder).encode()).hexdigest()[:8]
        for service in services:
            broker = ComposeBroker(service.broker, service.folder, program, f"fleet-up-{run}-{service.broker}")
            if service.broker in {*kinds} - {*found} and broker.is_there():
                found[service.broker] = broker
    return found


def _program() -> str | None:
    """Return an engine that runs, and that has Compose."""
    for name in PROGRAMS:
        if (program := shutil.which(name)) and not any(
            _run([program, *asked], Path()).returncode for asked in (["version"], ["compose", "version"])
        ):
            return program
    return None


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _environment() -> dict[str, str]:
    """Return the variables for Compose, without the name of another file."""
    return {name: value for name, value in os.environ.items() if name != "COMPOSE_FILE"}


def _answers(port: int, greeting: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(greeting)
            return bool(connection.recv(1))
    except OSError:
        return False
