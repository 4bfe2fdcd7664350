"""Run a product: the shared servers, all services, and the commands of other processes."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from chassis.dev.embedded import EmbeddedServerError, nats_server
from chassis.dev.token_server import TokenServer
from chassis.dev.viewer import log_copy
from chassis.dev.viewer import server as viewer

from fleet.errors import FleetError
from fleet.processes.programs import Guard
from fleet.up import control
from fleet.up.compose import ComposeBroker
from fleet.up.memory import Memory
from fleet.up.output import Output
from fleet.up.page import PageProduct
from fleet.up.product import Selection
from fleet.up.saves import restart_saved
from fleet.up.scopes import find_scopes
from fleet.up.servers import Servers, Start
from fleet.up.service import ProductService, Tools
from fleet.up.stubs import Stub
from fleet.up.wiring import Shared

ISSUER_PATH = "/issuer-of-fleet-up"
"""The path of the issuer's URL: another path than that of the issuer of `make dev`, which `serve` refuses."""

STEP_SECONDS = 0.1


@dataclass(frozen=True)
class Options:
    brokers: Mapping[str, str]
    """The URL for each kind of broker that runs already."""
    composed: Mapping[str, ComposeBroker] = field(default_factory=dict)
    """The brokers that a container engine runs."""
    keep: bool = False
    """Whether the traces and log lines of the page stay for the next run."""
    otlp: str = ""
    """The URL of another receiver for spans and metrics, instead of the page."""


