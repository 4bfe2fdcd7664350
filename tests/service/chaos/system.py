"""Two talking services and a clerk, whose processes, servers, networks, disks and clocks a test can break and repair."""

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx2
import psutil
import pytest
from chassis.database import migrate
from chassis.dev import embedded

from tests.service.chaos.clerk.main import SERVICE as CLERK
from tests.service.chaos.counter.main import SERVICE as COUNTER
from tests.service.chaos.journal.main import SERVICE as JOURNAL
from tests.support import brokers, debian
from tests.support.link import Link
from tests.support.paths import ROOT

START_TIMEOUT_SECONDS = 120
DISK = "size=1500m"
"""Enough for the data of a run, and for the space that RabbitMQ and PostgreSQL keep free."""


class Postgres:
    """A durable server that can be killed, and restarts on its port with its data."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self._running = contextlib.ExitStack()
        self.url = ""

    def start(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            try:
                self.url = self._running.enter_context(embedded.postgres(self._folder, durable=True, port=self._port))
                return
            except embedded.EmbeddedServerError:  # children of the killed server still run
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    @property
    def pid(self) -> int:
        """Return the id of the postmaster. Raises FileNotFoundError for a server that has ended by itself."""
        return int((self._folder / "data" / "postmaster.pid").read_text().split()[0])

    def kill(self) -> None:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._running.close()

    def stop(self) -> None:
        self._running.close()


class Part:
    """One process of a service."""

    def __init__(self, arguments: list[str], log: Path, **settings: str) -> None:
        self._arguments = arguments
        self._log = log
        self._settings = settings
        self._process: embedded.Process | None = None

    def start(self) -> None:
        ours = {name: it for name, it in os.environ.items() if not name.startswith(("OTEL_", "PYTEST_"))}
        with self._log.open("ab") as output:
            self._process = embedded.spawn(
                self._arguments,
                stop_signal=signal.SIGTERM,
                cwd=ROOT,
                env={**ours, "PYTHONPATH": str(ROOT), **self._settings},
                stdout=output,
                stderr=output,
            )

    def change(self, **settings: str) -> None:
        """Give these settings to the process from its next start on."""
        self._settings |= settings

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.child.pid

    @property
    def status(self) -> int | None:
        """Return the exit status, or None while the process runs."""
        assert self._process is not None
        return self._process.child.poll()

    def kill(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):  # the process may have ended by itself
            os.killpg(self.pid, signal.SIGKILL)
        self._process.stop()

    def stop(self) -> int:
        """Ask the process to end, and wait until it has. Returns its exit status."""
        assert self._process is not None
        self._process.stop()
        return self._process.child.wait()


Killable = Part | Postgres | brokers.Broker


@dataclass
class System:
    """All running parts, by the names that troubles use."""

    parts: dict[str, Killable]
    databases: dict[str, str]
    base: str
    folder: Path
    links: dict[str, Link] = field(default_factory=dict)
    """The links from a process to a server, such as `relay-database`."""
    disks: dict[str, Path] = field(default_factory=dict)
    """The disks of the servers, by their names in `parts`, if this machine allows a mount."""
    clocks: dict[str, Path] = field(default_factory=dict)
    """Files with the error of a process' clock in seconds, such as `+600`."""

    async def wait_until_up(self) -> None:
        """Wait until the service answers and the consumer has its queue, without which RabbitMQ keeps no message."""
        async with httpx2.AsyncClient(base_url=self.base) as client:
            deadline = time.monotonic() + START_TIMEOUT_SECONDS
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx2.HTTPError):
                    ready = (await client.get("/readyz")).status_code == 200
                    if ready and any(
                        "consumer_started" in log.read_text() for log in self.folder.glob("consumer*.log")
                    ):
                        return
                await asyncio.sleep(0.05)
        raise RuntimeError(f"the service did not start:\n{self.logs()}")

    def logs(self) -> str:
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in sorted(self.folder.glob("*.log")))


