"""The services of a run, as the page shows them. The page calls the methods from threads of its own."""

import asyncio
import resource
import subprocess
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from chassis.dev.embedded import postgres_program
from chassis.dev.viewer.product import Edge, RefusedAction, ServiceState

from fleet.map.model import Kind
from fleet.map.reader import read_folders
from fleet.up.service import ProductService
from fleet.up.wiring import Shared, environment

COMMAND_SECONDS = 60


class PageProduct:
    """Implements chassis.dev.viewer.product.Product."""

    command = "fleet up"

    def __init__(
        self, services: Mapping[str, ProductService], shared: asyncio.Future[Shared], stubs: Mapping[str, str]
    ) -> None:
        self._all, self._shared, self._loop = services, shared, asyncio.get_running_loop()
        self._stubs = [ServiceState(name, "stub", url=url) for name, url in stubs.items()]
        self._reading, self._edges = threading.Lock(), (dict[Path, int](), list[Edge]())

    def services(self) -> Sequence[ServiceState]:
        running = [
            ServiceState(
                name=name,
                state=one.state,
                doing=one.doing,
                url=one.url,
                docs_url=f"{one.url}/docs",
                version=one.version,
                migration=one.migration,
                restarts=max(one.restarts, 0),
                memory_bytes=_memory(one),
                checkout=str(one.checkout.folder),
                psql=f"{postgres_program('psql') or 'psql'} {self._database(name)}",
                problem=one.problem,
                panels=("sagas",) if one.checkout.has_sagas else (),
            )
            for name, one in self._all.items()
        ]
        return running + self._stubs

    def _database(self, name: str) -> str:
        return self._shared.result().databases[name] if self._shared.done() and not self._shared.cancelled() else ""

    def declared(self) -> Collection[Edge] | None:
        """Return the edges on the map of the checkouts. Read the map again only after a change of the files in specs/."""
        folders = [one.checkout.folder for one in self._all.values()]
        specs = [file for folder in folders for file in folder.glob("specs/**/*.json")]
        # The lock file of an editor may be a broken link, which `is_file` leaves out.
        state = {file: file.stat().st_mtime_ns for file in specs if file.is_file()}
        with self._reading:
            if state != self._edges[0]:
                self._edges = (state, list(_declared(folders)))
        return self._edges[1]

    def act(self, service: str, action: str) -> None:
        self._loop.call_soon_threadsafe(self._running(service).ask, action)

    def _running(self, name: str) -> ProductService:
        if name not in self._all:
            raise RefusedAction(
                f"{name} is a stub, which has no process: `fleet up --around {name}` starts the service"
            )
        return self._all[name]

    def run(self, service: str, *arguments: str) -> str:
        one = self._running(service)
        if not self._shared.done():
            raise RefusedAction(f"{service} has no database yet: wait until it has started")
        command = [str(one.checkout.folder / ".venv/bin/python"), "-m", one.checkout.package, *arguments]
        try:
            done = subprocess.run(
                command,
                cwd=one.checkout.folder,
                env=environment(one.checkout, one.known, self._shared.result()),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=COMMAND_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RefusedAction(f"{' '.join(arguments)} of {service} did not end well: {error}") from None
        if done.returncode != 0:
            raise RefusedAction(
                done.stderr.strip()[-2000:] or f"{' '.join(arguments)} ended with status {done.returncode}"
            )
        return done.stdout


def _declared(folders: list[Path]) -> Collection[Edge]:
    map_ = read_folders(folders)
    found = set()
    for edge in map_.edges:
        if edge.kind is not Kind.CALL:
            found.add(Edge(edge.source, edge.target, "message", edge.name))
        elif edge.declared or edge.target in map(map_.service_of, map_.services[edge.source].uses):
            found.add(Edge(edge.source, edge.target, "http"))
    return found


def _memory(one: ProductService) -> int:
    """Return the memory that the process holds, where the system shows it in /proc."""
    with suppress(OSError, ValueError, IndexError):
        if one.process and not one.process.ended.done():
            return int(Path(f"/proc/{one.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()
    return 0
