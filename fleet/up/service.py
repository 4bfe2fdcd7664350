"""Keep one service running: install it, migrate its database, start it again after a save, a crash or a command."""

import asyncio
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fleet.errors import FleetError
from fleet.processes.programs import Guard
from fleet.up.checkout_state import is_installed, is_moved, migrations, version
from fleet.up.health import lives, why_unready
from fleet.up.held_socket import HeldSocket
from fleet.up.memory import Memory
from fleet.up.output import Output
from fleet.up.process import Process, describe_end
from fleet.up.product import Checkout
from fleet.up.wiring import Peer, Shared, environment, unknown_settings
from fleet.update.generated import team_environment

State = Literal["starting", "ready", "unready", "broken", "stopped"]

ATTEMPTS = 3
PAUSE_SECONDS = 0.5
START_SECONDS = 60
LOOK_SECONDS = 2
ANSWER_SECONDS = 5
MISSES = 3
"""A service that fails to answer /livez this many times in a row is restarted."""

RECOVERED_SECONDS = 10
"""A process that ran this long does not count as a failed attempt when it ends."""


class _Stopped(Exception):
    """The service was stopped while it was installed or its database migrated."""


class StartFailed(Exception):
    """The service does not run. The message is the reason for people, such as a traceback."""


@dataclass(frozen=True)
class Tools:
    """The parts that all services of a run share."""

    memory: Memory
    guard: Guard
    shared: asyncio.Future[Shared]
    known: list[Peer]
    output: Callable[[str], Output]
    tell: Callable[[str], None]