@contextlib.contextmanager
def system(broker: str, *, with_clerk: bool = False, tormented: bool = False, **settings: str) -> Generator[System]:
    """Start all parts of the two services, on one PostgreSQL with a database for each. Stop them at the end.

    `with_clerk` adds the clerk's worker, and the command that publishes its states again and again. `tormented` adds the
    clerk and what `troubles` needs: second workers, links, disks and clocks. `settings` apply to every process.
    """
    with_clerk = with_clerk or tormented
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True)))
        folder.chmod(0o755)
        made = System({}, {}, "", folder)
        for name in ("postgres", "broker"):
            (folder / name).mkdir()
            if tormented and _mounted(folder / name, stack):
                made.disks[name] = folder / name

        # Kafka's clients connect to the address that the broker names to them, so all of them share one link.
        ports = {"database": brokers.free_port(), "broker": brokers.free_port()}
        shared: dict[str, Link] = {}
        options = {}
        if tormented and broker == "kafka":
            shared["broker"] = made.links["all-broker"] = stack.enter_context(_link(ports["broker"]))
            options["advertised_port"] = shared["broker"].port
        running = stack.enter_context(brokers.BROKERS[broker](folder / "broker", ports["broker"], **options))
        postgres = Postgres(folder / "postgres", ports["database"])
        postgres.start()
        stack.callback(postgres.stop)
        services = [COUNTER, JOURNAL, *[CLERK][: int(with_clerk)]]
        made.databases = {
            service.name: urlsplit(postgres.url)._replace(path=f"/{service.name}").geturl() for service in services
        }
        asyncio.run(create(postgres.url, list(made.databases)))
        for service in services:
            migrate.upgrade(service, made.databases[service.name])
        library = _faketime() if tormented else None

        def part(service: str, command: str, name: str, http_port: int) -> Part:
            ways = {"database": made.databases[service], "broker": running.url}
            environment = {"HTTP_PORT": str(http_port), "DRAIN_SECONDS": "0", **settings}
            if tormented:
                for server, port in ports.items():
                    link = shared.get(server)
                    if link is None:
                        link = made.links[f"{name}-{server}"] = stack.enter_context(_link(port))
                    ways[server] = link.through(ways[server])
                if library is not None:
                    made.clocks[name] = folder / f"{name}.clock"
                    made.clocks[name].write_text("+0")
                    environment |= _clock(library, made.clocks[name])
            environment |= {"DATABASE_URL": ways["database"], "BROKER_URL": ways["broker"], "PROBE_DETAILS": "true"}
            program = [sys.executable, "-m", f"tests.service.chaos.{service}", *command.split()]
            if command.startswith("republish"):
                program = ["sh", "-c", f"while :; do {shlex.join(program)}; sleep 1; done"]
            return Part(program, folder / f"{name}.log", **environment)

        port = brokers.free_port()
        made.base = f"http://127.0.0.1:{port}"
        parts = {
            "service": part("counter", "serve", "service", port),
            "relay": part("counter", "work", "relay", brokers.free_port()),
            "consumer": part("journal", "work", "consumer", brokers.free_port()),
        }
        if with_clerk:
            parts["clerk"] = part("clerk", "work", "clerk", brokers.free_port())
            parts["republish"] = part("clerk", "republish gauges --per-second 2", "republish", brokers.free_port())
        if tormented:
            parts["relay-2"] = part("counter", "work", "relay-2", brokers.free_port())
            parts["consumer-2"] = part("journal", "work", "consumer-2", brokers.free_port())
            parts["clerk-2"] = part("clerk", "work", "clerk-2", brokers.free_port())
        for one in parts.values():
            one.start()
            stack.callback(one.stop)
        made.parts = {**parts, "broker": running, "postgres": postgres}
        yield made


def processes(part: Killable) -> list[psutil.Process]:
    """Return the part's process and all of its descendants."""
    first = psutil.Process(part.pid)
    return [first, *first.children(recursive=True)]


def _link(port: int) -> Link:
    return Link(f"tcp://127.0.0.1:{port}")


def _mounted(folder: Path, stack: contextlib.ExitStack) -> bool:
    """Mount a small disk on the folder until the stack is closed. Return False if this machine does not allow that."""
    if os.geteuid() != 0 or sys.platform != "linux":
        return False
    if subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", folder], capture_output=True).returncode != 0:
        return False
    stack.callback(subprocess.run, ["umount", "--lazy", folder], check=True)
    return True


def _faketime() -> Path | None:
    """Return the library that changes a process' clock, if this machine can install it."""
    try:
        return next(debian.unpacked("libfaketime").glob("usr/lib/*/faketime/libfaketimeMT.so.1"))
    except pytest.skip.Exception:
        return None


def _clock(library: Path, clock: Path) -> dict[str, str]:
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


async def create(url: str, names: list[str]) -> None:
    connection = await asyncpg.connect(url)
    for name in names:
        await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()


async def connect(url: str) -> asyncpg.Connection:
    """Connect to a database, which may be restarting at the moment."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        try:
            return await asyncpg.connect(url)
        except (OSError, asyncpg.PostgresError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