class Supervisor:
    """One run of a product. `tell` shows a line to the person who has started the run."""

    def __init__(self, selection: Selection, memory: Memory, options: Options, tell: Callable[[str], None]) -> None:
        self._selection, self._memory, self._options, self._tell = selection, memory, options, tell
        self._checkouts = [*selection.started, *selection.left_out]
        self.services: dict[str, ProductService] = {}
        self._stub_ports: dict[str, int] = {}
        self._addresses: dict[str, str] = {}
        self._ended = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def status(self) -> dict[str, Any]:
        """Return what the table shows, as JSON has it."""
        return {
            "services": [
                {
                    "name": one.checkout.name,
                    "url": one.url,
                    "state": one.state,
                    "doing": one.doing,
                    "version": one.version,
                    "migration": one.migration,
                    "restarts": max(one.restarts, 0),
                    "problem": one.problem,
                    "note": one.socket.note,
                    "folder": str(one.checkout.folder),
                    "pid": one.process.pid if one.process and not one.process.ended.done() else None,
                }
                for one in self.services.values()
            ],
            "stubs": [
                {"name": one.name, "url": f"http://127.0.0.1:{self._stub_ports[one.name]}", "origin": one.origin}
                for one in self._selection.stubs
            ],
            "addresses": self._addresses,
        }

    def end(self) -> None:
        """End the run: `until_end` returns, and the start of a broker that waits for its container fails."""
        self._ended.set()
        for one in self._options.composed.values():
            one.give_up()

    @asynccontextmanager
    async def running(self, lock: int) -> AsyncGenerator["Supervisor"]:
        """Run everything inside the context, and stop it all at its end. Raises FleetError."""
        shared: asyncio.Future[Shared] = asyncio.get_running_loop().create_future()
        async with AsyncExitStack() as stack:
            guard = Guard(lock)
            stack.callback(guard.close)
            ports = {one.name: self._memory.port(one.name) for one in self._selection.started}
            self._stub_ports = {one.name: self._memory.port(one.name) for one in self._selection.stubs}
            stubs = {name: f"http://127.0.0.1:{port}" for name, port in self._stub_ports.items()}
            product = PageProduct(self.services, shared, stubs)
            place = self._memory.folder / "page"
            page = stack.enter_context(
                viewer.running(
                    place, product=product, port=self._memory.port("page of fleet up"), keep=self._options.keep
                )
            )
            servers = Servers(self._memory, self._brokers(), self._tell)
            stack.push_async_callback(servers.stop)

            def output(name: str) -> Output:
                return Output(self._memory.log(name), lambda lines: page.add_lines(name, lines))

            tools = Tools(self._memory, guard, shared, self._selection.known, output, self._tell)
            for one in self._selection.started:
                self.services[one.name] = ProductService(one, ports[one.name], tools)
            self._tasks = [asyncio.create_task(one.run()) for one in self.services.values()]
            stack.push_async_callback(_cancel, self._tasks)
            commands = await control.serve(self._memory, self._answer)
            stack.callback(self._memory.control.unlink, missing_ok=True)
            stack.callback(commands.close)
            shared.set_result(await self._share(servers, page, stack))
            self._tasks += [
                asyncio.create_task(servers.keep()),
                asyncio.create_task(restart_saved(self.services.values(), self._tell)),
            ]
            self._tasks.append(asyncio.create_task(self._announce(page)))
            yield self

    async def until_end(self) -> None:
        """Wait for `end` or `fleet down`. Raises the exception of a part that has failed."""
        ended = asyncio.create_task(self._ended.wait())
        done, _ = await asyncio.wait([ended, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    def _brokers(self) -> dict[str, Start]:
        """Return how each broker starts that the services need, and that does not run already."""
        port = self._memory.port
        starts: dict[str, Start] = {
            kind: partial(one.start, self._memory.log(kind), port(f"{kind} of fleet up"), port(f"management of {kind}"))
            for kind, one in self._options.composed.items()
        }
        if any(one.broker == "nats" for one in self._selection.started) and "nats" not in self._options.brokers:
            starts["nats"] = partial(nats_server.start, self._memory.folder / "nats", durable=True)
        return starts

    async def _share(self, servers: Servers, page: viewer.Viewer, stack: AsyncExitStack) -> Shared:
        """Start what the services share. Raises FleetError."""
        try:
            await servers.start()
        except EmbeddedServerError as error:
            raise FleetError(str(error)) from None
        ports = {one.name: self._memory.port(one.name, is_ours=False) for one in self._selection.left_out}
        ports |= {name: one.port for name, one in self.services.items()} | self._stub_ports
        for stub in self._selection.stubs:
            self._run_stub(stub, stack)
        brokers = {**self._options.brokers, **servers.brokers()}
        self._addresses["page"] = page.url
        issuer = ""
        if any(one.has_identity for one in self._checkouts):
            issuer = stack.enter_context(self._issuer().running()).url
            self._addresses["tokens"] = f"curl -d audience={next(iter(self.services))} {issuer}/token"
        self._addresses |= brokers
        telemetry = page.settings_for("")
        telemetry.pop(log_copy.ADDRESS)  # fleet reads the output of services itself, so they send no copy of their log
        if self._options.otlp:
            telemetry["OTEL_EXPORTER_OTLP_ENDPOINT"] = self._options.otlp
            telemetry |= {name: os.environ[name] for name in ("OTEL_EXPORTER_OTLP_HEADERS",) if name in os.environ}
            self._addresses["otlp"] = self._options.otlp
        secrets = {one.name: self._memory.secret("clients", one.name) for one in self._checkouts}
        return Shared(ports, await servers.databases(self._checkouts), brokers, issuer, secrets, telemetry)

    def _issuer(self) -> TokenServer:
        port = self._memory.port("issuer of fleet up")
        return TokenServer("", path=ISSUER_PATH, port=port, scopes=partial(find_scopes, self._selection.known))

    def _run_stub(self, stub: Stub, stack: AsyncExitStack) -> None:
        """Raises FleetError."""
        port = self._stub_ports[stub.name]
        try:
            stack.enter_context(stub.running(port))
        except OSError as error:
            raise FleetError(f"the stub of {stub.name} cannot listen on port {port}: {error.strerror}") from None

    async def _announce(self, page: viewer.Viewer) -> None:
        """Have the page ask again after each change of a state."""
        before = self.status()
        while True:
            await asyncio.sleep(STEP_SECONDS)
            if (now := self.status()) != before:
                before = now
                page.changed()

    async def _answer(self, command: str, name: str) -> Any:
        if command == "status":
            return self.status()
        if command == "down":
            self.end()
            return None
        if name in self._stub_ports:
            raise FleetError(f"{name} is a stub, which has no process: `fleet up --around {name}` starts the service")
        if (service := self.services.get(name)) is None:
            raise FleetError(f"`fleet up` runs no service {name}: it runs {', '.join(self.services)}")
        service.ask(command)
        while not service.has_settled():  # noqa: ASYNC110 (the state changes in many places)
            await asyncio.sleep(STEP_SECONDS)
        return self.status()


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def end_by_signals(end: Callable[[], None]) -> None:
    """Call `end` at the first signal. The second one ends the process at once, and the guard stops the rest."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def first() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        end()

    for number in numbers:
        # Under nohup, SIGHUP is ignored already, and stays ignored.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, first)