class ProductService:
    """One service, and its state for people: starting, ready, unready, broken or stopped."""

    def __init__(self, checkout: Checkout, port: int, tools: Tools) -> None:
        self.checkout, self.port, self._tools = checkout, port, tools
        self.state: State = "starting"
        self.doing = self.problem = ""
        self.version = self.migration = ""
        self.restarts = -1
        self.process: Process | None = None
        self.socket = HeldSocket(checkout, port)
        self._unwanted, self._asked = asyncio.Event(), asyncio.Event()
        self._output = tools.output(checkout.name)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def known(self) -> list[Peer]:
        """All services that this one may call."""
        return self._tools.known

    def ask(self, action: str) -> None:
        """Start, stop or restart the service soon. A service that runs already is not started."""
        if action == "start" and self.state not in ("stopped", "broken"):
            return
        self._unwanted.set() if action == "stop" else self._unwanted.clear()
        self.state, self.doing = "starting", ""
        self._asked.set()

    def has_settled(self) -> bool:
        """Return whether the last command is done: the service is stopped, or has started or failed to start."""
        return self.state == "stopped" or (not self._unwanted.is_set() and self.state != "starting")

    async def run(self) -> None:
        """Keep the service running or stopped, as the last command asked, until this is cancelled."""
        failures = 0
        try:
            while True:
                self._asked.clear()
                if self._unwanted.is_set():
                    await self._rest("stopped", "")
                    continue
                began = time.monotonic()
                try:
                    await self._start()
                    await self._watch()
                    failures = 0
                except _Stopped:
                    failures = 0
                except StartFailed as error:
                    has_run = self.state != "starting" and time.monotonic() - began > RECOVERED_SECONDS
                    failures = 1 if has_run else failures + 1
                    await self._fail(str(error), failures)
                    failures %= ATTEMPTS
                except FleetError as error:
                    await self._rest_broken(str(error))
                except OSError as error:  # for example, the checkout was moved: the other services go on
                    await self._rest_broken(f"cannot start: {error}")
        finally:
            if self.process:
                await self.process.stop()
            self.socket.close()
            self._output.close()

    async def _fail(self, problem: str, failures: int) -> None:
        """Show the problem. After the last attempt, wait for a save or a command; otherwise pause before the next attempt."""
        if failures == 1:
            self._tools.tell(f"{self.checkout.name} has ended:\n{problem}")
        if failures == ATTEMPTS:
            self._tools.tell(f"{self.checkout.name} does not run, and starts again after a save")
            await self._rest("broken", problem)
        elif self.state == "starting":
            self.problem = problem
            await self.socket.refuse()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _rest_broken(self, problem: str) -> None:
        self._tools.tell(f"{self.checkout.name} {problem}")
        await self._rest("broken", problem)

    async def _rest(self, state: State, problem: str) -> None:
        await self.socket.refuse()
        self.state, self.problem, self.doing = state, problem, ""
        await self._asked.wait()

    async def _start(self) -> None:
        """Raises StartFailed, and FleetError for a reason that another attempt does not remove."""
        self.state, self.restarts = "starting", self.restarts + 1
        self._output.begin()
        self.socket.open()
        await self._install()
        shared = await asyncio.shield(self._tools.shared)
        if lacking := unknown_settings(self.checkout, self._tools.known):
            raise FleetError(f"needs {', '.join(lacking)}: write it into `settings` of its entry in fleet.toml")
        variables = environment(self.checkout, self._tools.known, shared)
        self.version = await asyncio.to_thread(version, self.checkout.folder)
        await self._migrate(variables)
        await self._serve(variables | {"SERVICE_VERSION": self.version or "0.0.0"})

    async def _install(self) -> None:
        why = ""
        if is_installed(self.checkout.folder):
            if not is_moved(self.checkout):
                return
            why = ", because its environment was made for another folder"
            await asyncio.to_thread(self._delete_environment)
        await self.socket.refuse()
        self._tools.tell(f"{self.checkout.name} is installed by `make setup`{why}")
        await self._run("installing", "make", "setup")
        self.socket.open()

    def _delete_environment(self) -> None:
        environment = self.checkout.folder / ".venv"
        if environment.is_symlink():
            raise FleetError(
                f"does not start: its .venv is a link to an environment of another folder: remove {environment}"
            )
        # The marker goes first, so that an environment which is only partly deleted counts as missing.
        (environment / ".ready").unlink()
        shutil.rmtree(environment)

    async def _run(self, doing: str, *command: str, variables: dict[str, str] | None = None) -> None:
        self.doing = doing
        self.process = await self._spawn(command, variables or team_environment())
        unwanted = asyncio.create_task(self._unwanted.wait())
        try:
            await asyncio.wait([self.process.ended, unwanted], return_when=asyncio.FIRST_COMPLETED)
        finally:
            unwanted.cancel()
            await self.process.stop()
        if self._unwanted.is_set():
            raise _Stopped
        if self.process.ended.result() != 0:
            raise StartFailed(self._end())

    def _end(self) -> str:
        """Describe how the process has ended, with the end of its output."""
        assert self.process
        status = self.process.ended.result()
        return f"{describe_end(status)}\n{self._output.tail()}".rstrip()

    async def _spawn(self, command: tuple[str, ...], variables: dict[str, str], *descriptors: int) -> Process:
        return await Process.start(
            command,
            folder=self.checkout.folder,
            environment=variables,
            output=self._output,
            guard=self._tools.guard,
            descriptors=descriptors,
        )

    def _program(self, command: str) -> tuple[str, ...]:
        return (str(self.checkout.folder / ".venv/bin/python"), "-m", self.checkout.package, command)

    async def _migrate(self, variables: dict[str, str]) -> None:
        """Apply the migrations, by the service's own role, unless the database is known to have them."""
        digest, newest = migrations(self.checkout, variables["DATABASE_URL"])
        if self._tools.memory.applied(self.checkout.name) != digest:
            await self._run("migrating", *self._program("migrate"), variables=variables)
            self._tools.memory.remember("migrations", self.checkout.name, digest)
        self.migration = newest

    async def _serve(self, variables: dict[str, str]) -> None:
        self.doing = ""
        descriptors = self.socket.pass_on()
        if descriptors:
            variables = variables | {"HTTP_FD": str(descriptors[0])}
        began = time.monotonic()
        self._output.begin()
        self.process = await self._spawn(self._program("serve"), variables, *descriptors)
        looking, asked = asyncio.create_task(self._until_ready()), asyncio.create_task(self._asked.wait())
        try:
            await asyncio.wait(
                [looking, asked, self.process.ended], timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            looking.cancel()
            asked.cancel()
        if self._asked.is_set():
            return  # `_watch` comes next, and stops the process
        if self.process.ended.done():
            raise StartFailed(self._end())
        if self.state == "starting":
            await self.process.stop()
            raise StartFailed(f"it did not answer within {START_SECONDS} s\n{self._output.tail()}".rstrip())
        self._tools.tell(f"{self.checkout.name} {self.state} after {time.monotonic() - began:.1f} s")

    async def _until_ready(self) -> None:
        """Wait for an answer to a request, which waits in the socket's queue until the service takes it."""
        deadline = time.monotonic() + START_SECONDS / 2
        while True:
            try:
                await self._look(START_SECONDS)
            except (OSError, ValueError):
                await asyncio.sleep(0.1)
                continue
            if self.state == "ready" or time.monotonic() > deadline:
                return
            await asyncio.sleep(0.2)

    async def _watch(self) -> None:
        """Watch the process until a save or a command. Raises StartFailed if the process ends by itself, or has to be ended."""
        assert self.process
        asked, misses = asyncio.create_task(self._asked.wait()), 0
        try:
            while True:
                await asyncio.wait(
                    [asked, self.process.ended], timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if asked.done():
                    return await self.process.stop()
                if self.process.ended.done():
                    raise StartFailed(self._end())
                problem = await self._complaint()
                misses = misses + 1 if problem else 0
                if misses == MISSES:
                    await self.process.stop()
                    raise StartFailed(f"{problem}, and was ended\n{self._output.tail()}".rstrip())
        finally:
            asked.cancel()

    async def _complaint(self) -> str:
        """Return the problem for which the process is ended if the problem persists; empty if the process lives."""
        try:
            if not await lives(self.port, ANSWER_SECONDS):
                self.state, self.problem = "unready", "its /livez answers that it has to be restarted"
                return self.problem
            await self._look(ANSWER_SECONDS)
        except (OSError, ValueError):
            self.state, self.problem = "unready", f"it gave no usable answer within {ANSWER_SECONDS} s"
            return self.problem
        return ""

    async def _look(self, seconds: float) -> None:
        """Ask the service whether it is ready. Raises OSError or ValueError if it gives no usable answer."""
        problem = await why_unready(self.port, seconds)
        self.doing, self.problem = "", problem
        self.state = "unready" if problem else "ready"
